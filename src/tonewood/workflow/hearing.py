"""A recording as it comes → what the method knows of it along its time, kept on disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.files.audio import mono_of, resample
from tonewood.files.modelfile import Model
from tonewood.files.spool import Spool
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.signal.bands import centres_hz, frame_levels
from tonewood.signal.blocks import Piece, Samples, cut, overlapping
from tonewood.signal.features import PITCHES, REACH_FRAMES, Levels, analysed
from tonewood.signal.loudness import Energies, energies, integrated
from tonewood.signal.pieces import piece_margin, piece_size
from tonewood.signal.spread import spread

_BLOCK_FRAMES = 1024  # analysed at once; even, so that long frames fall on it too
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


class Overheard(NamedTuple):
    """What is heard of a piece of a recording.

    Parameters
    ----------
    wave : Tensor [sample]
        Mean of the channels, at the analysis rate.
    rows_db : Tensor [row, frame]
    pitches : Tensor [pitch, long frame]
        Without frames where they are of no interest.
    energies : Energies
    peak : float
        Largest sample.
    samples : int
        In each channel, at the recording's own rate.
    """

    wave: Tensor
    rows_db: Tensor
    pitches: Tensor
    energies: Energies
    peak: float
    samples: int


@dataclass(frozen=True)
class Ear:
    """Analyses a piece of a recording; the piece alone decides what is heard.

    Parameters
    ----------
    rate, channels : int
        Of the recording.
    spectrum : SpectrumSettings
    bands : BandSettings
    pitched : bool
        Whether pitches are of interest.
    device : str
        Where to analyse.
    """

    rate: int
    channels: int
    spectrum: SpectrumSettings
    bands: BandSettings
    pitched: bool = True
    device: str = "cpu"

    @property
    def size(self) -> int:
        """Samples of a piece."""
        return piece_size(self.rate, self.channels, self.spectrum)

    @property
    def margin(self) -> int:
        """Samples beyond a piece that it takes to hear it."""
        return piece_margin(self.rate, self.spectrum)

    def __call__(self, piece: Piece[Samples]) -> Overheard:
        """Hear a piece (channels, samples)."""
        rate = self.spectrum.rate
        wave = resample(mono_of(piece.samples), self.rate, rate)
        first, lead, size = (it * rate // self.rate for it in (piece.first, piece.lead, piece.size))
        if piece.last:
            size = len(wave) - lead
        mono = Piece(wave, first, lead, size, piece.last)
        hop = self.spectrum.hop
        parts = cut(mono, _BLOCK_FRAMES * hop, REACH_FRAMES * hop)
        heard = [
            analysed(part, self.bands, self.spectrum, pitched=self.pitched, device=self.device)
            for part in parts
        ]
        return Overheard(
            wave=torch.from_numpy(np.ascontiguousarray(mono.own)),
            rows_db=torch.cat([rows for rows, _ in heard], dim=1).cpu(),
            pitches=torch.cat([it for _, it in heard], dim=1).cpu(),
            energies=energies(piece, self.rate),
            peak=max(float(piece.own.max()), -float(piece.own.min())),
            samples=piece.size,
        )


class Memory:
    """Keeps what is heard of a recording, piece after piece, on disk.

    Parameters
    ----------
    ear : Ear
        That hears.
    folder : Path, optional
        On whose disk.
    """

    def __init__(self, ear: Ear, folder: Path | None = None) -> None:
        self._rate = ear.rate
        rows = len(centres_hz(ear.bands, ear.spectrum))
        self._wave, self._rows = Spool(None, folder), Spool(rows, folder)
        self._pitches = Spool(PITCHES, folder)
        self._energies: list[Energies] = []
        self._peak = self._power = self._pitch_power = 0.0
        self._loudest, self._samples = -np.inf, 0

    def keep(self, heard: Overheard) -> None:
        """Keep what was heard of the next piece."""
        self._wave.append(heard.wave)
        self._rows.append(heard.rows_db)
        level = frame_levels(heard.rows_db)
        self._power += float((level.double() * (np.log(10) / 10)).exp().sum())
        self._loudest = max(self._loudest, float(level.max()))
        if heard.pitches.shape[1]:
            self._pitches.append(heard.pitches)
            self._pitch_power = max(self._pitch_power, float(heard.pitches.max()))
        self._energies.append(heard.energies)
        self._peak = max(self._peak, heard.peak)
        self._samples += heard.samples

    def heard(self) -> Heard:
        """All that was heard."""
        mean = 10 * np.log10(self._power / self._rows.frames)
        return Heard(
            self._wave,
            self._rows,
            self._pitches,
            Levels(float(mean), self._loudest, self._pitch_power),
            integrated(self._energies, self._rate),
            self._peak,
            self._samples,
        )


def ear_of(sound: Sound, model: Model, *, pitched: bool = True, device: str = "cpu") -> Ear:
    """An ear for a recording, as a model hears."""
    bands = model.settings.scorer.bands
    return Ear(sound.rate, sound.channels, model.settings.spectrum, bands, pitched, device)


def listen(
    sound: Sound,
    model: Model,
    folder: Path | None = None,
    *,
    pitched: bool = True,
    device: str = "cpu",
) -> Heard:
    """Analyse a whole recording; without its pitches where they are of no interest."""
    ear = ear_of(sound, model, pitched=pitched, device=device)
    memory = Memory(ear, folder)
    pieces = overlapping(sound.blocks(), ear.size, ear.margin)
    for heard in spread(ear, pieces, portable=device == "cpu"):
        memory.keep(heard)
    return memory.heard()
