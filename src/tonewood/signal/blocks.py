"""Recordings that come in blocks, regrouped so that nothing shows where one ends."""

from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Samples = NDArray[np.float32]
Wave = TypeVar("Wave", Samples, Tensor)


class Piece(NamedTuple, Generic[Wave]):
    """Part of a recording with a margin of its neighbours.

    Parameters
    ----------
    samples : float32 array or Tensor (..., samples)
        Margins included; the recording's ends have none.
    first : int
        Place of the piece's first sample in the recording.
    lead : int
        Samples of margin before what the piece is about.
    size : int
        Samples that it is about.
    last : bool
        The recording ends with it.
    """

    samples: Wave
    first: int
    lead: int
    size: int
    last: bool = False

    @property
    def own(self) -> Wave:
        """Samples (..., samples) that it is about."""
        return self.samples[..., self.lead : self.lead + self.size]

    @property
    def start(self) -> int:
        """Place in the recording of the first sample that it is about."""
        return self.first + self.lead


class Regrouped:
    """Blocks (..., samples) of any size, pushed one by one, as pieces of `size` with margins.

    Pieces follow one another without gaps; the last one is as long as what is left.

    Parameters
    ----------
    size, margin : int
        Samples.
    """

    def __init__(self, size: int, margin: int) -> None:
        self.size, self.margin = size, margin
        self._held: list[Samples] = []
        self._first = self._at = self._have = 0  # of what is held, of the next piece; what came

    def push(self, block: Samples) -> Iterator[Piece[Samples]]:
        """Pieces that a block completes."""
        self._held.append(block)
        self._have += block.shape[-1]
        while self._have > self._at + self.size + self.margin:
            whole = self._whole()
            stop = self._at + self.size + self.margin - self._first
            yield Piece(whole[..., :stop], self._first, self._at - self._first, self.size)
            self._at += self.size
            keep = max(0, self._at - self.margin)
            self._held = [whole[..., keep - self._first :]]
            self._first = keep

    def rest(self) -> Iterator[Piece[Samples]]:
        """What is left; nothing of nothing."""
        if self._have > self._at:
            lead = self._at - self._first
            yield Piece(self._whole(), self._first, lead, self._have - self._at, last=True)

    def _whole(self) -> Samples:
        return self._held[0] if len(self._held) == 1 else np.concatenate(self._held, axis=-1)


def overlapping(blocks: Iterable[Samples], size: int, margin: int) -> Iterator[Piece[Samples]]:
    """All pieces that `Regrouped` makes of some blocks."""
    regrouped = Regrouped(size, margin)
    for block in blocks:
        yield from regrouped.push(block)
    yield from regrouped.rest()


def cut(piece: Piece[Wave], size: int, margin: int) -> Iterator[Piece[Wave]]:
    """A piece as smaller ones, cut where `overlapping` of the whole recording would cut.

    Parameters
    ----------
    size, margin : int
        Samples; the piece's own margins are as wide at least, or end with the recording.
    """
    start, end = piece.start, piece.start + piece.size
    while start < end:
        stop = min((start // size + 1) * size, end)
        first = max(piece.first, start - margin)
        samples = piece.samples[..., first - piece.first : stop + margin - piece.first]
        yield Piece(samples, first, start - first, stop - start, piece.last and stop == end)
        start = stop


def widened(piece: Piece[Wave], margin: int) -> Piece[Wave]:
    """A piece that is about so much of its margins too, as far as the recording goes."""
    before = min(margin, piece.start)
    after = 0 if piece.last else margin
    return piece._replace(lead=piece.lead - before, size=before + piece.size + after)


def whole(samples: Wave) -> Piece[Wave]:
    """A recording (..., samples) that is one piece."""
    return Piece(samples, 0, 0, samples.shape[-1], last=True)
