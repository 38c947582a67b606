"""Two folders that need not correspond → how far one's sound is from the other's."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import FolderError, TonewoodError, printable
from tonewood.evaluation.frechet import MIN_STRETCHES, FrechetEstimate, extrapolate_frechet_distance
from tonewood.files.audio import find_audio_files, read_recording
from tonewood.files.modelfile import Model
from tonewood.signal.bands import frame_levels
from tonewood.workflow.batch import FileStarted
from tonewood.workflow.enhance import to_analysis_rate, scorer_input
from tonewood.workflow.layout import FileFailure

_STRETCH_SECONDS = 10.0
_MIN_STRETCH_SECONDS = 1.0  # a shorter rest of a recording is left out
_STRETCH_AUDIBLE_DB = 45.0
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
    heard = level > level.max() - _STRETCH_AUDIBLE_DB
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
