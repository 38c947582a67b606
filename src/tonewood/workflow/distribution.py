"""Two folders that need not correspond → how far one's sound is from the other's."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.errors import FolderError, TonewoodError, shown
from tonewood.evaluation.frechet import MIN_STRETCHES, Estimate, extrapolated
from tonewood.files.audio import audio_files, read
from tonewood.files.modelfile import Model
from tonewood.signal.bands import frame_levels
from tonewood.workflow.batch import Started
from tonewood.workflow.enhance import mono_at, rows_of
from tonewood.workflow.layout import Failed

_STRETCH_SECONDS = 10.0
_LEAST_SECONDS = 1.0  # a shorter rest of a recording is left out
_AUDIBLE_DB = 45.0
_DEEPEST_DB = -70.0

Stretch = NDArray[np.float64]
"""Points [point, feature] of up to ten seconds."""


class Clouds(NamedTuple):
    """Stretches of a folder's recordings, as the scorer hears them and by their mel levels."""

    scorer: list[Stretch]
    mel: list[Stretch]


@dataclass(frozen=True)
class Comparison:
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
    scorer: Estimate
    mel: Estimate
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


def compare(
    output: Path, reference: Path, model: Model, *, seed: int = 0
) -> Iterator[Started | Failed | Comparison]:
    """Fréchet distances between two folders; yields its progress and, last, the `Comparison`.

    A recording that cannot be used is a `Failed`, and the others go on.

    Raises
    ------
    FolderError
        A folder is missing, or holds too little.
    """
    clouds = []
    for folder, paths in [(folder, audio_files(folder)) for folder in (output, reference)]:
        clouds.append((yield from _clouds(folder, paths, model)))
    ours, theirs = clouds
    rng = np.random.default_rng(seed)
    yield Comparison(
        output=output,
        reference=reference,
        scorer=extrapolated(ours.scorer, theirs.scorer, rng),
        mel=extrapolated(ours.mel, theirs.mel, rng),
        stretches=(len(ours.mel), len(theirs.mel)),
    )


def _clouds(
    folder: Path, paths: Sequence[Path], model: Model
) -> Generator[Started | Failed, None, Clouds]:
    clouds = Clouds([], [])
    for number, path in enumerate(paths, start=1):
        yield Started(number, len(paths), path)
        try:
            recording = read(path)
        except TonewoodError as error:
            yield Failed(path, error)
            continue
        rows = rows_of(mono_at(recording.samples, recording.rate, model), model)
        for part, heard in _stretches(rows, model):
            clouds.scorer.append(_pooled(part, model))
            relative = part - frame_levels(part)
            clouds.mel.append(relative[:, heard].clamp_min(_DEEPEST_DB).T.double().numpy())
    if len(clouds.mel) < MIN_STRETCHES:
        raise FolderError(
            f"{shown(folder)} holds {len(clouds.mel)} stretches of up to {_STRETCH_SECONDS:g} s; a "
            f"Fréchet distance needs {MIN_STRETCHES}: add recordings"
        )
    return clouds


def _stretches(rows: Tensor, model: Model) -> Iterator[tuple[Tensor, Tensor]]:
    """Stretches [row, frame] of a recording that hold sound, and which frames [frame] do."""
    spectrum = model.settings.spectrum
    level = frame_levels(rows)
    heard = level > level.max() - _AUDIBLE_DB
    least = spectrum.frames(_LEAST_SECONDS)
    length = spectrum.frames(_STRETCH_SECONDS)
    for part, audible in zip(torch.split(rows, length, 1), torch.split(heard, length), strict=True):
        if int(audible.sum()) >= least:
            yield part, audible


def _pooled(part: Tensor, model: Model) -> Stretch:
    """The scorer's feature maps [second, channel], averaged over rows and each second."""
    with torch.no_grad():
        maps = model.scorer.activations(part[None])[0].mean(dim=1)
    seconds = max(1, int(part.shape[1] / model.settings.spectrum.frames_per_second))
    pooled = torch.nn.functional.adaptive_avg_pool1d(maps, seconds)
    return pooled.T.double().numpy()
