"""Fréchet distance between two folders' features, which need no pairs: plain functions on arrays.

Fréchet distance of the Gaussians that fit both clouds of points (Dowson & Landau 1982; for audio,
Kilgour et al. 2019). Estimated from few recordings it comes out too large, by about 1 / their
number: so it is estimated from parts of what there is too, and the line through those against
1 / share is followed to where the data would be endless (Chong & Forsyth 2020; for audio, Gui et
al. 2024). Parts are drawn by stretches, since the frames of one stretch are no independent draws.

Two folders that need not correspond → how far one's sound is from the other's.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.audio_io.reader import find_audio_files, read_recording
from tonewood.dsp.filterbank import frame_levels, is_audible
from tonewood.enhancement.output_files import FileFailure, FileStarted
from tonewood.enhancement.pipeline import scorer_input, to_analysis_rate
from tonewood.errors import FolderError, TonewoodError, printable
from tonewood.model.model import Model
from tonewood.utils.arrays import FloatArray

MIN_STRETCHES = 6
_FRACTIONS = (1 / 2, 3 / 5, 3 / 4, 1.0)
_DRAWS = 24


class Gaussian(NamedTuple):
    """Mean [feature] and covariance [feature, feature] of a cloud of points."""

    mean: FloatArray
    covariance: FloatArray


class FrechetEstimate(NamedTuple):
    """A Fréchet distance, in the square of the features' unit.

    Parameters
    ----------
    distance : float
        Extrapolated to endless data. As an unbiased estimate of what may be 0 it may come out
        a little below 0.
    error : float
        Its standard error: the spread of the distances from half of the stretches
        (delete-d jackknife, Shao & Wu 1989, d one half).
    plain : float
        From all there is, its bias left in.
    """

    distance: float
    error: float
    plain: float


def fit_gaussian(points: FloatArray) -> Gaussian:
    """Fit points [point, feature].

    The covariance is the plain one: one shrunk towards a sphere (Ledoit & Wolf 2004) bends the
    line that `extrapolate_frechet_distance` follows, and of a bias of 2.5 leaves 1.6 where this leaves 0.2 of 4.9
    (equal Gaussians of 32 features, 120 points each: `benchmarks/frechet.py`).
    """
    return Gaussian(points.mean(axis=0), np.cov(points, rowvar=False))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), in the square of the features' unit."""
    # Σ_a Σ_b has the eigenvalues of the symmetric Σ_a^½ Σ_b Σ_a^½.
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ b.covariance @ root)
    apart = float(np.square(a.mean - b.mean).sum())
    spread = float(np.trace(a.covariance) + np.trace(b.covariance))
    return apart + spread - 2 * float(np.sqrt(mixed.clip(0)).sum())


def extrapolate_frechet_distance(
    a: Sequence[FloatArray], b: Sequence[FloatArray], rng: np.random.Generator
) -> FrechetEstimate:
    """Fréchet distance between two folders, its dependence on their size taken off.

    Parameters
    ----------
    a, b : sequences of arrays [point, feature]
        Stretches of the folders' recordings, `MIN_STRETCHES` of each at least.
    rng : Generator
        Draws the parts.
    """
    assert min(len(a), len(b)) >= MIN_STRETCHES
    drawn = [
        np.array([_subset_distance(a, b, share, rng) for _ in range(_DRAWS if share < 1 else 1)])
        for share in _FRACTIONS
    ]
    means = [float(distances.mean()) for distances in drawn]
    # Sizes are rounded to whole stretches: what counts is the share that was really drawn.
    scarcity = [0.5 * (len(a) / _subset_size(a, s) + len(b) / _subset_size(b, s)) for s in _FRACTIONS]
    endless = float(np.polynomial.Polynomial.fit(scarcity, means, 1)(0.0))
    return FrechetEstimate(endless, float(drawn[0].std(ddof=1)), means[-1])


