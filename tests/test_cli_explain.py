"""`tonewood explain`: pages, pictures, sounds and the table."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tonewood.batch.runner import BatchProgress
from tonewood.batch.tasks import ScoreTask
from tonewood.cli.progress import BatchDisplay

Run = Callable[..., Any]
NAMES = {"attack", "steady", "vibrato", "transition", "noise-like", "quiet"}


@pytest.fixture
def take(tmp_path: Path, play: Callable[..., Any]) -> Path:
    """A short recording in stereo, 24 bits, whose name would be markup."""
    path = tmp_path / "<b>take.wav"
    soundfile.write(path, play(1.2, 22_050, 2).T, 22_050, subtype="PCM_24")
    return path


@pytest.fixture
def takes(tmp_path: Path, play: Callable[..., Any]) -> Path:
    """Two recordings, one of them in a folder, and one file that is none."""
    folder = tmp_path / "takes"
    for number, name in enumerate(("a.wav", "below/b.wav")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, play(0.8, seed=number).T, 16_000)
    (folder / "no.wav").write_text("text")
    return folder


def test_help_names_every_option(run: Run) -> None:
    ran = run("explain", "--help")
    assert ran.code == 0
    for option in ("-o", "-m", "--for", "--method", "--listen", "--no-parts", "--json"):
        assert re.search(rf"(?<![\w-]){option}\b", ran.out), option


def test_page_contains_figure_and_audio(run: Run, take: Path, model_file: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = run("explain", take, "-m", model_file, "-o", page, "--listen", "--json")
    assert (ran.code, ran.err) == (0, "")
    (line,) = ran.objects
    assert line["output"] == str(page)
    assert line["for"] == "reference"
    assert abs(line["map_mean"] + line["base"] - line["logit"]) < 1e-6
    assert {part["name"] for part in line["parts"]} <= NAMES
    assert sum(part["seconds"] for part in line["parts"]) == pytest.approx(1.21, abs=0.02)
    assert len(line["faithful"]["deletion"]) == len(line["faithful"]["share"])
    used, rest = map(Path, line["sounds"])
    assert (used.name, rest.name) == ("page.used.wav", "page.rest.wav")
    for path in (used, rest):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (22_050, 2, "PCM_24")
        assert info.frames == soundfile.info(take).frames
    text = page.read_text(encoding="utf-8")
    assert text.count("<audio") == 2
    assert text.count("data:image/png;base64,") == 2
    assert not re.search(r"https?:|<script|<link|<b>", text)
    assert {path.name for path in tmp_path.iterdir()} == {
        take.name, "page.html", "page.used.wav", "page.rest.wav",
    }  # fmt: skip


def test_png_output(run: Run, take: Path, model_file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    ran = run("explain", take, "-m", model_file, "-o", picture, "--no-parts", "--for", "source")
    assert ran.code == 0, ran.err
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "vibrato" not in ran.out
    assert str(picture) in ran.out


def test_folder_gets_pages_and_a_table(run: Run, takes: Path, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = ("explain", takes, "-m", model_file, "-o", out)
    ran = run(*call, "--json")
    assert ran.code == 1
    assert "no.wav" in ran.err
    assert "1 of 3 failed, 2 done" in ran.err
    *files, table = ran.objects
    assert [Path(part["input"]).name for part in files] == ["a.wav", "b.wav", "no.wav"]
    assert "error" in files[-1]
    assert table.pop("page") == str(out / "index.html")
    assert table == json.loads((out / "table.json").read_text())
    assert table["recordings"] == 2
    total = sum(part["seconds"] for part in table["parts"])
    mean = sum(part["seconds"] * part["absolute"]["mean"] for part in table["parts"]) / total
    assert mean == pytest.approx(1, abs=1e-2)
    assert all(part["evidence"]["low"] <= part["evidence"]["high"] for part in table["parts"])
    assert {str(path.relative_to(out)) for path in out.rglob("*.*")} == {
        "a.wav.html", "below/b.wav.html", "index.html", "table.json",
    }  # fmt: skip
    again = run(*call)
    assert again.code == 1
    assert "index.html exists: name another output or pass --overwrite" in again.err
    (takes / "no.wav").unlink()
    ran = run(*call, "--overwrite", "--no-parts")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1] == f"page        {out / 'index.html'}"


def test_audio_of_an_earlier_run_is_not_an_input(run: Run, takes: Path, model_file: Path) -> None:
    (takes / "no.wav").unlink()
    (takes / "a.wav").unlink()
    call = ("explain", takes, "-m", model_file, "-o", takes, "--listen", "--no-parts", "--json")
    assert run(*call).code == 0
    assert len(list(takes.rglob("*.wav"))) == 3
    ran = run(*call, "--overwrite")
    assert (ran.code, len(ran.objects)) == (0, 1)


def test_existing_files_are_not_overwritten(run: Run, take: Path, model_file: Path, tmp_path: Path) -> None:
    page, sound = tmp_path / "page.html", tmp_path / "page.used.wav"
    call = ("explain", take, "-m", model_file, "-o", page, "--no-parts")
    sound.write_bytes(b"mine")
    ran = run(*call, "--listen")
    assert (ran.code, "page.used.wav exists" in ran.err) == (1, True)
    assert not page.exists()
    assert sound.read_bytes() == b"mine"
    assert run(*call).code == 0
    ran = run(*call)
    assert (ran.code, "page.html exists" in ran.err) == (1, True)
    assert run(*call, "--listen", "--overwrite").code == 0
    assert sound.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "{take}"), "is neither a picture nor a page: use a name in .png or .html"),
        (("-o", "page.jpg"), "is neither a picture nor a page: use a name in .png or .html"),
        (("{take}", "-o", "page.html"), "is a file; several outputs need a folder"),
        (("-o", "page.html", "--for", "good"), "choose reference or source"),
        (("-o", "page.html", "--method", "lime"), "choose cam, integrated, gradcam"),
        (("-o", "page.html", "--seed", "-1"), "--seed"),
    ],
)
def test_wrong_options_are_refused(
    run: Run, take: Path, takes: Path, model_file: Path, words: tuple[str, ...], message: str
) -> None:
    more = [word.replace("{take}", str(takes / "a.wav")) for word in words]
    ran = run("explain", take, *more, "-m", model_file)
    assert ran.code == 2
    assert message in ran.err
    assert ran.out == ""


def test_two_recordings_with_one_page_are_refused(
    run: Run, takes: Path, model_file: Path, tmp_path: Path, play: Callable[..., Any]
) -> None:
    other = tmp_path / "a.wav"
    soundfile.write(other, play(1.0).T, 16_000)
    ran = run("explain", other, takes / "a.wav", "-m", model_file, "-o", tmp_path / "out")
    assert ran.code == 1
    assert "would become" in ran.err
    assert "1 of 2 failed" in ran.err


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "does not exist"), ("text", "text.wav"), ("silent", "is silent"),
        ("short", "0.25 s are needed"), ("empty folder", "no audio file below"),
    ],
)  # fmt: skip
def test_unusable_inputs_are_reported(
    run: Run, model_file: Path, tmp_path: Path, play: Callable[..., Any], fault: str, message: str
) -> None:
    path = tmp_path / f"{fault}.wav"
    if fault == "text":
        path.write_text("text")
    elif fault == "silent":
        soundfile.write(path, 0 * play(1.0).T, 16_000)
    elif fault == "short":
        soundfile.write(path, play(0.1).T, 16_000)
    elif fault == "empty folder":
        path = tmp_path / "empty"
        path.mkdir()
    ran = run("explain", path, "-m", model_file, "-o", tmp_path / "out", "--json")
    assert ran.code == 1
    assert message in ran.err
    assert "error" in ran.objects[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("module", "words"),
    [("matplotlib", ()), ("librosa", ()), ("captum", ("--method", "integrated"))],
)
def test_missing_extra_is_reported_before_the_work(
    run: Run, take: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    module: str, words: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    ran = run("explain", take, "-m", model_file, "-o", tmp_path / "page.html", *words)
    assert ran.code == 1
    assert re.search(rf"needs {module}: pip install '\.\[", ran.err)


def test_recording_without_evidence_has_no_audio(
    run: Run, take: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tonewood.explanation.pipeline.evidence_mask", lambda *_: None)
    ran = run(
        "explain", take, "-m", model_file, "-o", tmp_path / "page.html", "--listen", "--no-parts",
        "--json",
    )  # fmt: skip
    assert ran.code == 0
    assert ran.objects[0]["sounds"] == []
    assert "there is no evidence for the reference" in ran.err
    assert not list(tmp_path.glob("page.*.wav"))


def test_progress_shows_the_current_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with BatchDisplay(ScoreTask()) as display:
        display.show(
            BatchProgress(1, 1, 3, audio_hours=0.5, audio_hours_per_minute=0.25, seconds_left=3_600.0)
        )
        assert display.progress is not None
        (files,) = display.progress.tasks
    note = "1:00:00 left, 1 failed, 15 min of audio per minute"
    assert (files.completed, files.total, files.fields["note"]) == (1, 3, note)
    assert "files" in capsys.readouterr().err
