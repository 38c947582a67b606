"""Recordings that are enhanced together, as one record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tonewood.batch import together
from tonewood.dsp.loudness import integrated_loudness
from tonewood.enhancement.mask_search import find_masks
from tonewood.enhancement.recipe import load_recipe
from tonewood.errors import AudioError

Play = Callable[..., npt.NDArray[np.float32]]
Run = Callable[..., Any]
FORCE = ("--set", "force=true", "--steps", "1")


def recipe_path(path: Path) -> Path:
    return path.with_name(path.name + ".recipe.json")


def test_record_has_one_static_part_and_one_gain(
    tmp_path: Path, play: Play, run: Run, model_file: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number, level in enumerate((0.1, 0.4, 0.2)):
        wave = level * play(1.0 + number / 2, formant_hz=1_500.0 + 500 * number, seed=number)
        soundfile.write(folder / f"{number}.wav", wave.T, 16_000, "FLOAT")
    (folder / "broken.wav").write_bytes(b"RIFF")
    call = ("enhance", folder, "-o", out, "-m", model_file, *FORCE, "--together", "--json")
    ran = run(*call)
    assert ran.code == 1
    assert "1 of 4 failed, 3 done" in ran.err
    recipes = [load_recipe(recipe_path(out / f"{number}.wav")) for number in range(3)]
    assert len({recipe.gain_db for recipe in recipes}) == 1
    masks = [recipe.mask.to_mask().gain_db for recipe in recipes]
    means = [mask.mean(axis=1) for mask in masks]
    assert np.abs(means[0] - means[1]).max() < 0.2  # but for the limit of ±30 dB
    assert np.abs(masks[0] - means[0][:, None]).max() > 0.5
    before, after = (
        np.concatenate([soundfile.read(place / f"{number}.wav")[0] for number in range(3)])
        for place in (folder, out)
    )
    loudness = [integrated_loudness(wave[None].astype(np.float32), 16_000) for wave in (before, after)]
    assert loudness[1] == pytest.approx(loudness[0], abs=1.0)
    again = run("render", recipe_path(out / "1.wav"), folder / "1.wav", "-o", tmp_path / "b.wav", "--json")
    assert again.objects[0]["same"] is True
    (folder / "broken.wav").unlink()
    assert [item["already"] for item in run(*call).objects] == [True] * 3


@pytest.fixture
def record(tmp_path: Path, play: Play) -> Path:
    """Return a folder with two recordings, and one that cannot be read."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        wave = 0.3 * play(1.0, formant_hz=1_500.0 + 500 * number, seed=number)
        soundfile.write(folder / f"{number}.wav", wave.T, 16_000, "FLOAT")
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


def test_finished_record_is_not_searched_again(
    record: Path, play: Play, run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("enhance", record, "-o", record.parent / "out", "-m", model_file, *FORCE, "--together", "--json")
    assert run(*call).code == 1
    searched = []

    def count_searches(reader: Any, *arguments: Any) -> Any:
        searched.append(reader.path.name)
        return find_masks(reader, *arguments)

    monkeypatch.setattr(together, "find_masks", count_searches)
    ran = run(*call)
    assert searched == []
    assert ran.code == 1
    assert [item.get("already") for item in ran.objects] == [True, True, None]
    # Another recording changes the static part of all.
    soundfile.write(record / "broken.wav", play(1.0, formant_hz=900.0, seed=7).T, 16_000)
    ran = run(*call)
    assert sorted(searched) == ["0.wav", "1.wav", "broken.wav"]
    assert ran.err.count("exists: name another output or pass --overwrite") == 2


def test_record_with_other_options_is_not_finished(record: Path, run: Run, model_file: Path) -> None:
    call = ("enhance", record, "-o", record.parent / "out", "-m", model_file, *FORCE, "--together", "--json")
    assert run(*call).code == 1
    for more in (("--no-match",), ("--amount", "0.5"), ("--seed", "1")):
        assert run(*call, *more).err.count("exists: name another output") == 2


@pytest.mark.parametrize("error", [AudioError("0.wav is gone"), OSError(5, "Input/output error", "0.wav")])
def test_recording_that_fails_in_the_second_pass_leaves_the_others(
    record: Path, run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    measure = together._measure_loudness

    def fail_for_first(path: Path, *arguments: Any) -> Any:
        if path.name == "0.wav":
            raise error
        return measure(path, *arguments)

    monkeypatch.setattr(together, "_measure_loudness", fail_for_first)
    out = record.parent / "out"
    ran = run("enhance", record, "-o", out, "-m", model_file, *FORCE, "--together", "--json")
    assert ran.code == 1
    assert "2 of 3 failed, 1 done" in ran.err
    recipe = load_recipe(recipe_path(out / "1.wav"))
    assert recipe.carried is not None
    assert recipe.carried.recipe == "1 recording"


def test_quiet_record_draws_no_bars(
    tmp_path: Path, play: Play, run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = tmp_path / "take.wav"
    soundfile.write(take, play(1.0).T, 16_000)

    def draw(_: bool) -> NoReturn:
        raise AssertionError("bars were drawn")

    monkeypatch.setattr("tonewood.cli.progress._create_bars", draw)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    call = ("enhance", take, "-m", model_file, *FORCE, "--together", "--quiet", "-o", tmp_path / "out")
    assert run(*call).code == 0


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--mid-side",), "leave out --mid-side"),
        (("--dry-run",), "--dry-run and --together cannot be used together"),
        (("--retries", "1", "--workers", "2"), "leave out --workers"),
    ],
)
def test_together_refuses_what_it_cannot_do(
    tmp_path: Path, play: Play, run: Run, model_file: Path, more: tuple[str, ...], reason: str
) -> None:
    take = tmp_path / "take.wav"
    soundfile.write(take, play(1.0).T, 16_000)
    ran = run("enhance", take, "-o", tmp_path / "o", "-m", model_file, "--together", *more)
    assert ran.code == 2
    assert reason in ran.err
    assert ran.err.count("\n") == 1