def _subset_distance(
    a: Sequence[FloatArray], b: Sequence[FloatArray], fraction: float, rng: np.random.Generator
) -> float:
    parts = (
        np.concatenate([side[i] for i in rng.permutation(len(side))[: _subset_size(side, fraction)]])
        for side in (a, b)
    )
    return frechet_distance(*map(fit_gaussian, parts))


def _subset_size(side: Sequence[FloatArray], fraction: float) -> int:
    return round(fraction * len(side))


_STRETCH_SECONDS = 10.0
_MIN_STRETCH_SECONDS = 1.0  # a shorter rest of a recording is left out
_RELATIVE_FLOOR_DB = -70.0

Stretch = NDArray[np.float64]
"""Points [point, feature] of up to ten seconds."""


class FolderFeatures(NamedTuple):
    """Stretches of a folder's recordings, as the scorer hears them and by their mel levels."""

    scorer: list[Stretch]
    mel: list[Stretch]


@dataclass(frozen=True)
class FolderComparison:
    """How far a folder's sound is from the reference's.

    Parameters
    ----------
    output, reference : Path
    scorer : Estimate
        Fréchet distance of the scorer's last feature maps, pooled over every second.
    mel : Estimate
        The same of the mel levels of every audible frame, relative to the frame's own, dB².
    stretches : tuple of int
        Stretches of up to ten seconds in either folder.
    """

    output: Path
    reference: Path
    scorer: FrechetEstimate
    mel: FrechetEstimate
    stretches: tuple[int, int]

    @property
    def summary(self) -> dict[str, Any]:
        """All of it, as JSON."""
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
    """Fréchet distances between two folders; yields its progress and, last, the `FolderComparison`.

    A recording that cannot be used is a `FileFailure`, and the others go on.

    Raises
    ------
    FolderError
        A folder is missing, or holds too little.
    """
    clouds = []
    for folder, paths in [(folder, find_audio_files(folder)) for folder in (output, reference)]:
        clouds.append((yield from _extract_folder_features(folder, paths, model)))
    ours, theirs = clouds
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
    clouds = FolderFeatures([], [])
    for number, path in enumerate(paths, start=1):
        yield FileStarted(number, len(paths), path)
        try:
            recording = read_recording(path)
        except TonewoodError as error:
            yield FileFailure(path, error)
            continue
        rows = scorer_input(to_analysis_rate(recording.samples, recording.rate, model), model)
        for part, heard in _iter_stretches(rows, model):
            clouds.scorer.append(_pool_activations(part, model))
            relative = part - frame_levels(part)
            clouds.mel.append(relative[:, heard].clamp_min(_RELATIVE_FLOOR_DB).T.double().numpy())
    if len(clouds.mel) < MIN_STRETCHES:
        raise FolderError(
            f"{printable(folder)} holds {len(clouds.mel)} stretches of up to {_STRETCH_SECONDS:g} s; a "
            f"Fréchet distance needs {MIN_STRETCHES}: add recordings"
        )
    return clouds


def _iter_stretches(rows: Tensor, model: Model) -> Iterator[tuple[Tensor, Tensor]]:
    """Stretches [row, frame] of a recording that hold sound, and which frames [frame] do."""
    spectrum = model.settings.spectrum
    level = frame_levels(rows)
    heard = is_audible(level)
    least = spectrum.to_frames(_MIN_STRETCH_SECONDS)
    length = spectrum.to_frames(_STRETCH_SECONDS)
    for part, audible in zip(torch.split(rows, length, 1), torch.split(heard, length), strict=True):
        if int(audible.sum()) >= least:
            yield part, audible


def _pool_activations(rows: Tensor, model: Model) -> Stretch:
    """The scorer's feature maps [second, channel], averaged over rows and each second."""
    with torch.no_grad():
        maps = model.scorer.activations(rows[None])[0].mean(dim=1)
    seconds = max(1, int(rows.shape[1] / model.settings.spectrum.frames_per_second))
    pooled = torch.nn.functional.adaptive_avg_pool1d(maps, seconds)
    return pooled.T.double().numpy()
