"""Distances between recordings or folders.

Between paired takes: in dB, 0 for equal sounds, independent of the overall level. Simultaneous takes are
compared frame by frame. For others, a `Warp` gives the reference time of each frame. Zimtohrli, a perceptual
distance, is independent of the training and of the certificate.

Between unpaired folders: the Fréchet distance of Gaussians fitted to the features of both (Dowson &
Landau 1982; for audio, Kilgour et al. 2019). Its bias is proportional to 1 / n. So it is also estimated
from subsets, and the line over 1 / n is extrapolated to infinite data (Chong & Forsyth 2020; for audio,
Gui et al. 2024). Subsets consist of stretches, since the frames of one stretch are not independent.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import find_audio_files, resample
from tonewood.dsp.chunking import split_segments
from tonewood.dsp.features import audible_frames, band_levels, frame_levels
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.enhancement.output_files import FileFailure, FileStarted
from tonewood.enhancement.pipeline import scorer_input, to_analysis_rate
from tonewood.errors import CallError, FolderError, TonewoodError, printable
from tonewood.model.model import Model
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray, Levels, Samples, to_mono

Warp = Callable[[FloatArray], FloatArray]
"""Seconds in the estimate → seconds in the reference, NaN where there is no counterpart."""

Stretch = NDArray[np.float64]
"""Features [point, feature] of up to ten seconds."""

MIN_STRETCHES = 6

MEASURE_RATE = 16_000  # Hz, of all distances between paired recordings

_BANDS = BandSettings(scale="mel", count=48, low_hz=40.0, high_hz=8_000.0)
_SPECTRUM = SpectrumSettings()
_FLOOR_DB = -100.0  # dBFS: differences between inaudible levels must not count

_QUIET_RMS = 1e-8  # no gain matches the level of silence

_FRACTIONS = (1 / 2, 3 / 5, 3 / 4, 1.0)  # 1 / fraction from 1 to 2, about evenly spaced
_DRAWS = 24
_STRETCH_SECONDS = 10.0
_MIN_STRETCH_SECONDS = 1.0  # of sound; stretches with less are left out
_RELATIVE_FLOOR_DB = -70.0  # of mel levels: noise floors must not dominate the distance


# --- Paired recordings


class PairDistances(NamedTuple):
    """All distances of one estimate to one reference, dB."""

    mel: float
    log_spectral: float
    multi_resolution: float
    long_term: float


def to_mono_16k(samples: Samples, rate: int) -> Samples:
    """Mix samples (channels, samples) to one channel [sample] and resample to 16 kHz."""
    return resample(to_mono(samples), rate, MEASURE_RATE)


def measure_distances(estimate: Samples, reference: Samples, warp: Warp | None = None) -> PairDistances:
    """Measure all distances between waveforms [sample] at 16 kHz.

    Without a warp the waveforms are simultaneous; CallError if their lengths differ.
    """
    is_mono = estimate.ndim == reference.ndim == 1
    if not is_mono or (warp is None and estimate.shape != reference.shape):
        raise CallError(
            f"a distance needs two waveforms of one length, not {tuple(estimate.shape)} and "
            f"{tuple(reference.shape)}: align them first"
        )
    return PairDistances(
        mel_distance(estimate, reference, warp),
        log_spectral_distance(estimate, reference, warp),
        multi_resolution_distance(estimate, reference, warp),
        long_term_error(estimate, reference, warp),
    )


def gap_closed(before: float, after: float) -> float:
    """Return the share of a distance that was closed: 1 all, 0 none, negative if it grew."""
    return 1 - after / before


def mel_distance(estimate: Samples, reference: Samples, warp: Warp | None = None) -> float:
    """Return the mel log-spectral distance: 48 bands from 40 Hz to 8 kHz."""
    return _warped_distance(_mel_levels_db(estimate), _mel_levels_db(reference), _SPECTRUM, warp)


def rows_distance(estimate_db: Levels, reference_db: Levels) -> float:
    """Return the distance between row levels [row, frame] in dB.

    Over the frames where the reference is audible: remove the mean difference, once for the whole
    recording, then average the root mean square over rows of each frame.
    """
    difference = (estimate_db - reference_db)[:, audible_frames(reference_db)]
    # One gain for the whole recording: removing it frame by frame would hide wrong dynamics.
    difference = difference - difference.mean()
    return float(np.sqrt(np.square(difference).mean(axis=0)).mean())


def log_spectral_distance(estimate: Samples, reference: Samples, warp: Warp | None = None) -> float:
    """Return the log-spectral distance over the bins of the paper's spectrogram."""
    return _warped_distance(_bin_levels_db(estimate), _bin_levels_db(reference), _SPECTRUM, warp)


