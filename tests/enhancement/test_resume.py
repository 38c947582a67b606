"""Repeated runs: finished outputs are kept, interrupted ones are completed, leftovers are removed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tonewood.audio_io import recording
from tonewood.batch import enhance_file
from tonewood.batch.enhance_file import FileEnhanced
from tonewood.batch.runner import run_batch
from tonewood.batch.tasks import EnhanceTask
from tonewood.enhancement import pipeline, recipe
from tonewood.enhancement.output_files import FileFailure, FileJob, plan_jobs
from tonewood.errors import OutputError
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings

Play = Callable[..., npt.NDArray[np.float32]]
Run = Callable[..., Any]
SETTINGS = EnhanceSettings().replace(
    prior=dict(kind="static"), search=dict(steps=0), force=True, certificate=dict(control_steps=0)
)
FEW = ("--prior", "static", "--steps", "0", "--force", "--set", "certificate.control_steps=0")


@pytest.fixture
def takes(tmp_path: Path, play: Play) -> Path:
    """A folder of two recordings."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"take{number}.wav", play(1.0, seed=number).T, 16_000)
    return folder


def results(jobs: Sequence[FileJob | FileFailure], model: Model) -> list[Any]:
    """Run the jobs; returns results and failures, without progress."""
    events = run_batch(jobs, EnhanceTask(SETTINGS), model)
    return [event for event in events if isinstance(event, FileEnhanced | FileFailure)]


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and modification time of every file."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_finished_outputs_are_not_made_again(tmp_path: Path, takes: Path, run: Run, model_file: Path) -> None:
    out = tmp_path / "out"
    command = ("enhance", takes, "-o", out, "-m", model_file, *FEW)
    first = run(*command, "--json")
    assert [item["already"] for item in first.objects] == [False, False]
    before = state(out)
    (out / "take1.wav").unlink()
    (out / "take1.wav.recipe.json").unlink()
    again = run(*command, "--json")
    assert again.code == 0, again.err
    assert [item["already"] for item in again.objects] == [True, False]
    after = state(out)
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }
    assert after["take0.wav"] == before["take0.wav"]
    for key in ("certificate", "scorer", "judge", "prior", "gain_db", "output", "recipe"):
        assert again.objects[0][key] == first.objects[0][key], key
    assert f"already  {out / 'take0.wav'}" in run(*command).out


@pytest.mark.parametrize("changed_part", ["input", "settings", "model", "output", "picture"])
def test_output_of_other_input_or_settings_is_not_replaced(
    tmp_path: Path, takes: Path, play: Play, run: Run, model_file: Path, changed_part: str
) -> None:
    out = tmp_path / "out"
    command: tuple[object, ...] = ("enhance", takes, "-o", out, *FEW)
    assert run(*command, "-m", model_file).code == 0
    model: object = model_file
    if changed_part == "input":
        for number in range(2):
            soundfile.write(takes / f"take{number}.wav", play(1.0, seed=7 + number).T, 16_000)
    elif changed_part == "settings":
        command = (*command, "--amount", "0.5")
    elif changed_part == "model":
        model = "soundfont-cello"
    elif changed_part == "output":
        for number in range(2):
            soundfile.write(out / f"take{number}.wav", play(1.0, seed=7).T, 16_000)
    else:
        command = (*command, "--plot")
    before = state(out)
    ran = run(*command, "-m", model)
    assert ran.code == 1
    assert ran.err.count("exists: name another output or pass --overwrite") == 2
    assert state(out) == before


def test_recipe_without_audio_is_completed_by_the_next_run(tmp_path: Path, takes: Path, model: Model) -> None:
    out = tmp_path / "out"
    jobs = plan_jobs([takes], out)
    first_run = results(jobs, model)
    before = state(out)
    Path(first_run[0].output).unlink()  # its recipe came first
    again = results(jobs, model)
    assert [item.from_earlier_run for item in again] == [False, True]
    assert {name: item[0] for name, item in state(out).items()} == {
        name: item[0] for name, item in before.items()
    }


def test_audio_is_published_last(
    tmp_path: Path, takes: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever an interruption leaves: if the audio exists, its recipe does.
    audio_existed: list[bool] = []
    save = recipe.Recipe.save

    def spy(self: recipe.Recipe, path: Path, **more: Any) -> None:
        sound = path.with_name(path.name.removesuffix(recipe.RECIPE_SUFFIX))
        audio_existed.append(sound.exists())
        save(self, path, **more)

    monkeypatch.setattr(recipe.Recipe, "save", spy)
    jobs = plan_jobs([takes], tmp_path / "out")
    done = results(jobs, model)
    assert audio_existed == [False, False]
    for item in done:
        assert recipe.load_recipe(Path(item.recipe)).output_sha256 == recording.file_sha256(item.output)


def test_failure_keeps_files_of_a_concurrent_run(
    tmp_path: Path, takes: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two runs at once: the other writes its recipe during this one.
    out = tmp_path / "out"
    side = out / "take0.wav.recipe.json"

    def late(job: object, outputs: object, overwrite: bool) -> None:
        out.mkdir(exist_ok=True)
        side.write_text("another's")

    monkeypatch.setattr(enhance_file, "check_outputs", late)
    (failure,) = results(plan_jobs([takes], out)[:1], model)
    assert isinstance(failure, FileFailure)
    assert isinstance(failure.error, OutputError)
    assert side.read_text() == "another's"
    assert not (out / "take0.wav").exists()


def test_output_published_by_a_concurrent_run_is_kept(
    tmp_path: Path, takes: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another run has written its recipe and is about to publish its audio.
    out = tmp_path / "out"
    jobs = plan_jobs([takes], out)[:1]
    assert isinstance(results(jobs, model)[-1], FileEnhanced)
    before = state(out)
    sound = out / "take0.wav"
    content = sound.read_bytes()
    sound.unlink()
    enhance_stream = pipeline.enhance_stream

    def slow(*given: Any, **more: Any) -> Any:
        yield from enhance_stream(*given, **more)
        assert (out / "take0.wav.recipe.json").exists()
        sound.write_bytes(content)  # the other run publishes

    monkeypatch.setattr(enhance_file, "enhance_stream", slow)
    (event,) = results(jobs, model)
    assert isinstance(event, FileEnhanced)
    assert event.from_earlier_run
    assert {name: item[0] for name, item in state(out).items()} == {
        name: item[0] for name, item in before.items()
    }


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_input_that_changes_during_the_work_is_an_error(
    tmp_path: Path,
    takes: Path,
    play: Play,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    enhance_stream = pipeline.enhance_stream

    def slow(*given: Any, **more: Any) -> Any:
        yield from enhance_stream(*given, **more)
        if change == "gone":
            (takes / "take0.wav").unlink()
        else:
            soundfile.write(takes / "take0.wav", play(1.0, seed=5).T, 16_000)

    monkeypatch.setattr(enhance_file, "enhance_stream", slow)
    out = tmp_path / "out"
    (event,) = results(plan_jobs([takes], out)[:1], model)
    assert isinstance(event, FileFailure)
    expected = "changed while it was processed" if change == "changed" else "does not exist"
    assert expected in str(event.error)
    assert not out.exists()


def test_run_removes_stale_temporaries_of_its_output_folders(
    tmp_path: Path, takes: Path, model_file: Path, run: Run
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    left = out / ".tonewood-0123456789abcdef.wav"
    left.write_bytes(b"half")
    assert run("enhance", takes, "-o", out, "-m", model_file, *FEW).code == 0
    assert not left.exists()
