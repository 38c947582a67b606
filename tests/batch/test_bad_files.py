"""Inputs that cannot be used, and runs that stop: one error line each, and no partial output."""

import errno
import os
import struct
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tests.batch.conftest import FEW, Play, file_tree, raise_os_error
from tests.conftest import Run
from tonewood.audio_io import libsndfile
from tonewood.batch import enhance_file
from tonewood.enhancement import plotting, recipe
from tonewood.utils import files


def bad_files(folder: Path, play: Play) -> dict[Path, str]:
    """Return unusable files of every kind, with the reason that is printed for each."""
    folder.mkdir(exist_ok=True)
    good = play(1.0)[0]
    reasons: dict[str, str] = {}

    def put(name: str, wave: npt.NDArray[Any], reason: str, rate: int = 16_000) -> None:
        soundfile.write(folder / name, wave, rate, "FLOAT")
        reasons[name] = reason

    put("zero.wav", np.zeros((0, 1)), "contains no samples")
    put("short.wav", good[:1_600], "lasts 0.1 s; 0.25 s are needed")
    put("silence.wav", 0 * good, "is silent")
    put("constant.wav", 0 * good + 0.25, "is constant")
    put("nine.wav", np.tile(good[:, None], 9), "has 9 channels; 8 can be used")
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        broken = good.copy()
        broken[8_000] = value
        put(f"{name}.wav", broken, "not finite numbers, the first at 0.50 s")
    for name, rate in (("hertz", 1), ("megahertz", 10_000_000)):
        put(f"{name}.wav", good, f"has a sample rate of {rate} Hz")
        content = bytearray((folder / f"{name}.wav").read_bytes())
        struct.pack_into("<I", content, 24, rate)
        (folder / f"{name}.wav").write_bytes(content)
    put("truncated.wav", good, "is cut off or damaged")
    whole = (folder / "truncated.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("these are words, no audio " * 20)
    (folder / "empty folder").mkdir(exist_ok=True)
    reasons |= {
        "empty.wav": r"is empty (0 bytes)",
        "text.wav": "is not audio",
        "empty folder": "no audio file below",
        "missing.wav": "does not exist",
    }
    return {folder / name: reason for name, reason in reasons.items()}


@pytest.mark.parametrize("command", ["enhance", "score"])
def test_bad_file_gives_one_error_line_and_no_output(
    tmp_path: Path, play: Play, run: Run, model_file: Path, command: str
) -> None:
    files = bad_files(tmp_path / "bad", play)
    out = ("-o", tmp_path / "out") if command == "enhance" else ()
    for path, reason in files.items():
        before = file_tree(tmp_path)
        ran = run(command, path, *out, "-m", model_file)
        assert ran.code == 1, path
        assert ran.out == "", path
        assert ran.err.startswith("tonewood: "), path
        assert str(path) in ran.err
        assert reason in ran.err
        assert ran.err.count("\n") == 1, ran.err
        assert file_tree(tmp_path) == before
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["enhance", "score"])
def test_bad_files_do_not_stop_the_others(
    tmp_path: Path, play: Play, take: Path, run: Run, model_file: Path, command: str
) -> None:
    files = bad_files(tmp_path / "bad", play)
    other = take.with_name("last.wav")
    other.write_bytes(take.read_bytes())
    out = ("-o", tmp_path / "out", *FEW) if command == "enhance" else ()
    ran = run(command, take, *files, other, *out, "-m", model_file, "--json")
    assert ran.code == 1
    failed = {o["input"]: o["error"] for o in ran.objects if "error" in o}
    assert {str(path) for path in files} == set(failed)
    for path, reason in files.items():
        assert reason in failed[str(path)]
        assert f"tonewood: {failed[str(path)]}\n" in ran.err
    assert [o["input"] for o in ran.objects if "error" not in o] == [str(take), str(other)]
    assert ran.err.endswith(f"tonewood: {len(files)} of {len(files) + 2} failed, 2 done\n")
    if command == "enhance":
        recipes = [f"{p.name}{s}" for p in (take, other) for s in ("", ".recipe.json")]
        assert file_tree(tmp_path / "out") == sorted(recipes)