def multi_resolution_distance(estimate: Samples, reference: Samples, warp: Warp | None = None) -> float:
    """Return the mean log-spectral distance over windows of 32, 64 and 128 ms.

    This is the logarithmic part of the multi-resolution STFT loss (Yamamoto et al. 2020) in dB.
    """
    distances = []
    for fft in (512, 1024, 2048):
        # Hops of a quarter window, as in the published loss.
        settings = SpectrumSettings(window_ms=1000 * fft / 16_000, hop_ms=250 * fft / 16_000, fft=fft)
        rows = _bin_levels_db(estimate, settings), _bin_levels_db(reference, settings)
        distances.append(_warped_distance(*rows, settings, warp))
    return sum(distances) / len(distances)


def long_term_error(estimate: Samples, reference: Samples, warp: Warp | None = None) -> float:
    """Return the rms difference of the long-term mel spectra, without the mean level."""
    rows = _matched_frames(_mel_levels_db(estimate), _mel_levels_db(reference), _SPECTRUM, warp)
    # Mean of power, not of dB: pauses must not weigh as much as notes.
    power = [np.power(np.float32(10), side / 10).mean(axis=1, dtype=np.float64) for side in rows]
    # The mean over rows is a gain, which a distance between sounds must not count.
    difference = 10 * np.log10(power[0] / power[1])
    return float(np.sqrt(np.square(difference - difference.mean()).mean()))


def _warped_distance(
    estimate_db: Levels, reference_db: Levels, settings: SpectrumSettings, warp: Warp | None
) -> float:
    return rows_distance(*_matched_frames(estimate_db, reference_db, settings, warp))


def _matched_frames(
    estimate_db: Levels, reference_db: Levels, settings: SpectrumSettings, warp: Warp | None
) -> tuple[Levels, Levels]:
    """Return the estimate's frames that have a counterpart, and the reference's, [row, frame]."""
    if warp is None:
        return estimate_db, reference_db
    hop = settings.hop / settings.rate
    position = warp(np.arange(estimate_db.shape[1]) * hop) / hop
    used = np.isfinite(position)
    if not used.any():
        raise CallError("no frame of the estimate has a counterpart: align another pair")
    columns = position[used].round().astype(np.int64).clip(0, reference_db.shape[1] - 1)
    return estimate_db[:, used], reference_db[:, columns]


def _mel_levels_db(wave: Samples) -> Levels:
    return band_levels(wave, _SPECTRUM.rate, _BANDS, _SPECTRUM).clip(_FLOOR_DB)


def _bin_levels_db(wave: Samples, settings: SpectrumSettings = _SPECTRUM) -> Levels:
    return log_magnitude(stft(wave, settings), settings).clip(_FLOOR_DB)


def zimtohrli_distance(estimate: Samples, reference: Samples) -> float | None:
    """Return the Zimtohrli distance of simultaneous waveforms [sample] at 16 kHz; 0 for equal sounds.

    The estimate is brought to the rms level of the reference, as in the other distances. None if the
    extra `perceptual` is not installed. Source: https://github.com/google/zimtohrli
    """
    try:
        from zimtohrli import Pyohrli
    except ImportError:
        return None
    metric = Pyohrli()
    gain = _rms(reference) / max(_rms(estimate), _QUIET_RMS)
    signals = (
        resample(wave[None], MEASURE_RATE, metric.sample_rate)[0].astype(np.float32)
        for wave in (np.float32(gain) * estimate, reference)
    )
    return float(metric.distance(*signals))


