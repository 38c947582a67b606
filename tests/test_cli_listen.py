"""`tonewood listen`: every sub-command, and invalid calls."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tonewood.listening import definition
from tonewood.listening.database import AnswerDatabase, list_participants, screens_of

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, play: Callable[..., Any]) -> Path:
    root = tmp_path_factory.mktemp("folders")
    for name, formant in (("one", 600.0), ("two", 2_500.0), ("best", 1_500.0)):
        (root / name).mkdir()
        for piece in range(2):
            wave = play(6.0, formant_hz=formant, seed=piece)
            soundfile.write(root / name / f"p{piece}.wav", wave.T, 16_000)
    return root


def new(folders: Path, out: Path, *more: object) -> list[object]:
    both = (folders / "one", folders / "two")
    return ["listen", "new", "--conditions", *both, "-o", out, "--seconds", 5, "--no-checks", *more]


def answer_all(folder: Path, listeners: int = 3) -> None:
    test = definition.load_listening_test(folder)
    answers = AnswerDatabase(folder / definition.ANSWERS_FILE)
    for _ in range(listeners):
        listener = answers.add_listener("yes")
        for position, screen in screens_of(test, answers, listener).items():
            value = "set" if screen.stage == "volume" else "A"
            answers.save_answer(listener.id, position, value, final=True, seconds=1)


@pytest.mark.parametrize("command", ["new", "serve", "results", "delete", "export", "import"])
def test_each_command_has_help(run: Run, command: str) -> None:
    ran = run("listen", command, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: tonewood listen {command} ")


def test_folders_to_report_and_deletion(run: Run, folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "test"
    ran = run(*new(folders, out, "--json", "--expect", 0.8))
    assert ran.code == 0, ran.err
    (line,) = ran.objects
    assert (line["conditions"], line["trials"], line["stimuli"]) == (["one", "two"], 4, 8)
    assert line["power"]["expected"] == 0.8
    assert re.search(r"^listeners  \d+ needed", run(*new(folders, tmp_path / "t2")).out, re.MULTILINE)
    ran = run("listen", "results", out)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "has no answers yet" in ran.err
    answer_all(out)
    ran = run("listen", "results", out, "-o", tmp_path / "report", "--json")
    assert ran.code == 0, ran.err
    assert ran.objects[0]["pairs"][0]["answers"]["total"] == 12
    assert run("listen", "results", out).out.startswith("listeners\n  name")
    assert run("listen", "results", out, "-o", tmp_path / "report").code == 1  # nothing is replaced
    with (tmp_path / "report" / "answers.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert all((tmp_path / "report" / row["preferred"]).is_file() for row in rows)
    ran = run(*new(folders, out, "--overwrite"))
    assert (ran.code, "never replaced" in ran.err) == (1, True)
    answers = AnswerDatabase(out / definition.ANSWERS_FILE)
    second = list_participants(definition.load_listening_test(out), answers)[1]
    for name in ("L1", second.code.lower()):
        assert run("listen", "delete", out, name).code == 0
    assert len(answers.list_listeners()) == 1
    assert run("listen", "delete", out, "L9").code == 2


def test_export_and_import(run: Run, folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "test"
    assert run(*new(folders, out, "--kind", "abx")).code == 0
    ran = run("listen", "export", out, "-o", tmp_path / "wm", "--json")
    assert Path(ran.objects[0]["config"]).is_file()
    assert run("listen", "export", out, "--to", "reseval", "-o", tmp_path / "re").code == 0
    responses = tmp_path / "responses.csv"
    responses.write_text("Stem,Participant,OrderAsked,Response\nt0,x,0,C01\nt9,x,1,C01\n")
    ran = run("listen", "import", out, responses, "--from", "reseval")
    assert (ran.code, ran.err.count("\n"), "line 3" in ran.err) == (1, 1, True)
    assert not (out / definition.ANSWERS_FILE).exists()  # what is refused leaves nothing behind
    responses.write_text("Stem,Participant,OrderAsked,Response\nt0,x,0,C01\n")
    ran = run("listen", "import", out, responses, "--from", "reseval", "--json")
    assert ran.objects == [{"listeners": 1, "answers": 1}]
    assert run("listen", "import", out, responses).code == 1  # no table of webMUSHRA's
    assert run("listen", "import", out, responses, "--from", "else").code == 2


def test_mushra_from_folders(run: Run, folders: Path, tmp_path: Path) -> None:
    more = ("--kind", "mushra", "--reference", folders / "best", "--json")
    ran = run(*new(folders, tmp_path / "m", *more))
    assert ran.code == 0, ran.err
    assert ran.objects[0]["conditions"][0] == "best"
    assert ran.objects[0]["conditions"][-2:] == ["anchor 3.5 kHz", "anchor 7 kHz"]


def test_mushra_rates_no_more_than_the_standard_allows(run: Run, folders: Path, tmp_path: Path) -> None:
    many = [Path(shutil.copytree(folders / "one", tmp_path / f"c{k:02d}")) for k in range(10)]
    call = ("listen", "new", "--conditions", *many, "--kind", "mushra", "--seconds", 5)
    ran = run(*call, "--reference", folders / "best", "-o", tmp_path / "t")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "a screen would have 13 sounds" in ran.err
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--kind", "quiz"), "choose one of pairs, abx, mushra"),
        (("--kind", "mushra"), "--reference"),
        (("--kind", "abx", "--choice", "active"), "cannot be used with --kind abx"),
        (("--seconds", 2), "--seconds is 2: give a number from 5 to 12"),
        (("--excerpts", 0), "--excerpts is 0: give a whole number from 1"),
        (("--per-listener", 0), "--per-listener is 0"),
        (("--seed", -1), "--seed is -1: give a whole number from 0"),
        (("--from", "x"), "exactly one of --from and --conditions"),
        (("--expect", 0.5), "not 0.5"),
    ],
)
def test_invalid_options_are_reported_in_one_line(
    run: Run, folders: Path, tmp_path: Path, more: tuple[object, ...], reason: str
) -> None:
    ran = run(*new(folders, tmp_path / "t", *more))
    assert ran.code == 2
    assert reason in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "t").exists()


def test_failed_piece_does_not_affect_others(
    run: Run, folders: Path, tmp_path: Path, play: Callable[..., Any]
) -> None:
    both = [tmp_path / name for name in ("a", "b")]
    for number, folder in enumerate(both):
        folder.mkdir()
        soundfile.write(folder / "good.wav", play(6.0, formant_hz=900 + 900 * number).T, 16_000)
        soundfile.write(folder / "short.wav", play(2.0).T, 16_000)
    soundfile.write(both[0] / "lone.wav", play(6.0).T, 16_000)
    (both[0] / "broken.wav").write_bytes(b"RIFF")
    (both[1] / "broken.wav").write_bytes(b"RIFF")
    soundfile.write(both[0] / "unlike.wav", play(6.0).T, 16_000)
    soundfile.write(both[1] / "unlike.wav", play(7.0).T, 16_000)
    ran = run("listen", "new", "--conditions", *both, "-o", tmp_path / "t", "--seconds", 5)
    assert ran.code == 1
    for message in ("lone.wav has no counterpart in b", "short lasts 2.0 s", "broken.wav",
                    "differ in length by 1.00 s", "4 of 5 failed, 1 done"):  # fmt: skip
        assert message in ran.err
    assert {item.piece for item in definition.load_listening_test(tmp_path / "t").excerpts} == {"good"}


def test_training_without_data_is_rejected(run: Run, folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.tonewood"
    for more, reason in (
        ((), "there is nothing to train from"),
        (("--reference", folders / "one"), "--source is missing"),
        (("--preferences", tmp_path / "no.csv", "--fix", "level"), "--fix makes two folders alike"),
        (
            ("--preferences", tmp_path / "no.csv", "--predictor"),
            "from folders: give --reference and --source",
        ),
        (("--ratings", tmp_path / "no.csv", "--predictor"), "from folders: give --reference and --source"),
    ):
        ran = run("train", "-o", out, *more)
        assert ran.code == 2
        assert reason in ran.err


def test_missing_table_of_preferences_is_a_missing_input(run: Run, tmp_path: Path) -> None:
    ran = run("train", "-o", tmp_path / "m.tonewood", "--preferences", tmp_path / "no.csv")
    assert ran.code == 1
    assert "cannot be read" in ran.err


def test_model_is_trained_from_ratings(run: Run, tmp_path: Path, play: Callable[..., Any]) -> None:
    rows = ["file,rating"]
    for number in range(16):
        wave = play(2.0, formant_hz=700 + 120 * number, seed=number)
        soundfile.write(tmp_path / f"{number}.wav", wave.T, 16_000)
        rows.append(f"{number}.wav,{1 + number / 4:g}")
    (tmp_path / "r.csv").write_text("\n".join(rows))
    sets = ("training.steps=20", "scorer.depth=2", "scorer.width=4", "scorer.crop_seconds=0.5")
    call = ["train", "--ratings", tmp_path / "r.csv", "-o", tmp_path / "m.tonewood", "--no-judge"]
    ran = run(*call, *(word for item in sets for word in ("--set", item)), "--json")
    assert ran.code == 0, ran.err
    assert ran.objects[0]["card"]["ears"]["ratings"] == 16
    assert "ratings of 16 recordings" in run("info", tmp_path / "m.tonewood").out
    take = tmp_path / "0.wav"
    more = ("-m", tmp_path / "m.tonewood", "-o", tmp_path / "out.wav", "--json")
    ran = run("enhance", take, *more, "--force")
    assert ran.code == 0, ran.err
    assert ran.objects[0]["prior"] == "none"
    assert np.isfinite(soundfile.read(tmp_path / "out.wav")[0]).all()
    ran = run("enhance", take, *more, "--overwrite", "--prior", "static")
    assert (ran.code, "from listeners alone" in ran.err) == (1, True)
    folders = ("--reference", tmp_path, "--source", tmp_path)
    onto = ("train", "--onto", tmp_path / "m.tonewood", "-o", tmp_path / "n.tonewood")
    wrong: tuple[tuple[int, str, tuple[object, ...]], ...] = (
        (1, "from listeners alone", ("--predictor", *folders)),
        (
            2,
            "accepts no other change of the model",
            ("--predictor", *folders, "--ratings", tmp_path / "r.csv"),
        ),
        (2, "accepts no other change of the model", ("--predictor", "--preferences", tmp_path / "r.csv")),
        (2, "accepts no other change of the model", folders),
    )
    for code, reason, words in wrong:
        ran = run(*onto, *words)
        assert (ran.code, ran.err.count("\n"), reason in ran.err) == (code, 1, True), ran.err
    assert not (tmp_path / "n.tonewood").exists()


def test_serving_needs_its_extra(
    run: Run, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*new(folders, tmp_path / "t")).code == 0
    monkeypatch.setitem(sys.modules, "fastapi", None)
    ran = run("listen", "serve", tmp_path / "t")
    assert ran.code == 1
    assert "pip install '.[listen]'" in ran.err
    assert run("listen", "serve", tmp_path).code == 1
    assert json.loads((tmp_path / "t" / "test.json").read_text())["seed"] == 0
