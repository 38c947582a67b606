"""Training crops with graded targets: how far a sound is from the reference, not only its folder.

A scorer that is trained on labels alone is flat between and beyond the folders, and takes noise for a
reference. These crops lie on the way from source to reference, beside it and beyond it. The target of
each is the distance that it still has to go, as a share of the whole way.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tonewood.dsp.features import audible_frames, band_levels, center_frequencies, mean_level
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import Levels, interpolate_noise

WayPair = tuple[Levels, Levels]
"""Start and end of a way to the reference: levels [row, frame] in dB of one take, and of its correction."""

# Targets stay off 0 and 1, where the slope of the sigmoid vanishes: it is at least 1/13 of its maximum.
_LOWEST_TARGET, _HIGHEST_TARGET = 0.02, 0.98
_BEND = 0.8  # share of the way up to which the target is the distance itself
_FOREIGN_DISTANCE = 2.0  # of sounds of another kind, in whole ways
_AUDIBLE_DB = 50.0
_NEPERS_PER_DB = math.log(10) / 10  # of power
MIN_CROPS = 4  # one of each folder, of a way and of a foreign sound
_BANK_SIZE = 60  # synthetic sounds that are drawn once; crops choose from them
_NOTE_SECONDS = (0.1, 0.6)
_TONE_HZ = (60.0, 900.0)


def graded_target(distance: Tensor) -> Tensor:
    """Return the target score of distances in whole ways: 0 is the reference, 1 a typical source.

    Up to 0.8 it is the distance. Farther sounds approach the highest target, so that their order is kept.
    """
    beyond = (distance - _BEND).clamp_min(0)
    # exp(-beyond / (1 - bend)) joins the straight part with the same slope.
    bounded = distance.clamp_max(_BEND) + (1 - _BEND) * (1 - (-beyond / (1 - _BEND)).exp())
    return _LOWEST_TARGET + (_HIGHEST_TARGET - _LOWEST_TARGET) * bounded


class GradedCrops(NamedTuple):
    """Crops [crop, row, frame] in dB, and their target scores [crop]."""

    rows_db: Tensor
    target: Tensor


@dataclass(frozen=True, eq=False)
class GradedCropSource:
    """Draws graded crops of two folders."""

    # Draw crops [count, row, frame] of a folder's takes
    draw_reference: Callable[[int], Tensor]
    draw_source: Callable[[int], Tensor]
    # Ways from source-like to reference-like sound, at least one; all are equally likely
    pairs: Sequence[WayPair]
    bands: BandSettings
    spectrum: SpectrumSettings
    frames: int  # length of a crop
    # Of everything but the synthetic sounds, which `seed` determines: a resumed training has the same
    generator: torch.Generator
    seed: int

    def draw(self, count: int) -> GradedCrops:
        """Draw `count` crops: takes of both folders, ways between them, changed and foreign sounds.

        The count is at least `MIN_CROPS`.
        """
        assert count >= MIN_CROPS
        n_folder, n_foreign = max(count // 5, 1), max(count // 8, 1)
        way = [self._draw_way(changed=False) for _ in range(n_folder)]
        way += [self._draw_way(changed=True) for _ in range(count - 3 * n_folder - n_foreign)]
        foreign = torch.stack([self._draw_foreign() for _ in range(n_foreign)])
        rows_db = torch.cat(
            [
                self.draw_source(n_folder),
                self.draw_reference(n_folder),
                torch.stack([crop for crop, _ in way]),
                foreign,
            ]
        )
        distance = torch.cat(
            [
                torch.ones(n_folder),
                torch.zeros(n_folder),
                torch.tensor([distance for _, distance in way]),
                torch.full((n_foreign,), _FOREIGN_DISTANCE),
            ]
        )
        return GradedCrops(self._add_constants(rows_db), graded_target(distance))

    def _add_constants(self, rows_db: Tensor) -> Tensor:
        """Add a constant to half of the crops [crop, row, frame]: the window leaks it into the lowest rows.

        It says nothing about the sound, so the targets stay.
        """
        count = len(rows_db)
        above_db = -40 + 60 * torch.rand(count, 1, 1, generator=self.generator)  # the mean level
        absent = torch.rand(count, 1, 1, generator=self.generator) < 0.5
        level = mean_level(rows_db)[:, None, None] + above_db.masked_fill(absent, -math.inf)
        return _add_power(rows_db, level + self._constant_rows[:, None])

    @cached_property
    def _constant_rows(self) -> Tensor:
        """Return the levels [row] of a constant relative to its highest row, dB."""
        wave = torch.ones(4 * self.spectrum.window)
        rows = band_levels(wave, self.spectrum.rate, self.bands, self.spectrum)
        middle = rows[:, rows.shape[1] // 2]
        return middle - middle.max()

    @cached_property
    def _octaves(self) -> Tensor:
        """Return the rows' distance [row, 1] from 1 kHz in octaves; below 50 Hz as at 50 Hz."""
        hz = torch.from_numpy(center_frequencies(self.bands, self.spectrum)).float()
        return (hz.clamp_min(50) / 1_000).log2()[:, None]

    @cached_property
    def _mean_difference_db(self) -> Tensor:
        """Return the mean correction [row, 1] of all pairs: a fixed EQ."""
        ways = (_as_tensors(pair) for pair in self.pairs)
        means = [(end - start)[:, _audible(end)].mean(dim=1) for start, end in ways]
        return torch.stack(means).mean(dim=0)[:, None]

    @cached_property
    def _typical_distance_db(self) -> float:
        """Return the mean length of a way, dB."""
        ways = (_as_tensors(pair) for pair in self.pairs)
        lengths = [_rms_over_rows(end - start, _audible(end)) for start, end in ways]
        # The floor keeps distances finite if start and end are the same throughout.
        return max(math.fsum(lengths) / len(lengths), 1e-3)

    @cached_property
    def _synthetic_sounds(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.stack(
            [synthetic_rows(self.frames, self.bands, self.spectrum, generator) for _ in range(_BANK_SIZE)]
        )

    def _draw_way(self, *, changed: bool) -> tuple[Tensor, float]:
        """Return a crop somewhere on a way, and its distance in whole ways; `changed` leaves the way."""
        start, end = self._crop(*self.pairs[self._integer(len(self.pairs))])
        audible = _audible(end)
        share = self._share_of_changed_crop() if changed else self._uniform(0, 1)
        rows_db, remaining = start + share * (end - start), (1 - share) * (end - start)
        if changed:
            change = self._draw_change(rows_db)
            rows_db, remaining = rows_db + change, remaining - change
        # A short way would make any distance large, so a way counts at least half as long as usual.
        whole = max(_rms_over_rows(end - start, audible), 0.5 * self._typical_distance_db)
        return rows_db, _rms_over_rows(remaining, audible) / whole

    def _share_of_changed_crop(self) -> float:
        """Return a share of the way: an end in half of the draws, else mostly between, rarely beyond."""
        kind = self._uniform(0, 1)
        if kind < 0.25:
            return 0.0
        if kind < 0.5:
            return 1.0
        return self._uniform(0, 1) if kind < 0.9 else self._uniform(-0.6, 1.8)

    def _draw_change(self, rows_db: Tensor) -> Tensor:
        """Return a change in dB: a tilt, smooth bumps, a multiple of the fixed EQ, or added noise."""
        rows, frames = rows_db.shape
        kind = self._integer(4)
        if kind == 0:
            return (self._uniform(-6, 6) * self._octaves).expand(-1, frames)  # dB an octave
        if kind == 1:
            size = 3 + self._integer(6), 2 + 4 * self._integer(3)
            return self._uniform(0, 12) * interpolate_noise(1, size, (rows, frames), self.generator)[0]
        if kind == 2:
            return (self._uniform(-2, 2) * self._mean_difference_db).expand(-1, frames)
        # Noise 10 to 40 dB below the sound, falling or rising by up to 3 dB an octave.
        level = mean_level(rows_db) - self._uniform(10, 40) - 10 * math.log10(rows)
        slope = self._uniform(-3, 3) * self._octaves
        noise = level + slope + 2 * torch.randn(rows, frames, generator=self.generator)
        return _add_power(rows_db, noise) - rows_db

    def _draw_foreign(self) -> Tensor:
        """Return a crop of neither folder: synthetic, moved along frequency, or with strong bumps."""
        kind = self._integer(3)
        if kind == 0:
            return self._synthetic_sounds[self._integer(_BANK_SIZE)]
        draw = self.draw_reference if self._uniform(0, 1) < 0.5 else self.draw_source
        crop = draw(1)[0]
        rows, frames = crop.shape
        if kind == 1:
            shift = 4 + self._integer(6)  # rows
            return torch.roll(crop, shift if self._uniform(0, 1) < 0.5 else -shift, dims=0)
        size = 4 + self._integer(6), 2
        return crop + self._uniform(10, 20) * interpolate_noise(1, size, (rows, frames), self.generator)[0]

    def _crop(self, start: Levels, end: Levels) -> tuple[Tensor, Tensor]:
        repeats = -(-self.frames // start.shape[1])
        if repeats > 1:
            start, end = np.tile(start, repeats), np.tile(end, repeats)
        first = self._integer(start.shape[1] - self.frames + 1)
        window = slice(first, first + self.frames)
        return _as_tensors((start[:, window], end[:, window]))

    def _integer(self, limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=self.generator))

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=self.generator))


