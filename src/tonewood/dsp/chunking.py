"""Audio in overlapping chunks, and time series in segments, so that no step holds a whole recording."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from tonewood.utils.arrays import Levels, Samples

SEGMENT_FRAMES = 6_000
"""Default number of frames processed at once: a minute at a hop of 10 ms."""


class Chunk(NamedTuple):
    """Consecutive samples (..., samples) of a recording: a core, and margins of its neighbours.

    There is no margin beyond the ends of the recording; the core of the last chunk ends with it.
    `offset` is the position of the first sample in the recording, margin included.
    """

    samples: Samples
    offset: int
    left_margin: int
    core_size: int
    is_last: bool = False

    @property
    def core(self) -> Samples:
        """Samples (..., samples) without the margins."""
        return self.samples[..., self.left_margin : self.left_margin + self.core_size]

    @property
    def core_start(self) -> int:
        """Position of the core in the recording."""
        return self.offset + self.left_margin


class Rechunker:
    """Turns blocks (..., samples) of any size into chunks whose cores have one size.

    Cores of `size` samples, with a margin on each side, follow one another without gaps; the last
    one holds the remaining samples.
    """

    def __init__(self, size: int, margin: int) -> None:
        self.size, self.margin = size, margin
        self._pending: list[Samples] = []
        # Positions in the recording: of the oldest pending sample, of the next core, of the end.
        self._offset = self._next_start = self._received = 0

    def push(self, block: Samples) -> Iterator[Chunk]:
        """Yield the chunks that a block completes."""
        self._pending.append(block)
        self._received += block.shape[-1]
        # Strictly more than the margin: flush() must have at least one sample for the last chunk.
        while self._received > self._next_start + self.size + self.margin:
            samples = self._join()
            stop = self._next_start + self.size + self.margin - self._offset
            left_margin = self._next_start - self._offset
            yield Chunk(samples[..., :stop], self._offset, left_margin, self.size)
            self._next_start += self.size
            # Of the samples so far, only the margin of the next core is still needed.
            oldest = max(0, self._next_start - self.margin)
            self._pending = [samples[..., oldest - self._offset :]]
            self._offset = oldest

    def flush(self) -> Iterator[Chunk]:
        """Yield the last chunk; an empty recording has none."""
        if self._received > self._next_start:
            left_margin = self._next_start - self._offset
            size = self._received - self._next_start
            yield Chunk(self._join(), self._offset, left_margin, size, is_last=True)

    def _join(self) -> Samples:
        # A single block needs no copy.
        return self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending, axis=-1)


def overlapping_chunks(blocks: Iterable[Samples], size: int, margin: int) -> Iterator[Chunk]:
    """Yield the chunks that `Rechunker` makes of blocks."""
    rechunker = Rechunker(size, margin)
    for block in blocks:
        yield from rechunker.push(block)
    yield from rechunker.flush()


def split_chunk(chunk: Chunk, size: int, margin: int) -> Iterator[Chunk]:
    """Split a chunk at the multiples of `size` in the recording, as `overlapping_chunks` does.

    The chunk's own margins must be at least `margin` samples wide or end with the recording.
    """
    start, end = chunk.core_start, chunk.core_start + chunk.core_size
    while start < end:
        # The grid is that of the recording, so that results do not depend on the chunk.
        stop = min((start // size + 1) * size, end)
        first = max(chunk.offset, start - margin)
        samples = chunk.samples[..., first - chunk.offset : stop + margin - chunk.offset]
        yield Chunk(samples, first, start - first, stop - start, chunk.is_last and stop == end)
        start = stop


def with_margin(chunk: Chunk, margin: int) -> Chunk:
    """Return the chunk with its core extended into its margins, within the recording."""
    # A chunk has no samples beyond the ends of the recording.
    before = min(margin, chunk.core_start)
    after = 0 if chunk.is_last else margin
    return chunk._replace(left_margin=chunk.left_margin - before, core_size=before + chunk.core_size + after)


def single_chunk(samples: Samples) -> Chunk:
    """Return a recording (..., samples) as one chunk."""
    return Chunk(samples, 0, 0, samples.shape[-1], is_last=True)


class TimeSeries(Protocol):
    """Values along the frames of a recording: in memory, on disk, or computed on demand."""

    @property
    def frames(self) -> int:
        """Number of frames."""
        ...

    def read(self, start: int, stop: int) -> Levels:
        """Return values [row, frame] or [frame] from `start` to before `stop`."""
        ...


@dataclass(frozen=True)
class ArrayTimeSeries:
    """Time series held in an array [row, frame] or [frame]."""

    values: Levels

    @property
    def frames(self) -> int:
        """Number of frames."""
        return int(self.values.shape[-1])

    def read(self, start: int, stop: int) -> Levels:
        """Return a view of the array."""
        return self.values[..., start:stop]


@dataclass(frozen=True)
class LazyTimeSeries:
    """Time series that `compute(start, stop)` computes at each reading."""

    frames: int
    compute: Callable[[int, int], Levels]

    def read(self, start: int, stop: int) -> Levels:
        """Compute the values from `start` to before `stop`."""
        return self.compute(start, stop)


def mean_series(series: Sequence[TimeSeries]) -> TimeSeries:
    """Return the mean of time series of one shape; a single one is returned as it is."""
    if len(series) == 1:
        return series[0]

    def read(start: int, stop: int) -> Levels:
        total: Levels = np.sum([each.read(start, stop) for each in series], axis=0) / np.float32(len(series))
        return total

    return LazyTimeSeries(series[0].frames, read)


@dataclass(frozen=True)
class Segment:
    """Frames `start` to `stop` of a time series, and the range with a margin on each side."""

    start: int
    stop: int
    padded_start: int
    padded_stop: int

    @property
    def core(self) -> slice:
        """Position of the frames within the padded range."""
        return slice(self.start - self.padded_start, self.stop - self.padded_start)


def split_segments(frames: int, size: int = SEGMENT_FRAMES, margin: int = 0) -> Iterator[Segment]:
    """Split frames into segments of `size`, each with a margin within the recording."""
    for start in range(0, frames, size):
        stop = min(start + size, frames)
        yield Segment(start, stop, max(0, start - margin), min(frames, stop + margin))


def read_segments(series: TimeSeries, size: int = SEGMENT_FRAMES) -> Iterator[Levels]:
    """Yield a time series segment by segment."""
    for segment in split_segments(series.frames, size):
        yield series.read(segment.start, segment.stop)
