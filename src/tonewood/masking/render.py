"""A mask becomes sound: exp(M) on the recording's own spectrum, then loudness and peak."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.masking.aspects import mean_db, wanted
from tonewood.masking.mask import Excerpt, LongMask, Mask
from tonewood.settings import RenderSettings, SpectrumSettings
from tonewood.signal.bandpass import Block, band_alone, reach_seconds
from tonewood.signal.blocks import Piece, Samples, overlapping, widened
from tonewood.signal.loudness import integrated_loudness, true_peak_db
from tonewood.signal.pieces import lasting, piece_margin, piece_size
from tonewood.signal.spectrum import filter_margin, filtered_piece
from tonewood.signal.spread import spread
from tonewood.signal.tracks import Made


@dataclass(frozen=True)
class Matching:
    """How loud a recording was and became.

    Parameters
    ----------
    gain_db : float
        Gain that matched the loudness and held the peak.
    loudness_before, loudness_after : float
        Integrated loudness, LUFS.
    held : bool
        The peak's ceiling, and not the loudness, set the gain.
    """

    gain_db: float
    loudness_before: float
    loudness_after: float
    held: bool

    @property
    def factor(self) -> np.float32:
        """The gain as a factor of the samples."""
        return np.float32(10 ** (self.gain_db / 20))


@dataclass(frozen=True, eq=False)
class Rendered(Matching):
    """Sound that a mask made: float32 samples (channels, samples), matched."""

    samples: NDArray[np.float32]


def rendered(
    samples: NDArray[np.float32],
    rate: int,
    mask: Mask,
    settings: RenderSettings,
    spectrum: SpectrumSettings,
) -> Rendered:
    """Pass samples (channels, samples) at any rate through a mask.

    Amount 0 returns the input itself. Otherwise, unless told to leave both alone or to change only
    a part of the recording, one gain makes the output as loud as the input, or less where its true
    peak would pass the ceiling.
    """
    before = integrated_loudness(samples, rate)
    if settings.amount == 0:
        return Rendered(0.0, before, before, held=False, samples=samples)
    force = LongMask.of(mask)
    blocks = rendered_blocks([samples], rate, samples.shape[0], force, settings, spectrum)
    return matched(np.concatenate(list(blocks), axis=1), rate, before, settings)


def rendered_blocks(
    blocks: Iterable[Block],
    rate: int,
    channels: int,
    mask: LongMask,
    settings: RenderSettings,
    spectrum: SpectrumSettings,
) -> Iterator[Block]:
    """A recording of any length passed through a mask, its loudness as it comes out.

    What comes out depends on the samples alone, and not on how they are cut into blocks.

    Parameters
    ----------
    blocks : iterable of Block
        The recording (channels, samples).
    """
    way = Passage(rate, channels, settings.aspect.between, spectrum)
    force = in_force(mask, settings, spectrum)
    pieces = overlapping(blocks, way.size, way.margin)
    passing = (way.item(piece, force) for piece in pieces)
    return (made.own for made in spread(way, passing, portable=True))


class Passing(NamedTuple):
    """A piece of a recording, and what applies to it of a mask."""

    piece: Piece[Samples]
    mask: Excerpt


@dataclass(frozen=True)
class Passage:
    """The way of a recording's pieces through a mask; a piece and its part of the mask decide.

    Parameters
    ----------
    rate, channels : int
        Of the recording.
    between : pair of float, optional
        Hz that alone may change.
    spectrum : SpectrumSettings
    device : str
        Where to filter.
    """

    rate: int
    channels: int
    between: tuple[float, float] | None
    spectrum: SpectrumSettings
    device: str = "cpu"

    @property
    def size(self) -> int:
        """Samples of a piece."""
        return piece_size(self.rate, self.channels, self.spectrum)

    @property
    def margin(self) -> int:
        """Samples beyond a piece that it takes; whole frames of the analysis."""
        samples = self._heard + self._reach + filter_margin(self.rate, self.spectrum)
        return lasting(self.spectrum.frames(samples / self.rate) + 1, self.rate, self.spectrum)

    @property
    def _heard(self) -> int:
        return piece_margin(self.rate, self.spectrum)

    @property
    def _reach(self) -> int:
        return 0 if self.between is None else round(reach_seconds(*self.between) * self.rate) + 1

    def item(self, piece: Piece[Samples], force: LongMask) -> Passing:
        """A piece with what is in force for it."""
        end = piece.first + piece.samples.shape[1]
        hop = self.spectrum.hop / self.spectrum.rate  # frames are filtered beyond the end
        return Passing(piece, force.excerpt(piece.first / self.rate, end / self.rate + 2 * hop))

    def __call__(self, item: Passing) -> Piece[Samples]:
        """What a piece becomes, with as much margin as it takes to hear it."""
        piece = widened(item.piece, self._heard)
        wide = widened(piece, self._reach)
        # A file mapped into memory may not be written to, which torch complains of.
        wave = torch.from_numpy(np.require(wide.samples, requirements=("C", "W")))
        there = Piece(wave.to(self.device), *wide[1:])
        field = item.mask.field(torch.device(self.device))
        made = filtered_piece(there, self.rate, field, self.spectrum).cpu().numpy()
        if self.between is not None:
            # The masks' window tells frequencies 66 Hz apart; the ear, and the promise, are finer.
            made = band_alone(wide.own, made, self.rate, *self.between)
        samples = np.ascontiguousarray(made[:, piece.start - wide.start :][:, : piece.size])
        lead = item.piece.start - piece.start
        return Piece(samples, piece.start, lead, item.piece.size, piece.last)


def in_force(mask: LongMask, settings: RenderSettings, spectrum: SpectrumSettings) -> LongMask:
    """What is applied of a mask as it was found: the aspect that is wanted, times the amount."""
    aspect, reach = settings.aspect, spectrum.window_ms / 2000
    if aspect.between is not None:
        reach += reach_seconds(*aspect.between)
    mean = mean_db(mask) if aspect.only in ("bands", "dynamics-of-bands") else None
    frames = mask.gain_db.frames
    if frames == 1:  # stands for all times: short, whatever becomes of it
        return LongMask.of(wanted(mask.whole(), aspect, reach).scaled(settings.amount))

    def make(first: int, last: int) -> Tensor:
        # Two frames at least: a single one would be taken for a mask that does not move.
        part = mask.part(first, max(last, 2))
        made = wanted(part, aspect, reach, first=first, mean_db=mean).scaled(settings.amount)
        return torch.from_numpy(made.gain_db[:, : last - first])

    hz = wanted(mask.part(0, 2), aspect, reach, mean_db=mean).hz
    return LongMask(Made(frames, make), hz, mask.hop_seconds, mask.top_hz)


def matched(
    made: NDArray[np.float32], rate: int, loudness: float, settings: RenderSettings
) -> Rendered:
    """Give samples (channels, samples) a loudness in LUFS, or less to keep the peak's ceiling."""
    peak = true_peak_db(made, rate) if settings.matches else 0.0
    found = matching(loudness, integrated_loudness(made, rate), peak, settings)
    samples = made * found.factor if found.gain_db else made
    return Rendered(
        found.gain_db, found.loudness_before, found.loudness_after, found.held, samples=samples
    )


def matching(before: float, after: float, peak_db: float, settings: RenderSettings) -> Matching:
    """Gain for a rendering of so much loudness (LUFS) and true peak (dBTP)."""
    if not settings.matches:
        return Matching(settings.gain_db, before, after + settings.gain_db, held=False)
    wanted = before - after if np.isfinite(before) and np.isfinite(after) else 0.0
    headroom = settings.ceiling_dbtp - peak_db
    gain = min(wanted, headroom)
    return Matching(gain, before, after + gain, held=headroom < wanted)