def _rms(wave: Samples) -> float:
    return float(np.sqrt(np.square(wave, dtype=np.float64).mean()))


# --- Fréchet distance


class Gaussian(NamedTuple):
    """Mean [feature] and covariance [feature, feature]."""

    mean: FloatArray
    covariance: FloatArray


class FrechetEstimate(NamedTuple):
    """Fréchet distance in the square of the features' unit.

    The distance is extrapolated to infinite data; it is unbiased, so it may be slightly negative
    near 0. Its standard error is that of half of the stretches (delete-d jackknife, Shao & Wu 1989).
    The plain distance is from all data, with its bias.
    """

    distance: float
    error: float
    plain: float


def fit_gaussian(points: FloatArray) -> Gaussian:
    """Fit a Gaussian to points [point, feature]."""
    # Not shrunk (Ledoit & Wolf 2004): that bends the line of the extrapolation. Of a bias of 2.5 it
    # leaves 1.6, where this leaves 0.2 of 4.9 (32 features, 120 points: benchmarks/frechet.py).
    return Gaussian(points.mean(axis=0), np.cov(points, rowvar=False))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), in the square of the features' unit."""
    # Σ_a Σ_b has the eigenvalues of the symmetric Σ_a^½ Σ_b Σ_a^½.
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ b.covariance @ root)
    mean_term = float(np.square(a.mean - b.mean).sum())
    spread = float(np.trace(a.covariance) + np.trace(b.covariance))
    return mean_term + spread - 2 * float(np.sqrt(mixed.clip(0)).sum())


def extrapolate_frechet_distance(
    a: Sequence[FloatArray], b: Sequence[FloatArray], rng: np.random.Generator
) -> FrechetEstimate:
    """Estimate the Fréchet distance between two folders, independent of their size.

    Each folder has at least `MIN_STRETCHES` stretches [point, feature].
    """
    assert min(len(a), len(b)) >= MIN_STRETCHES
    samples = [
        np.array([_subset_distance(a, b, fraction, rng) for _ in range(_DRAWS if fraction < 1 else 1)])
        for fraction in _FRACTIONS
    ]
    means = [float(distances.mean()) for distances in samples]
    # Sizes are rounded to whole stretches: the abscissa is the mean of the actual 1 / fraction.
    inverse_size = [0.5 * (len(a) / _subset_size(a, s) + len(b) / _subset_size(b, s)) for s in _FRACTIONS]
    extrapolated = float(np.polynomial.Polynomial.fit(inverse_size, means, 1)(0.0))
    return FrechetEstimate(extrapolated, float(samples[0].std(ddof=1)), means[-1])


def _subset_distance(
    a: Sequence[FloatArray], b: Sequence[FloatArray], fraction: float, rng: np.random.Generator
) -> float:
    subsets = (
        np.concatenate([side[i] for i in rng.permutation(len(side))[: _subset_size(side, fraction)]])
        for side in (a, b)
    )
    return frechet_distance(*map(fit_gaussian, subsets))


def _subset_size(side: Sequence[FloatArray], fraction: float) -> int:
    return round(fraction * len(side))


# --- Folders


class FolderFeatures(NamedTuple):
    """Features of a folder, by stretch: the scorer's activations, and mel levels."""

    scorer: list[Stretch]
    mel: list[Stretch]


