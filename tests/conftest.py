"""Fixtures that every test may use."""

import fcntl
import gc
import hashlib
import io
import json
import os
import pickle
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, Unpack

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, settings

from campaigns.harness.audio import Samples as Samples
from campaigns.harness.audio import instrument as instrument
from tonewood import cli
from tonewood.setting_types import TrainingChanges
from tonewood.settings import ModelSettings, PredictorSettings

if TYPE_CHECKING:  # loads torch, which the process that distributes the tests does not need
    from tonewood.model.model import Model

# No deadlines: the duration of a test says nothing about Tonewood on a busy machine.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

ROOT = Path(__file__).parent
Made = TypeVar("Made")
MARKERS = ("unit", "integration", "browser", "cluster")
# Fixtures that train a model, or run a command, a server or a browser.
INTEGRATION_FIXTURES = {"corpora", "learn", "live", "model", "predicting", "run"}
INTEGRATION_FOLDERS = (
    "batch",
    "benchmarks",
    "campaigns",
    "examples",
    "listening",
    "numerics",
    "studio",
)
UNIT_MODULES = {"test_container.py", "test_prose.py", "test_settings.py"}


def kind_of_test(item: pytest.Item) -> str:
    """Return the marker of a test that has none, from its fixtures and its place."""
    fixtures = set(getattr(item, "fixturenames", ()))
    if "browser" in fixtures:
        return "browser"
    if "cluster" in item.path.name:
        return "cluster"
    if ROOT not in item.path.parents:  # examples in docstrings
        return "unit"
    folder = item.path.relative_to(ROOT).parts[0]
    is_command = folder == item.path.name and folder not in UNIT_MODULES
    if fixtures & INTEGRATION_FIXTURES or folder in INTEGRATION_FOLDERS or is_command:
        return "integration"
    return "unit"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that selects the long cases too."""
    parser.addoption("--long", action="store_true", help="run the cases marked `long` too")


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test one of the markers; a mark in its module goes first."""
    for item in items:
        if not any(item.get_closest_marker(name) for name in MARKERS):
            item.add_marker(kind_of_test(item))
    if not config.getoption("long"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Search for garbage after the collection only, and without its objects.

    It makes millions that stay; looking through them again and again takes seconds.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use a cache of the tests' own instead of the user's."""
    os.environ["TONEWOOD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all processes of this run share, for what is expensive to make."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(path: Path, make: Callable[[], Made]) -> Made:
    """Return what the first process of this run makes, and pickles for the others."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            # Not a model file: tests of that would then compare two loaded models.
            unfinished = path.with_name(f"{path.name}.unfinished")
            unfinished.write_bytes(pickle.dumps(make()))
            unfinished.rename(path)
    made: Made = pickle.loads(path.read_bytes())
    return made


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded random generator."""
    return np.random.default_rng(20240229)


@pytest.fixture
def tone() -> Callable[..., Samples]:
    """Return a factory of sines, ``(channels, samples)``; each channel is an octave above the last."""

    def make(
        seconds: float = 0.5,
        rate: int = 44_100,
        channels: int = 1,
        frequency: float = 110.0,
        amplitude: float = 0.5,
    ) -> Samples:
        time = np.arange(round(seconds * rate)) / rate
        octaves = frequency * 2.0 ** np.arange(channels)
        waves = amplitude * np.sin(2 * np.pi * octaves[:, None] * time)
        return waves.astype(np.float32)

    return make


def tiny_settings(**training: Unpack[TrainingChanges]) -> ModelSettings:
    """Return settings that train a model in seconds."""
    settings = ModelSettings().replace(
        scorer=dict(depth=2, width=4, crop_seconds=1.0),
        training=dict(steps=40, check_every=10, batch=8, learning_rate=0.03, held_out=0.25),
        priors=dict(neighbours=dict(frames=1_024, codes=128), network=dict(steps=24, width=8)),
        guide=dict(steps=20, width=8),
    )
    return settings.replace(training=training)


class Folders(NamedTuple):
    """Two training folders, of 64 s each in four files in two sub-folders."""

    reference: Path
    source: Path


@pytest.fixture(scope="session", name="play")
def _play() -> Callable[..., Samples]:
    """Return a factory of synthetic recordings: see `instrument`."""
    return instrument


@pytest.fixture(scope="session")
def small() -> Callable[..., ModelSettings]:
    """Return a factory of settings that train a model in seconds."""
    return tiny_settings


@pytest.fixture(scope="session")
def training_folders(shared: Path) -> Folders:
    """Write synthetic recordings of two instruments with different formants."""
    return made_once(shared / "folders", lambda: write_training_folders(shared / "takes"))


def write_training_folders(root: Path) -> Folders:
    """Write four recordings of 16 s for each side."""
    for number, (side, formant) in enumerate((("reference", 600.0), ("source", 2_500.0))):
        for take in range(4):
            path = root / side / f"day{take % 2}" / f"take{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            wave = instrument(16, formant_hz=formant, seed=10 * number + take)
            soundfile.write(path, wave.T, 16_000)
    return Folders(root / "reference", root / "source")


def trained(folders: Folders, settings: ModelSettings) -> "Model":
    """Train and return the model."""
    from tonewood.model.model import Model
    from tonewood.training.pipeline import train_model

    *_, last = train_model(folders.reference, folders.source, settings, name="tiny")
    assert isinstance(last, Model)
    return last


@pytest.fixture(scope="session")
def learn() -> Callable[[Folders, ModelSettings], "Model"]:
    """Return a function that trains a model."""
    return trained


@contextmanager
def corrections_fitted_once(shared: Path) -> Iterator[None]:
    """Fit priors and guide of the same excerpts and settings once in all processes of this run."""
    from tonewood.training import pipeline

    fit = pipeline._fit_correction

    def reuse(excerpts: Any, settings: ModelSettings) -> Any:
        parts = (excerpts, settings.priors, settings.guide, settings.spectrum, settings.training.seed)
        key = hashlib.sha256(pickle.dumps(parts)).hexdigest()[:16]
        return made_once(shared / f"correction-{key}", lambda: fit(excerpts, settings))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_fit_correction", reuse)
        yield


@pytest.fixture
def fitted_correction(shared: Path) -> Iterator[None]:
    """Share the priors and guide of equal trainings, for the tests of what comes after them."""
    with corrections_fitted_once(shared):
        yield


@pytest.fixture(scope="session")
def static_model(training_folders: Folders, shared: Path) -> "Model":
    """Return a tiny model as it was trained: its folders differ by one filter, so its mask is static."""

    def train() -> "Model":
        with corrections_fitted_once(shared):
            return trained(training_folders, tiny_settings())

    return made_once(shared / "model", train)


@pytest.fixture(scope="session")
def model(static_model: "Model") -> "Model":
    """Return the tiny model with adaptive masks."""
    from tonewood.priors.priors import BlendWeights

    assert static_model.learnt_priors is not None
    weights = BlendWeights(0.0, 0.5, 0.25, 0.25, level=0.75)
    return replace(static_model, learnt_priors=replace(static_model.learnt_priors, weights=weights))


@pytest.fixture(scope="session")
def predicting(training_folders: Folders, model: "Model", shared: Path) -> "Model":
    """Return the tiny model with a tiny predictor."""
    from tonewood.model.model import Model
    from tonewood.training.pipeline import add_predictor

    settings = PredictorSettings(width=24, depth=3, steps=220, held_out=0.25)

    def train() -> "Model":
        *_, last = add_predictor(model, training_folders.reference, training_folders.source, settings)
        assert isinstance(last, Model)
        return last

    return made_once(shared / "predicting", train)


@pytest.fixture(scope="session")
def predicting_file(predicting: "Model", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the model with a predictor."""
    path = tmp_path_factory.mktemp("model") / "tiny.tonewood"
    predicting.save(path)
    return path


@pytest.fixture(scope="session")
def model_file(model: "Model", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the tiny model."""
    path = tmp_path_factory.mktemp("model") / "tiny.tonewood"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Return the folder of the development corpora, or skip the test."""
    default = Path(__file__).parents[2] / "shared" / "corpora"
    path = Path(os.environ.get("TONEWOOD_CORPORA", default))
    if not path.is_dir():
        pytest.skip(f"{path} is not a folder: set TONEWOOD_CORPORA to the development corpora")
    return path


class Ran(NamedTuple):
    """Output of a command, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON, one object per line."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


def run_command(*arguments: object) -> Ran:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["tonewood", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert isinstance(ended.value.code, int)
    return Ran(ended.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def run() -> Run:
    """Return a function that runs the command line in this process."""
    return run_command
