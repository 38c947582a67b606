"""`tonewood train`: its outputs, and what it refuses before it trains."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import soundfile

from tonewood.model.model import Model, load_model

Run = Callable[..., Any]


def test_train_writes_a_model_and_its_card(
    tmp_path: Path, training_folders: Any, small: Callable[..., Any], run: Run
) -> None:
    small_settings = small()
    settings = [
        f"{group}.{name}={json.dumps(value)}"
        for group in ("scorer", "training")
        for name, value in getattr(small_settings, group).model_dump().items()
        if name not in ("bands", "judge", "seed", "group_by")
    ]
    settings += [f"{name}={getattr(small_settings, name).model_dump_json()}" for name in ("priors", "guide")]
    path, notice = tmp_path / "m.tonewood", tmp_path / "notice.txt"
    notice.write_text("Played by nobody.\nLicence: CC0\n")
    call = [
        "train", "--reference", training_folders.reference, "--source", training_folders.source,
        "-o", path, "--seed", "7", "--group-by", "folder", "--no-judge", "--notice", notice,
        *(word for s in settings for word in ("--set", s)),
    ]  # fmt: skip
    ran = run(*call, "--json")
    assert ran.code == 0, ran.err
    (line,) = ran.objects
    assert ran.err == "".join(f"warning: {text}\n" for text in line["warnings"])
    model = load_model(path)
    assert line["model"] == str(path)
    assert line["digest"] == model.digest
    assert line["card"] == model.card.model_dump(mode="json")
    assert model.judge is None
    assert model.card.judge is None
    assert model.card.seed == model.settings.training.seed == 7
    assert model.settings.training.group_by == "folder"
    assert model.card.notice == "Played by nobody.\nLicence: CC0"
    assert model.card.reference.takes == 4
    again = run(*call)
    assert again.code == 1
    assert again.err == f"tonewood: {path} exists: name another output or pass --overwrite\n"


def test_train_rejects_its_output_before_training(
    tmp_path: Path, training_folders: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(out: Path, *more: str) -> str:
        reference, source = training_folders
        ran = run("train", "--reference", reference, "--source", source, "-o", out, *more)
        assert ran.code == 1
        assert ran.out == ""
        assert ran.err.count("\n") == 1
        return str(ran.err)

    def unused(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the work was begun")

    monkeypatch.setattr("tonewood.training.pipeline.train_model", unused)
    assert "is a folder, not a file" in call(tmp_path, "--overwrite")
    (tmp_path / "file").write_bytes(b"")
    assert "file is a file): name another output folder" in call(tmp_path / "file" / "m.tonewood")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be written (permission denied)" in call(tmp_path / "m.tonewood")


def test_unusable_training_folders_are_named(
    tmp_path: Path, training_folders: Any, play: Callable[..., Any], run: Run
) -> None:
    reference, source = training_folders

    def call(one: Path, other: Path, *more: str) -> Any:
        out = tmp_path / "m.tonewood"
        ran = run("train", "--reference", one, "--source", other, "-o", out, *more)
        assert ran.out == ""
        assert ran.err.count("\n") == 1, ran.err
        assert not out.exists()
        return ran

    def folder(name: str) -> Path:
        shutil.copytree(source, tmp_path / name)
        return tmp_path / name

    short, shared, broken, single = map(folder, ("short", "shared", "broken", "single"))
    for take in ("day0/take0", "day0/take2"):
        (short / f"{take}.wav").unlink()
    shutil.copy(reference / "day0/take0.wav", shared / "copy.wav")
    (broken / "day1" / "take3.wav").write_bytes(b"RIFF")
    shutil.rmtree(single)
    single.mkdir()
    soundfile.write(single / "one.wav", play(61.0)[0], 16_000)
    (tmp_path / "empty").mkdir()
    for other, reason in {
        tmp_path / "missing": "missing does not exist; a folder of recordings is needed",
        tmp_path / "empty": "no audio file below",
        short: "short contains 32.0 s of audio; training needs 60 s: add recordings",
        shared: "are the same recording; it cannot be both reference and source: remove one",
        broken: "take3.wav has a damaged header",
        single: "single contains 1 recording; validation on held-out takes needs 2",
    }.items():
        ran = call(reference, other)
        assert ran.code == 1, ran.err
        assert reason in ran.err
    ran = call(reference, reference)
    assert ran.code == 2
    assert "given as both folders" in ran.err


def test_full_disk_keeps_the_old_model(
    tmp_path: Path, model: Model, run: Run, monkeypatch: pytest.MonkeyPatch, training_folders: Any
) -> None:
    path = tmp_path / "m.tonewood"
    path.write_text("old")

    def full(_: Path) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tonewood.utils.files._fsync", full)
    monkeypatch.setattr("tonewood.training.pipeline.train_model", lambda *_, **__: iter([model]))
    reference, source = training_folders
    call = ("train", "--reference", reference, "--source", source, "-o", path, "--overwrite")
    ran = run(*call)
    assert ran.code == 1
    assert "was not written: the disk is full" in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["m.tonewood"]
    assert path.read_text() == "old"
