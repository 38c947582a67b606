"""Recordings that come in blocks, regrouped so that nothing shows where one ends.

What is known of a recording along its time, wherever it is kept: in memory, on disk, or unmade.

A track is asked for a part of itself, so that no step of the method need hold a whole recording.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor

from tonewood.utils.arrays import Samples

Wave = TypeVar("Wave", Samples, Tensor)


class Chunk(NamedTuple, Generic[Wave]):
    """Part of a recording with a margin of its neighbours.

    Parameters
    ----------
    samples : float32 array or Tensor (..., samples)
        Margins included; the recording's ends have none.
    offset : int
        Place of the piece's first sample in the recording.
    left_margin : int
        Samples of margin before what the piece is about.
    core_size : int
        Samples that it is about.
    is_last : bool
        The recording ends with it.
    """

    samples: Wave
    offset: int
    left_margin: int
    core_size: int
    is_last: bool = False

    @property
    def core(self) -> Wave:
        """Samples (..., samples) that it is about."""
        return self.samples[..., self.left_margin : self.left_margin + self.core_size]

    @property
    def core_start(self) -> int:
        """Place in the recording of the first sample that it is about."""
        return self.offset + self.left_margin


class Rechunker:
    """Blocks (..., samples) of any size, pushed one by one, as pieces of `size` with margins.

    Pieces follow one another without gaps; the last one is as long as what is left.

    Parameters
    ----------
    size, margin : int
        Samples.
    """

    def __init__(self, size: int, margin: int) -> None:
        self.size, self.margin = size, margin
        self._pending: list[Samples] = []
        self._offset = self._next_start = self._received = 0  # of what is held, of the next piece; what came

    def push(self, block: Samples) -> Iterator[Chunk[Samples]]:
        """Pieces that a block completes."""
        self._pending.append(block)
        self._received += block.shape[-1]
        while self._received > self._next_start + self.size + self.margin:
            whole = self._joined()
            stop = self._next_start + self.size + self.margin - self._offset
            yield Chunk(whole[..., :stop], self._offset, self._next_start - self._offset, self.size)
            self._next_start += self.size
            keep = max(0, self._next_start - self.margin)
            self._pending = [whole[..., keep - self._offset :]]
            self._offset = keep

    def flush(self) -> Iterator[Chunk[Samples]]:
        """What is left; nothing of nothing."""
        if self._received > self._next_start:
            lead = self._next_start - self._offset
            yield Chunk(self._joined(), self._offset, lead, self._received - self._next_start, is_last=True)

    def _joined(self) -> Samples:
        return self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending, axis=-1)


def overlapping_chunks(blocks: Iterable[Samples], size: int, margin: int) -> Iterator[Chunk[Samples]]:
    """All pieces that `Rechunker` makes of some blocks."""
    regrouped = Rechunker(size, margin)
    for block in blocks:
        yield from regrouped.push(block)
    yield from regrouped.flush()


def split_chunk(chunk: Chunk[Wave], size: int, margin: int) -> Iterator[Chunk[Wave]]:
    """A piece as smaller ones, cut where `overlapping_chunks` of the whole recording would cut.

    Parameters
    ----------
    size, margin : int
        Samples; the piece's own margins are as wide at least, or end with the recording.
    """
    start, end = chunk.core_start, chunk.core_start + chunk.core_size
    while start < end:
        stop = min((start // size + 1) * size, end)
        first = max(chunk.offset, start - margin)
        samples = chunk.samples[..., first - chunk.offset : stop + margin - chunk.offset]
        yield Chunk(samples, first, start - first, stop - start, chunk.is_last and stop == end)
        start = stop


def with_margin(chunk: Chunk[Wave], margin: int) -> Chunk[Wave]:
    """A piece that is about so much of its margins too, as far as the recording goes."""
    before = min(margin, chunk.core_start)
    after = 0 if chunk.is_last else margin
    return chunk._replace(left_margin=chunk.left_margin - before, core_size=before + chunk.core_size + after)


def single_chunk(samples: Wave) -> Chunk[Wave]:
    """A recording (..., samples) that is one piece."""
    return Chunk(samples, 0, 0, samples.shape[-1], is_last=True)


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
