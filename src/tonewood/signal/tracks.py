"""What is known of a recording along its time, wherever it is kept: in memory, on disk, or unmade.

A track is asked for a part of itself, so that no step of the method need hold a whole recording.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

SEGMENT_FRAMES = 6_000  # a minute at 10 ms: what is worked on at once where nothing else decides


class TimeSeries(Protocol):
    """Something of `frames` moments."""

    @property
    def frames(self) -> int:
        """Number of moments."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Values [row, frame], or [frame], of the moments from `start` up to `stop`."""
        ...


@dataclass(frozen=True)
class TensorTimeSeries:
    """A track that is a tensor [row, frame] or [frame]."""

    values: Tensor

    @property
    def frames(self) -> int:
        """Number of moments."""
        return int(self.values.shape[-1])

    def read(self, start: int, stop: int) -> Tensor:
        """A view of the tensor."""
        return self.values[..., start:stop]


@dataclass(frozen=True)
class LazyTimeSeries:
    """A track that is made when it is asked for; what makes it is given first and last moment."""

    frames: int
    compute: Callable[[int, int], Tensor]

    def read(self, start: int, stop: int) -> Tensor:
        """Made anew every time."""
        return self.compute(start, stop)


@dataclass(frozen=True)
class Segment:
    """Moments of a track that are worked on at once, and the margin that is looked at too."""

    start: int
    stop: int
    padded_start: int
    padded_stop: int

    @property
    def core(self) -> slice:
        """Where, in what spans the margin too, the moments themselves are."""
        return slice(self.start - self.padded_start, self.stop - self.padded_start)


def split_segments(frames: int, size: int = SEGMENT_FRAMES, margin: int = 0) -> Iterator[Segment]:
    """Cut so many moments into spans of `size`, each with `margin` moments either side."""
    for first in range(0, frames, size):
        last = min(first + size, frames)
        yield Segment(first, last, max(0, first - margin), min(frames, last + margin))


def read_segments(series: TimeSeries, size: int = SEGMENT_FRAMES) -> Iterator[Tensor]:
    """All of a track, part by part."""
    for span in split_segments(series.frames, size):
        yield series.read(span.start, span.stop)
