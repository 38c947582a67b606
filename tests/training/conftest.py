"""Fixtures of the tests of training."""

import hashlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import made_once
from tonewood.settings import ModelSettings
from tonewood.training import pipeline


@pytest.fixture
def fitted_correction(shared: Path) -> Iterator[None]:
    """Fit priors and guide of `training_folders` once, for the tests of what comes after them."""
    with corrections_fitted_once(shared):
        yield


@contextmanager
def corrections_fitted_once(shared: Path) -> Iterator[None]:
    """Fit priors and guide of the same excerpts and settings once in all processes of this run."""
    fit = pipeline._fit_correction

    def reuse(excerpts: Any, settings: ModelSettings) -> Any:
        parts = (excerpts, settings.priors, settings.guide, settings.spectrum, settings.training.seed)
        key = hashlib.sha256(pickle.dumps(parts)).hexdigest()[:16]
        return made_once(shared / f"correction-{key}", lambda: fit(excerpts, settings))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_fit_correction", reuse)
        yield
