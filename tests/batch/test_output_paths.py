"""Which recording becomes which file, and outputs that cannot be written."""

import errno
import os
import re
from pathlib import Path
from typing import NoReturn

import pytest
import soundfile

from tests.batch.conftest import FEW, file_tree, raise_os_error
from tests.conftest import Run
from tonewood.audio_io import libsndfile
from tonewood.batch import enhance_file
from tonewood.enhancement.output_files import FileFailure, FileJob, plan_jobs
from tonewood.errors import CallError


def test_output_folder_keeps_tree_of_input(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    below = take.parent / "disc 2" / "side b"
    below.mkdir(parents=True)
    (below / "x.wav").write_bytes(take.read_bytes())
    (take.parent / "notes.txt").write_text("no audio")
    ran = run("enhance", take.parent, "-o", tmp_path / "out", "-m", model_file, *FEW)
    assert ran.code == 0, ran.err
    outputs = [name for name in file_tree(tmp_path / "out") if not name.endswith(".json")]
    assert outputs == ["disc 2/side b/x.wav", "good.wav"]


def test_earlier_outputs_are_not_inputs(take: Path, run: Run, model_file: Path) -> None:
    command = ("enhance", take.parent, "-o", take.parent / "out", "-m", model_file, *FEW)
    assert run(*command).code == 0
    again = run(*command, "--overwrite", "--json")
    assert again.code == 0
    assert [o["input"] for o in again.objects] == [str(take)]
    assert file_tree(take.parent) == ["good.wav", "out/good.wav", "out/good.wav.recipe.json"]
    rerun = run("enhance", take.parent / "out", "-o", take.parent / "out", "-m", model_file)
    assert rerun.code == 1
    assert "contains only earlier outputs" in rerun.err


def test_output_folder_above_inputs_hides_none_of_them(tmp_path: Path) -> None:
    music = tmp_path / "music"
    for name in ("a.wav", "jazz/b.wav"):
        (music / name).parent.mkdir(parents=True, exist_ok=True)
        (music / name).write_bytes(b"")
    for out in (tmp_path, music / "jazz"):
        jobs = plan_jobs([music], out)
        assert jobs == [
            FileJob(music / "a.wav", out / "a.wav"),
            FileJob(music / "jazz/b.wav", out / "jazz/b.wav"),
        ]


def test_only_a_single_input_accepts_an_output_file(tmp_path: Path) -> None:
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    assert plan_jobs([a], tmp_path / "c.flac") == [FileJob(a, tmp_path / "c.flac")]
    assert plan_jobs([a], tmp_path / "c") == [FileJob(a, tmp_path / "c" / "a.wav")]
    (tmp_path / "d.wav").mkdir()
    assert plan_jobs([a], tmp_path / "d.wav") == [FileJob(a, tmp_path / "d.wav" / "a.wav")]
    with pytest.raises(CallError, match=r"c\.txt is not an audio file .* \.flac .*or a folder"):
        plan_jobs([a], tmp_path / "c.txt")
    for inputs in ([a, b], [tmp_path]):
        with pytest.raises(CallError, match=r"c\.flac is a file; several .* need a folder"):
            plan_jobs(inputs, tmp_path / "c.flac")
    a.write_bytes(b"")
    with pytest.raises(CallError, match="is a file"):
        plan_jobs([b, b], a)


def test_two_inputs_with_same_output_are_refused_and_repeated_input_is_planned_once(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "1" / "a.wav", tmp_path / "2" / "a.wav"
    planned, failure = plan_jobs([one, two], tmp_path / "out")
    assert planned == FileJob(one, tmp_path / "out" / "a.wav")
    assert isinstance(failure, FileFailure)
    assert re.search(r"2/a\.wav would become .*out/a\.wav, as .*1/a\.wav does", str(failure.error))
    assert plan_jobs([one, one], tmp_path / "out") == [FileJob(one, tmp_path / "out" / "a.wav")]


def test_existing_outputs_are_kept_without_overwrite(
    tmp_path: Path, take: Path, run: Run, model_file: Path
) -> None:
    for name in ("good.wav", "good.wav.recipe.json"):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        (out / name).write_text("mine")
        command = ("enhance", take, "-o", out, "-m", model_file, *FEW)
        ran = run(*command)
        assert ran.code == 1
        assert f"{out / name} exists: name another output or pass --overwrite" in ran.err
        assert file_tree(out) == [name]
        assert (out / name).read_text() == "mine"
        assert run(*command, "--overwrite").code == 0
        assert file_tree(out) == ["good.wav", "good.wav.recipe.json"]
        assert b"mine" not in (out / name).read_bytes()


def test_output_that_is_an_input_is_refused(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    link = tmp_path / "link.wav"
    link.symlink_to(take)
    before = take.read_bytes()
    for out in (take, take.parent, link):
        ran = run("enhance", take, "-o", out, "-m", model_file, "--overwrite")
        assert ran.code == 1
        assert "is the input itself: name another output" in ran.err
    # `in/good.wav` would become `music/other/good.wav`, which is an input too.
    other = tmp_path / "music" / "other" / "good.wav"
    other.parent.mkdir(parents=True)
    other.write_bytes(before)
    inputs = (take.parent, tmp_path / "music")
    ran = run("enhance", *inputs, "-o", other.parent, "-m", model_file, "--overwrite", *FEW)
    assert ran.code == 1
    assert "good.wav is an input too: name another output" in ran.err
    assert other.read_bytes() == before


def test_output_that_its_header_cannot_count_is_rf64_or_refused_before_the_work(
    tmp_path: Path, take: Path, run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libsndfile, "MAX_32_BIT_SIZE", 2**10)  # instead of 4 GiB
    ran = run("enhance", take, "-o", tmp_path / "out.wav", "-m", model_file, *FEW)
    assert ran.code == 0, ran.err
    assert soundfile.info(tmp_path / "out.wav").format == "RF64"
    monkeypatch.delattr(enhance_file, "_enhancement_events")  # the work
    ran = run("enhance", take, "-o", tmp_path / "out.aiff", "-m", model_file)
    assert ran.code == 1
    assert "out.aiff takes more than 4 GiB, which aiff cannot hold: name an output in .w64" in ran.err


def test_unwritable_outputs_are_refused_before_the_work(
    tmp_path: Path,
    take: Path,
    run: Run,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the work was started")

    monkeypatch.setattr(enhance_file, "enhance_stream", fail)
    (tmp_path / "file").write_text("")
    ran = run("enhance", take, "-o", tmp_path / "file" / "out", "-m", model_file)
    assert ran.code == 1
    assert f"({tmp_path / 'file'} is a file): name another output folder" in ran.err
    (tmp_path / "old.wav.recipe.json").write_text("")
    ran = run("enhance", take, "-o", tmp_path / "old.wav", "-m", model_file)
    assert ran.code == 1
    assert "old.wav.recipe.json exists" in ran.err
    monkeypatch.setattr(os, "access", lambda *_: False)
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file)
    assert ran.code == 1
    assert "out/good.wav cannot be written (permission denied): name another output folder" in ran.err


def test_output_folder_that_cannot_be_created_is_named(
    tmp_path: Path, take: Path, run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", raise_os_error(errno.EROFS))
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, *FEW)
    assert ran.code == 1
    assert "out cannot be written to (read-only file system)" in ran.err