def synthetic_rows(
    frames: int, bands: BandSettings, spectrum: SpectrumSettings, generator: torch.Generator
) -> Tensor:
    """Return levels [row, frame] in dB of random noise, tones, notes, a chirp or clicks."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    count, rate = frames * spectrum.hop, spectrum.rate
    time = torch.arange(count) / rate

    def tone(hz: float, fall: float, t: Tensor) -> Tensor:
        harmonics = torch.arange(1.0, max(2, min(40, int(rate / 2 / hz))))[:, None]
        total: Tensor = (torch.sin(2 * math.pi * hz * harmonics * t) * harmonics**-fall).sum(dim=0)
        return total

    kind = int(torch.randint(6, (1,), generator=generator))
    if kind == 0:  # noise whose power falls by up to 6 dB an octave
        bins = torch.fft.rfft(torch.randn(count, generator=generator))
        wave = torch.fft.irfft(bins * torch.arange(1.0, len(bins) + 1) ** -uniform(0, 1), count)
    elif kind == 1:
        wave = tone(uniform(*_TONE_HZ), uniform(0, 2), time)
    elif kind == 2:  # notes of a plain synthesiser
        notes, fall, missing = [], uniform(0, 2), count
        while missing > 0:
            note = time[: min(missing, int(uniform(*_NOTE_SECONDS) * rate))]
            notes.append(tone(uniform(*_TONE_HZ), fall, note) * (-note * uniform(0, 6)).exp())
            missing -= len(note)
        wave = torch.cat(notes)
    elif kind == 3:  # a linear chirp
        first, last = uniform(50, 1_000), uniform(1_000, 0.99 * rate / 2)
        wave = torch.sin(2 * math.pi * (first * time + (last - first) * time.square() / 2 / time[-1]))
    elif kind == 4:  # clicks, up to 30 a second
        wave = torch.zeros(count)
        wave[torch.randint(count, (max(2, int(uniform(1, 30) * count / rate)),), generator=generator)] = 1.0
    else:  # a cluster of steady sine tones
        wave = torch.stack(
            [torch.sin(2 * math.pi * uniform(60, 4_000) * time) for _ in range(1 + int(uniform(0, 6)))]
        ).sum(dim=0)
    # At -26 dBFS, over noise at -100 dBFS as recordings have it.
    wave = 0.05 * wave / wave.square().mean().sqrt() + 1e-5 * torch.randn(count, generator=generator)
    rows_db: Tensor = band_levels(wave, rate, bands, spectrum)
    return rows_db[:, :frames]


def _add_power(first_db: Tensor, second_db: Tensor) -> Tensor:
    """Return the level of the sum of two powers, dB."""
    # In units of 10 dB / ln 10, the level of a sum of powers is a logaddexp.
    total: Tensor = torch.logaddexp(first_db * _NEPERS_PER_DB, second_db * _NEPERS_PER_DB)
    return total / _NEPERS_PER_DB


def _as_tensors(pair: WayPair) -> tuple[Tensor, Tensor]:
    start, end = map(torch.tensor, pair)
    return start, end


def _audible(rows_db: Tensor) -> Tensor:
    return audible_frames(rows_db, _AUDIBLE_DB)


def _rms_over_rows(change_db: Tensor, audible: Tensor) -> float:
    """Return the mean over audible frames of the RMS over rows, dB, the overall level removed."""
    change = change_db[:, audible]
    return float((change - change.mean()).square().mean(dim=0).sqrt().mean())
