"""Training that is interrupted and resumed, and training by several processes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from campaigns.harness.training import TINY_TRAINING, set_options
from tests.conftest import Folders, Run, corrections_fitted_once, tiny_settings
from tonewood.data.dataset import load_dataset
from tonewood.errors import ModelError
from tonewood.model.model import Model
from tonewood.setting_types import apply_assignments
from tonewood.settings import ModelSettings
from tonewood.training import pipeline
from tonewood.training.networks import CheckEvent, Checkpoint
from tonewood.training.pipeline import train_model
from tonewood.utils.files import exclusive_lock

SETTINGS = tiny_settings()


def run_until(folders: Folders, checkpoint: Checkpoint, looks: int) -> None:
    """Train until the given number of validations."""
    events = train_model(folders.reference, folders.source, SETTINGS, name="tiny", checkpoint=checkpoint)
    for event in events:
        looks -= isinstance(event, CheckEvent)
        if looks == 0:
            events.close()  # type: ignore[attr-defined]
            return


@pytest.mark.usefixtures("fitted_correction")
@pytest.mark.parametrize("looks", [pytest.param(1, marks=pytest.mark.long), 5])
def test_resumed_training_gives_identical_model(
    training_folders: Folders, tmp_path: Path, looks: int, static_model: Model
) -> None:
    path = tmp_path / "tiny.tonewood.checkpoint"
    run_until(training_folders, Checkpoint(path), looks)
    *events, again = train_model(*training_folders, SETTINGS, checkpoint=Checkpoint(path, resumed=True))
    assert isinstance(again, Model)
    assert again.digest == static_model.digest
    assert again.card.scorer == static_model.card.scorer
    seen = [(event.network, event.check.step) for event in events if isinstance(event, CheckEvent)]
    assert ("scorer", 10) not in seen
    assert len(seen) == len(set(seen))


@pytest.fixture(scope="module")
def unfinished(training_folders: Folders, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a training that ended after its first validation."""
    path = tmp_path_factory.mktemp("unfinished") / "tiny.tonewood.checkpoint"
    with corrections_fitted_once(shared):
        run_until(training_folders, Checkpoint(path), 1)
    return path


def test_checkpoint_of_another_training_is_refused_before_the_work(
    training_folders: Folders, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(pipeline, "_fit_correction")  # the first work that takes long
    path = tmp_path / unfinished.name
    shutil.copy(unfinished, path)
    other = SETTINGS.replace(training=dict(learning_rate=0.02))
    sides = training_folders.source, training_folders.reference
    resumed = Checkpoint(path, resumed=True)
    with pytest.raises(ModelError, match="belongs to another training: the recordings or settings"):
        list(train_model(*training_folders, other, checkpoint=resumed))
    with pytest.raises(ModelError, match="belongs to another training"):
        list(train_model(*sides, SETTINGS, checkpoint=resumed))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError, match="is damaged: omit --resume to start again"):
        list(train_model(*training_folders, SETTINGS, checkpoint=resumed))


@pytest.mark.usefixtures("fitted_correction")
def test_same_training_continues_and_another_starts_from_the_beginning(
    training_folders: Folders, tmp_path: Path, static_model: Model
) -> None:
    """As `train` does without `--resume`."""
    path = tmp_path / "tiny.tonewood.checkpoint"
    run_until(training_folders, Checkpoint(path), 2)
    same = tmp_path / "same.tonewood.checkpoint"
    shutil.copy(path, same)
    other = SETTINGS.replace(training=dict(learning_rate=0.02))
    checkpoint = Checkpoint(path, resumed=True, is_required=False)
    first = next(
        event
        for event in train_model(*training_folders, other, checkpoint=checkpoint)
        if isinstance(event, CheckEvent)
    )
    assert first.check.step == SETTINGS.training.check_every
    steps = []
    checkpoint = Checkpoint(same, resumed=True, is_required=False)
    for event in train_model(*training_folders, SETTINGS, name="tiny", checkpoint=checkpoint):
        if isinstance(event, CheckEvent):
            steps.append(event.check.step)
    assert isinstance(event, Model)
    assert steps[0] > SETTINGS.training.check_every
    assert event.digest == static_model.digest


def test_checkpoints_of_earlier_versions_can_be_continued(
    training_folders: Folders, unfinished: Path
) -> None:
    takes = [
        f"{side} {progress.take.digest} {progress.take.group} None\n"
        for side, folder in zip(("reference", "source"), training_folders, strict=True)
        for progress in load_dataset(folder, SETTINGS)
    ]
    key = [1, SETTINGS.model_dump_json(), hashlib.sha256("".join(takes).encode()).hexdigest()]
    with safe_open(unfinished, "pt") as file:
        assert file.metadata() == {"told": json.dumps(key)}
        assert {"scorer/told", "scorer/generator", "scorer/best.row_mean"} <= set(file.keys())


