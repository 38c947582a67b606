"""Rows of the benchmark, and what rows of one corpus and seed share: models, recordings, judge."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import tonewood
from quality import corpus
from quality.corpus import Corpus, Piece
from tonewood.audio_io.recording import find_audio_files
from tonewood.dsp.features import center_frequencies
from tonewood.mask.mask import Mask
from tonewood.mask.render import render_through_mask
from tonewood.model.model import Model
from tonewood.setting_types import apply_assignments
from tonewood.settings import ModelSettings, RenderSettings
from tonewood.utils.arrays import Levels

_QUICK_SHARE = 4  # a quick training takes one step in so many


class Output(NamedTuple):
    """Output of a method for a piece."""

    samples: NDArray[np.float32]  # (channels, samples)
    rate: int
    mask: Mask | None = None  # None where the method makes none
    seconds: float | None = None  # where the method measured them itself


class Fitted(NamedTuple):
    """A trained method."""

    enhance: Callable[[Piece], Output]
    seconds: float | None = 0.0  # that its training took; None if unknown
    note: str = ""


class Row(NamedTuple):
    name: str  # for --rows
    title: str  # for people
    fit: "Callable[[Bench], Fitted]"


class SkippedError(Exception):
    """The row is not available on this machine; the message says why."""


class Trained(NamedTuple):
    model: Model
    seconds: float | None  # that its training took; None if it was loaded


@dataclass(frozen=True)
class Bench:
    """One corpus and one seed.

    Parameters
    ----------
    training : sequence of str
        Assignments for every training, such as `training.steps=60`.
    quick : bool
        A first look: less training, and the paper's search stopped early.
    models : path, optional
        Folder of trained models: those that are there are loaded, others are trained and written there.
    """

    corpus: Corpus
    seed: int
    training: Sequence[str] = ()
    quick: bool = False
    models: Path | None = None
    _trained: dict = field(default_factory=dict)

    def trained(self, assignments: Sequence[str] = ()) -> Trained:
        """Return a model with changed settings; each is trained once."""
        key = tuple(assignments)
        if key not in self._trained:
            seed = f"training.seed={self.seed}"
            quick = _fewer_steps(ModelSettings().model_dump()) if self.quick else []
            settings = apply_assignments(ModelSettings(), [seed, *quick, *self.training, *assignments])
            self._trained[key] = self._load_or_train(
                settings, [*["quick"] * self.quick, *self.training, *assignments]
            )
        return self._trained[key]

    def _load_or_train(self, settings: ModelSettings, assignments: Sequence[str]) -> Trained:
        # Assignments may be too many for the name of a file.
        changed = [hashlib.sha256(" ".join(assignments).encode()).hexdigest()[:8]] if assignments else []
        name = "-".join([self.corpus.name, str(self.seed), *changed])
        path = self.models and self.models / f"{name}.tonewood"
        if path and path.exists():
            return Trained(tonewood.load(path), None)
        start_time = time.process_time()
        model = tonewood.train(self.corpus.reference, self.corpus.source, settings=settings)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            model.save(path)
        return Trained(model, time.process_time() - start_time)

    @cached_property
    def reference_rows(self) -> list[Levels]:
        """Return recordings of the reference folder, [row, frame] each."""
        return _rows_below(self.corpus.reference)

    @cached_property
    def source_rows(self) -> list[Levels]:
        return _rows_below(self.corpus.source)

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def _fewer_steps(settings: dict, prefix: str = "") -> list[str]:
    """Return settings that shorten every training."""
    assignments = []
    for name, value in settings.items():
        if isinstance(value, dict):
            assignments += _fewer_steps(value, f"{prefix}{name}.")
        elif name == "steps":
            assignments.append(f"{prefix}steps={max(1, value // _QUICK_SHARE)}")
    return assignments


@cache
def _rows_below(folder) -> list[Levels]:
    return [corpus.mel_rows(corpus.take(path)) for path in find_audio_files(folder)]


def render_mask(piece: Piece, gain_db: Levels) -> Output:
    """Render a mask [row, frame] in dB on Tonewood's rows with Tonewood's own renderer."""
    settings, render = ModelSettings(), RenderSettings()
    spectrum = settings.spectrum
    mask = Mask(
        gain_db.astype(np.float32),
        center_frequencies(settings.scorer.bands, spectrum),
        spectrum.hop / spectrum.rate,
        spectrum.rate / 2,
    )
    mask = mask.clip(render.max_gain_db).quantize()
    rendered = render_through_mask(piece.samples, piece.rate, mask, render, spectrum)
    return Output(rendered.samples, piece.rate, mask)
