"""What is known of a recording along its time, wherever it is kept: in memory, on disk, or unmade.

A track is asked for a part of itself, so that no step of the method need hold a whole recording.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

PART_FRAMES = 6_000  # a minute at 10 ms: what is worked on at once where nothing else decides


class Track(Protocol):
    """Something of `frames` moments."""

    @property
    def frames(self) -> int:
        """Number of moments."""
        ...

    def part(self, first: int, last: int) -> Tensor:
        """Values [row, frame], or [frame], of the moments from `first` up to `last`."""
        ...


@dataclass(frozen=True)
class Held:
    """A track that is a tensor [row, frame] or [frame]."""

    values: Tensor

    @property
    def frames(self) -> int:
        """Number of moments."""
        return int(self.values.shape[-1])

    def part(self, first: int, last: int) -> Tensor:
        """A view of the tensor."""
        return self.values[..., first:last]


@dataclass(frozen=True)
class Made:
    """A track that is made when it is asked for; what makes it is given first and last moment."""

    frames: int
    make: Callable[[int, int], Tensor]

    def part(self, first: int, last: int) -> Tensor:
        """Made anew every time."""
        return self.make(first, last)


@dataclass(frozen=True)
class Span:
    """Moments of a track that are worked on at once, and the margin that is looked at too."""

    first: int
    last: int
    begin: int
    end: int

    @property
    def inner(self) -> slice:
        """Where, in what spans the margin too, the moments themselves are."""
        return slice(self.first - self.begin, self.last - self.begin)


def spans(frames: int, size: int = PART_FRAMES, margin: int = 0) -> Iterator[Span]:
    """Cut so many moments into spans of `size`, each with `margin` moments either side."""
    for first in range(0, frames, size):
        last = min(first + size, frames)
        yield Span(first, last, max(0, first - margin), min(frames, last + margin))


def parts(track: Track, size: int = PART_FRAMES) -> Iterator[Tensor]:
    """All of a track, part by part."""
    for span in spans(track.frames, size):
        yield track.part(span.first, span.last)