def test_clipped_input_gives_a_warning_and_silent_passage_does_not(
    tmp_path: Path, play: Play, run: Run, model_file: Path
) -> None:
    silent, clipped = tmp_path / "some.wav", tmp_path / "clipped.wav"
    wave = play(3.0)[0]
    wave[16_000:32_000] = 0
    soundfile.write(silent, wave, 16_000)
    soundfile.write(clipped, np.clip(20 * play(1.0)[0], -1, 1), 16_000)
    ran = run("enhance", silent, clipped, "-o", tmp_path / "o", "-m", model_file, *FEW, "--json")
    assert ran.code == 0
    assert [any("clipped" in w for w in o["warnings"]) for o in ran.objects] == [False, True]
    assert f"warning: {clipped}: the input is clipped" in ran.err


def test_very_quiet_and_very_short_recordings_are_enhanced(
    tmp_path: Path, play: Play, run: Run, model_file: Path
) -> None:
    quiet, short = tmp_path / "quiet.wav", tmp_path / "short.wav"
    soundfile.write(quiet, 5e-4 * play(1.0)[0], 16_000, "FLOAT")  # under -70 LUFS
    soundfile.write(short, play(0.25)[0], 16_000)
    ran = run("enhance", quiet, short, "-o", tmp_path / "o", "-m", model_file, *FEW, "--json")
    assert ran.code == 0, ran.err
    loudness = recipe.load_recipe(tmp_path / "o" / "quiet.wav.recipe.json").loudness_lufs
    assert loudness is not None
    assert loudness.before < -70
    assert loudness.after == pytest.approx(loudness.before, abs=0.1)
    assert soundfile.info(tmp_path / "o" / "short.wav").frames == 4_000


@pytest.mark.parametrize("suffix", [".wav", ".json", ".png"])
def test_full_disk_leaves_no_partial_output_and_other_files_continue(
    tmp_path: Path,
    take: Path,
    run: Run,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    synchronise, full = files._fsync, [True]

    def fail_once(path: Path) -> None:
        if path.suffix == suffix and full:
            full.clear()
            raise OSError(errno.ENOSPC, "No space left on device")
        synchronise(path)

    monkeypatch.setattr(files, "_fsync", fail_once)
    other = take.with_name("other.wav")
    other.write_bytes(take.read_bytes())
    out = tmp_path / "out"
    ran = run("enhance", take, other, "-o", out, "-m", model_file, "--plot", "--json", *FEW)
    assert ran.code == 1
    assert [("error" in o) for o in ran.objects] == [True, False]
    assert "was not written: the disk is full: free some space" in ran.objects[0]["error"]
    assert file_tree(out) == ["other.wav", "other.wav.png", "other.wav.recipe.json"]


@pytest.mark.parametrize("place", ["encode", "search", "draw"])
def test_interrupt_leaves_no_partial_output(
    tmp_path: Path,
    take: Path,
    run: Run,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    def interrupt(path: object, *_: object, **__: object) -> NoReturn:
        if isinstance(path, Path) and path.exists():
            path.write_bytes(b"half")
        raise KeyboardInterrupt

    module, name = {
        "encode": (libsndfile, "encode_blocks"),
        "search": (enhance_file, "enhance_stream"),
        "draw": (plotting, "plot_enhancement"),
    }[place]
    monkeypatch.setattr(module, name, interrupt)
    out = tmp_path / "out"
    ran = run("enhance", take, "-o", out, "-m", model_file, "--plot", *FEW)
    assert ran.code == 130
    assert ran.err == "tonewood: interrupted; what is done is kept, and the same command continues\n"
    assert ran.out == ""
    assert file_tree(tmp_path) == ["in/good.wav"]


def test_unreadable_file_does_not_stop_the_others(
    tmp_path: Path, take: Path, run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = take.with_name("secret.wav")
    secret.write_bytes(take.read_bytes())
    monkeypatch.setattr(os, "access", lambda path, *_: Path(path) != secret)
    opened = Path.open

    def refuse(path: Path, *rest: Any, **more: Any) -> Any:
        return raise_os_error(errno.EACCES)() if path == secret else opened(path, *rest, **more)

    monkeypatch.setattr(Path, "open", refuse)
    ran = run("enhance", secret, take, "-o", tmp_path / "out", "-m", model_file, *FEW)
    assert ran.code == 1
    assert f"tonewood: {secret} cannot be read (permission denied)" in ran.err
    assert file_tree(tmp_path / "out") == ["good.wav", "good.wav.recipe.json"]