@dataclass(frozen=True)
class FolderComparison:
    """Distance between a folder's sound and the reference's.

    `scorer` is that of the scorer's last feature maps, pooled over every second; `mel` that of the
    mel levels of every audible frame, relative to the level of the frame, in dB².
    """

    output: Path
    reference: Path
    scorer: FrechetEstimate
    mel: FrechetEstimate
    stretches: tuple[int, int]

    @property
    def summary(self) -> dict[str, Any]:
        """Comparison as JSON."""
        return {
            "output": str(self.output),
            "reference": str(self.reference),
            "stretches": list(self.stretches),
            "scorer": self.scorer._asdict(),
            "mel": self.mel._asdict(),
        }


def compare_folder_sound(
    output: Path, reference: Path, model: Model, *, seed: int = 0
) -> Iterator[FileStarted | FileFailure | FolderComparison]:
    """Compare two folders; yield progress, a `FileFailure` for each unusable recording, and the result.

    FolderError if a folder does not exist or has too little sound.
    """
    sides = []
    # List both folders first: an error in the second must not come after minutes of work.
    for folder, paths in [(folder, find_audio_files(folder)) for folder in (output, reference)]:
        sides.append((yield from _extract_folder_features(folder, paths, model)))
    ours, theirs = sides
    rng = np.random.default_rng(seed)
    yield FolderComparison(
        output=output,
        reference=reference,
        scorer=extrapolate_frechet_distance(ours.scorer, theirs.scorer, rng),
        mel=extrapolate_frechet_distance(ours.mel, theirs.mel, rng),
        stretches=(len(ours.mel), len(theirs.mel)),
    )


def _extract_folder_features(
    folder: Path, paths: Sequence[Path], model: Model
) -> Generator[FileStarted | FileFailure, None, FolderFeatures]:
    features = FolderFeatures([], [])
    for number, path in enumerate(paths, start=1):
        yield FileStarted(number, len(paths), path)
        try:
            recording = read_recording(path)
        except TonewoodError as error:
            yield FileFailure(path, error)
            continue
        rows = scorer_input(to_analysis_rate(recording.samples, recording.rate, model), model)
        for stretch, audible in _iter_stretches(rows, model):
            features.scorer.append(_pool_activations(stretch, model))
            # Without the frame's level, a distance of colour and not of dynamics.
            relative = stretch - frame_levels(stretch)
            features.mel.append(relative[:, audible].clip(_RELATIVE_FLOOR_DB).T.astype(np.float64))
    if len(features.mel) < MIN_STRETCHES:
        raise FolderError(
            f"{printable(folder)} has {len(features.mel)} stretches of up to {_STRETCH_SECONDS:g} s; a "
            f"Fréchet distance needs {MIN_STRETCHES}: add recordings"
        )
    return features


def _iter_stretches(rows: Levels, model: Model) -> Iterator[tuple[Levels, NDArray[np.bool_]]]:
    """Yield stretches [row, frame] of a recording with enough sound, and their audible frames."""
    spectrum = model.settings.spectrum
    min_frames = spectrum.to_frames(_MIN_STRETCH_SECONDS)
    length = spectrum.to_frames(_STRETCH_SECONDS)
    audible = audible_frames(rows)
    for segment in split_segments(rows.shape[1], length):
        frames = slice(segment.start, segment.stop)
        if audible[frames].sum() >= min_frames:
            yield rows[:, frames], audible[frames]


def _pool_activations(rows: Levels, model: Model) -> Stretch:
    """Return the scorer's feature maps [second, channel], averaged over rows and each second."""
    maps = model.scorer.activations(rows[None])[0].mean(axis=1)
    seconds = max(1, int(rows.shape[1] / model.settings.spectrum.frames_per_second))
    return _mean_of_parts(maps, seconds).T.astype(np.float64)


def _mean_of_parts(maps: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the means [channel, part] of equal parts of maps [channel, frame]."""
    frames = maps.shape[1]
    # Parts of a length that is not whole share a frame with their neighbours.
    starts = np.arange(count) * frames // count
    stops = -(-np.arange(1, count + 1) * frames // count)
    parts = [maps[:, start:stop].mean(axis=1) for start, stop in zip(starts, stops, strict=True)]
    return np.stack(parts, axis=1)
