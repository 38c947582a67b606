"""A recording as it comes → what the method knows of it along its time, kept on disk."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tonewood.files.audio import Resampler, mono_of
from tonewood.files.modelfile import Model
from tonewood.files.spool import Spool
from tonewood.signal.bands import centres_hz, frame_levels
from tonewood.signal.blocks import Piece, Regrouped
from tonewood.signal.features import PITCHES, Levels, analysed
from tonewood.signal.loudness import Loudness
from tonewood.signal.spread import Spread

_PIECE_FRAMES = 1024  # even, so that long frames fall on it too
_MARGIN_FRAMES = 8  # half a long window, and the padding of the short ones
_BLOCK = 1 << 16


class Sound(Protocol):
    """A recording that can be run through, more than once."""

    @property
    def rate(self) -> int:
        """Hz."""
        ...

    @property
    def channels(self) -> int:
        """Number of channels."""
        ...

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All of it, (channels, samples) at a time."""
        ...


@dataclass(frozen=True, eq=False)
class InMemory:
    """A recording (channels, samples) in memory."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.samples.shape[0])

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Views of it."""
        for start in range(0, self.samples.shape[1], _BLOCK):
            yield self.samples[:, start : start + _BLOCK]


@dataclass(frozen=True, eq=False)
class Beginning:
    """The first seconds of a recording."""

    whole: Sound
    seconds: float

    @property
    def rate(self) -> int:
        """Hz."""
        return self.whole.rate

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.whole.channels

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """As many blocks as it is long."""
        left = round(self.seconds * self.rate)
        for block in self.whole.blocks():
            yield block[:, :left]
            left -= block.shape[1]
            if left <= 0:
                return


@dataclass(frozen=True)
class Heard:
    """A recording, analysed.

    Parameters
    ----------
    wave : Spool [sample]
        Mean of the channels, at the analysis rate.
    rows_db : Spool [row, frame]
        On the scorer's rows.
    pitches : Spool [pitch, long frame]
        Power on quarter tones; empty where they were of no interest.
    levels : Levels
    loudness : float
        Integrated, LUFS.
    peak : float
        Largest sample, 1 at full scale.
    samples : int
        In each channel, at the recording's own rate.
    """

    wave: Spool
    rows_db: Spool
    pitches: Spool
    levels: Levels
    loudness: float
    peak: float
    samples: int


class Ears:
    """Analyse a recording while it passes: push its blocks, then ask what was heard.

    Parameters
    ----------
    rate, channels : int
        Of the blocks.
    model : Model
    folder : Path, optional
        On whose disk to keep it.
    pitched : bool
        Whether pitches are of interest.
    device : str
        Where to analyse; what is heard is kept on disk.
    """

    def __init__(
        self,
        rate: int,
        channels: int,
        model: Model,
        folder: Path | None = None,
        *,
        pitched: bool = True,
        device: str = "cpu",
    ) -> None:
        self._device = device
        self.spectrum, self.bands = model.settings.spectrum, model.settings.scorer.bands
        rows = len(centres_hz(self.bands, self.spectrum))
        self._wave, self._rows = Spool(None, folder), Spool(rows, folder)
        self._pitches = Spool(PITCHES, folder)
        self._loudness = Loudness(rate, channels)
        self._resampler = Resampler(rate, self.spectrum.rate)
        hop = self.spectrum.hop
        self._pieces = Regrouped(_PIECE_FRAMES * hop, _MARGIN_FRAMES * hop)
        self._pitched, self._analysed = pitched, Spread(self._analyse)
        self._samples, self._peak = 0, 0.0
        self._power = 0.0
        self._loudest = -np.inf
        self._pitch_power = 0.0

    def push(self, block: NDArray[np.float32]) -> None:
        """Hear more samples (channels, samples)."""
        self._samples += block.shape[1]
        self._peak = max(self._peak, float(block.max()), -float(block.min()))
        self._loudness.push(block)
        self._listen(self._resampler.push(mono_of(block)))

    def heard(self) -> Heard:
        """All that was heard; nothing can be pushed after it."""
        self._listen(self._resampler.rest())
        for piece in self._pieces.rest():
            self._keep(self._analysed.push(piece))
        self._keep(self._analysed.rest())
        self._analysed.close()
        mean = 10 * np.log10(self._power / self._rows.frames)
        return Heard(
            self._wave,
            self._rows,
            self._pitches,
            Levels(float(mean), self._loudest, self._pitch_power),
            self._loudness.integrated(),
            self._peak,
            self._samples,
        )

    def _listen(self, wave: NDArray[np.float32]) -> None:
        self._wave.append(wave)
        for piece in self._pieces.push(wave):
            self._keep(self._analysed.push(piece))

    def _analyse(self, piece: Piece) -> tuple[Tensor, Tensor | None]:
        """Rows, and power on pitches, of the frames that a piece is about."""
        rows, power = analysed(
            piece, self.bands, self.spectrum, pitched=self._pitched, device=self._device
        )
        return rows.cpu(), None if power is None else power.cpu()

    def _keep(self, analysed: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        for rows, power in analysed:
            self._rows.append(rows)
            level = frame_levels(rows)
            self._power += float((level.double() * (np.log(10) / 10)).exp().sum())
            self._loudest = max(self._loudest, float(level.max()))
            if power is not None:
                self._pitches.append(power)
                self._pitch_power = max(self._pitch_power, float(power.max()))


def listen(
    sound: Sound,
    model: Model,
    folder: Path | None = None,
    *,
    pitched: bool = True,
    device: str = "cpu",
) -> Heard:
    """Analyse a whole recording; without its pitches where they are of no interest."""
    ears = Ears(sound.rate, sound.channels, model, folder, pitched=pitched, device=device)
    for block in sound.blocks():
        ears.push(block)
    return ears.heard()