def test_digest_in_checkpoint_of_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny.tonewood.checkpoint"
    save_file({"scorer/told": torch.zeros(5)}, path, {"told": "[1]", "made": "abc"})
    assert Checkpoint(path, resumed=True).recorded_digest() == "abc"
    assert Checkpoint(path).recorded_digest() is None


# Two processes learn as much as one.
ASSIGNMENTS = (
    *TINY_TRAINING, "training.steps=40", "training.check_every=4", "training.learning_rate=0.03",
)  # fmt: skip


@pytest.fixture
def call(training_folders: Folders) -> list[str]:
    """Arguments of a short training on the command line."""
    sides = "--reference", str(training_folders.reference), "--source", str(training_folders.source)
    return ["train", *sides, "--json", *set_options(*ASSIGNMENTS)]


@pytest.fixture
def undisturbed(training_folders: Folders, fitted_correction: None) -> Model:
    """Return the model that the command trains."""
    *_, model = train_model(*training_folders, apply_assignments(ModelSettings(), ASSIGNMENTS))
    assert isinstance(model, Model)
    return model


@pytest.mark.long  # tests/campaigns/test_crash.py kills a training too
def test_killed_training_resumes(call: list[str], run: Run, tmp_path: Path, undisturbed: Model) -> None:
    checkpoint = tmp_path / "killed.tonewood.checkpoint"
    command = [sys.executable, "-m", "tonewood", *call, "-o", str(tmp_path / "killed.tonewood")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not checkpoint.exists() and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed.tonewood").exists()
    again = run(*call, "-o", tmp_path / "killed.tonewood")
    assert again.code == 0, again.err
    assert again.objects[-1]["digest"] == undisturbed.digest
    assert [item.name for item in tmp_path.iterdir()] == ["killed.tonewood"]


@pytest.mark.usefixtures("fitted_correction")
def test_training_killed_after_saving_counts_as_finished(
    call: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ours.tonewood"
    checkpoint = tmp_path / "ours.tonewood.checkpoint"
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "remove", lambda self: None)
        first = run(*call, "-o", out)
    assert checkpoint.exists()
    for more in ((), ("--resume",)):
        other = run(*call, "--seed", "7", "-o", out, *more)
        assert other.code == 1
        assert "exists: name another output" in other.err
    before = out.read_bytes()
    again = run(*call, "-o", out)
    assert again.code == 0, again.err
    assert again.objects[-1] == first.objects[-1]
    assert out.read_bytes() == before
    assert not checkpoint.exists()


def test_second_training_of_same_model_is_refused(call: list[str], run: Run, tmp_path: Path) -> None:
    out = tmp_path / "ours.tonewood"
    with exclusive_lock(out):
        ran = run(*call, "-o", out)
    assert ran.code == 1
    assert "is being written by another process" in ran.err
    assert list(tmp_path.iterdir()) == []


def together(count: int, call: list[str], out: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with torchrun."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    return subprocess.run(
        [*start, str(count), "-m", "tonewood", *call, "-o", str(out)],
        capture_output=True,
        text=True,
        timeout=1_200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


needs_distributed = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch is for one process"
)


@needs_distributed
def test_torchrun_trains_with_two_processes(call: list[str], tmp_path: Path, undisturbed: Model) -> None:
    two = together(2, [*call, "--no-judge"], tmp_path / "two.tonewood")
    assert two.returncode == 0, two.stderr
    (result,) = [json.loads(line) for line in two.stdout.splitlines()]  # the first process alone speaks
    assert result["digest"] != undisturbed.digest  # other crops: it did share
    accuracy = [card["accuracy"] for card in (result["card"]["scorer"], undisturbed.card.scorer.model_dump())]
    assert max(accuracy) - min(accuracy) <= 0.1
    assert [item.name for item in tmp_path.iterdir()] == ["two.tonewood"]


@pytest.mark.long
@needs_distributed
def test_torchrun_with_one_process_gives_identical_model(
    call: list[str], tmp_path: Path, undisturbed: Model
) -> None:
    one = together(1, call, tmp_path / "one.tonewood")
    assert one.returncode == 0, one.stderr
    assert json.loads(one.stdout.splitlines()[-1])["digest"] == undisturbed.digest
