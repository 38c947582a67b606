"""`tonewood reproduce` on a tiny corpus."""

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import soundfile

from campaigns.harness.training import TINY_TRAINING, set_options
from tonewood.cli.progress import ReproducingDisplay
from tonewood.errors import FolderError
from tonewood.evaluation.pipeline import MeasureProgress
from tonewood.html_report import (
    ReportAudio,
    ReportBlock,
    ReportFigure,
    ReportHeading,
    ReportTable,
    render_report,
)
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.research import paper_figures, paper_reproduction
from tonewood.research.paper_figures import optimize_blocks
from tonewood.scorer.training import ValidationCheck
from tonewood.settings import ModelSettings, default_enhance_settings
from tonewood.training.networks import CheckEvent

Run = Callable[..., Any]
FILES = {"index.html", "table.json", "figure-1.png", "figure-2.png", "figure-3.png"}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, training_folders: Any, play: Callable[..., Any]) -> Path:
    """Two short pairs, in a folder whose name would be markup."""
    root = tmp_path_factory.mktemp("corpus") / "<b>cello & co"
    for side, folder, formant in (
        ("good", training_folders.reference, 600.0),
        ("cheap", training_folders.source, 2_500.0),
    ):
        (root / "train").mkdir(parents=True, exist_ok=True)
        (root / "train" / side).symlink_to(folder, target_is_directory=True)
        for piece in range(2):
            path = root / "test" / side / f"t{piece}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            wave = play(1.6, 22_050, 1 + piece, formant_hz=formant, seed=piece)
            soundfile.write(path, wave.T, 22_050)
    return root


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Any:
    """The paper's search in few steps."""
    patch = pytest.MonkeyPatch()
    real = default_enhance_settings

    def limit_steps(settings: Any) -> Any:
        return settings and settings.replace(search=dict(steps=min(3, settings.search.steps)))

    methods = {
        name: method._replace(settings=limit_steps(method.settings))
        for name, method in paper_reproduction.REPRODUCED_METHODS.items()
    }
    patch.setattr(paper_reproduction, "REPRODUCED_METHODS", methods)
    patch.setattr(paper_figures, "default_enhance_settings", lambda name: limit_steps(real(name)))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def report(
    corpus: Path, model: Model, small: Callable[..., ModelSettings], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Any]]:
    """The folder of a report, for which the paper's model is trained, and the events on its way."""
    out = tmp_path_factory.mktemp("report") / "made" / "here"
    return out, list(paper_reproduction.reproduce_paper(corpus, out, small(steps=10), model=model))


def test_paper_model_is_trained_as_in_the_paper() -> None:
    settings = paper_reproduction.paper_training_settings(ModelSettings())
    assert settings.scorer.bands.scale == "linear"
    training = settings.training
    assert (training.targets, training.tilt_db, training.mask_db) == ("labels", 0, 0)


def test_report_has_page_figures_and_table(report: tuple[Path, list[Any]]) -> None:
    out, (plan, *events, result) = report
    assert {path.name for path in out.iterdir()} == FILES
    assert result.page == out / "index.html"
    assert plan.line == "about 1 min of one core: one training, then 2 pieces by 7 methods"
    turns = [event for event in events if isinstance(event, MeasureProgress)]
    assert [(turn.number, turn.total) for turn in turns] == [(number, 14) for number in range(1, 15)]
    assert any(isinstance(event, CheckEvent) for event in events)
    for name in FILES:
        if name.endswith(".png"):
            assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "table.json").read_text()) == result.summary


def test_page_is_self_contained(report: tuple[Path, list[Any]]) -> None:
    out, _ = report
    text = (out / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|<script|<link", text)
    page = Page(text)
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    pictures = [base64.b64decode(str(src).removeprefix("data:image/png;base64,")) for src in sources]
    assert pictures == [(out / f"figure-{n}.png").read_bytes() for n in (1, 2, 3)]
    assert "Reproduction of the paper on <b>cello & co" in page.text
    assert "b" not in {tag for tag, _ in page.tags}


def test_table_has_every_method(report: tuple[Path, list[Any]], model: Model) -> None:
    out, (*_, result) = report
    rows = {row.method: row for row in result.rows}
    assert list(rows) == [
        "untouched",
        "static",
        "neighbours",
        "paper: random pixels, α = β = 0",
        "paper: rectangular blocks",
        "paper's search, Tonewood's loss",
        "Tonewood",
    ]
    untouched = rows["untouched"]
    assert untouched.closed == 0
    assert untouched.scorer > 0.6
    # Two formants apart: any prior closes something of that, and is seen to.
    for name in ("static", "Tonewood"):
        assert rows[name].closed > 0.1
        assert rows[name].scorer < untouched.scorer
        assert rows[name].judge < untouched.judge
    assert result.accuracy == model.card.scorer.accuracy
    assert result.summary["paper_accuracy"] == result.paper_accuracy
    assert untouched.paper_scorer != untouched.scorer  # of two networks
    assert (result.windows, result.crop_seconds) == (model.card.scorer.windows, 1.0)
    text = Page((out / "index.html").read_text(encoding="utf-8")).text
    assert f"{100 * rows['static'].closed:.1f}" in text
    assert f"Tonewood's on {100 * result.accuracy:.1f} % of their held-out windows of 1 s" in text
    assert "reads the 257 bins of the spectrogram and learns labels without augmentation" in text
    assert f"the paper's scorer is right on {100 * result.paper_accuracy:.1f} %" in text


def test_pairs_are_matched_by_name(corpus: Path) -> None:
    first, second = paper_reproduction.read_test_pairs(corpus / "test")
    assert [pair.source.path.name for pair in (first, second)] == ["t0.wav", "t1.wav"]
    assert first.reference.path == corpus / "test" / "good" / "t0.wav"


def test_json_trains_without_a_model(
    run: Run, corpus: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {
        name: method for name, method in paper_reproduction.REPRODUCED_METHODS.items() if name[0] in "up"
    }
    monkeypatch.setattr(paper_reproduction, "REPRODUCED_METHODS", methods)
    words = set_options(*TINY_TRAINING, "training.judge=false")
    call = ("reproduce", "--corpus", corpus, "-o", tmp_path / "out", "--paper-model", model_file)
    ran = run(*call, *words, "--json")
    assert ran.code == 0, ran.err
    assert ran.err == "about 1 min of one core: one training, then 2 pieces by 4 methods\n"
    (line,) = ran.objects
    assert line.pop("page") == str(tmp_path / "out" / "index.html")
    assert line.pop("skipped") == []
    assert line == json.loads((tmp_path / "out" / "table.json").read_text())
    assert line["pairs"] == 2
    assert [row["judge"] for row in line["methods"]] == [None] * 4


def test_text_output_has_the_table_and_overwrite_replaces(
    run: Run, corpus: Path, model: Model, model_file: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    (out / "table.json").write_bytes(b"mine")
    models = ("-m", model_file, "--paper-model", model_file)
    call = ("reproduce", "--corpus", corpus, *models, "-o", out)
    ran = run(*call)
    assert (ran.code, ran.out) == (1, "")
    assert "pass --overwrite" in ran.err
    assert (out / "table.json").read_bytes() == b"mine"
    ran = run(*call, "--overwrite")
    assert ran.code == 0, ran.err
    list(paper_reproduction.reproduce_paper(corpus, other, ModelSettings(), model=model, paper_model=model))
    assert (out / "table.json").read_bytes() == (other / "table.json").read_bytes()
    head, *rows, accuracy, where = ran.out.splitlines()
    assert head.split() == ["method", "closed,", "%", "scorer", "judge", "paper's"]
    assert [row.split()[0] for row in rows][:3] == ["untouched", "static", "neighbours"]
    assert "of their held-out windows of 1 s" in accuracy
    assert "but was not trained as in the paper" in Page((out / "index.html").read_text("utf-8")).text
    assert where == f"page       {out / 'index.html'}"


def test_missing_folder_of_a_corpus_names_the_layout(run: Run, tmp_path: Path) -> None:
    for folder in ("test/cheap", "test/good", "train/cheap", "train/good"):
        ran = run("reproduce", "--corpus", tmp_path, "-o", tmp_path / "report")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == (
            f"tonewood: --corpus {tmp_path} has no folder {folder}; a corpus has train/ and test/, each with "
            "good/ and cheap/: name such a folder\n"
        )
        (tmp_path / folder).mkdir(parents=True)


def test_unwritable_report_is_refused_before_the_work(
    run: Run, corpus: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(paper_reproduction, "train_model", never)
    monkeypatch.setattr(paper_reproduction, "apply_method", never)
    (tmp_path / "file").write_bytes(b"mine")
    call = ("reproduce", "--corpus", corpus)
    ran = run(*call, "-o", tmp_path / "file")
    assert (ran.code, "is a file; a report needs a folder" in ran.err) == (1, True)
    ran = run(*call, "-o", tmp_path / "file" / "below")
    assert (ran.code, "cannot be written" in ran.err) == (1, True)
    models = ("-m", model_file, "--paper-model", model_file)
    ran = run(*call, "-o", tmp_path / "out", *models, "--set", "scorer.depth=2")
    assert (ran.code, "--set cannot be used with both --model and --paper-model" in ran.err) == (2, True)
    ran = run("reproduce", "--corpus", tmp_path / "none", "-o", tmp_path / "out")
    assert ran.code == 1
    assert run(*call, "-o", tmp_path / "out", "--device", "gpu").code == 2
    assert not (tmp_path / "out").exists()


def test_failed_reports_leave_no_folder(run: Run, model_file: Path, tmp_path: Path) -> None:
    """What fails after the check of the folder leaves nothing, in each command with a report."""
    (tmp_path / "empty").mkdir()
    for call in (
        ("reproduce", "--corpus", tmp_path / "empty"),
        ("evaluate", "--pairs", tmp_path / "empty", tmp_path / "empty", "-m", model_file),
    ):
        assert run(*call, "-o", tmp_path / "new" / "report").code == 1
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("fault", ["missing", "longer"])
def test_test_pieces_must_be_pairs(tmp_path: Path, play: Callable[..., Any], fault: str) -> None:
    for side, seconds in (("cheap", 1.0), ("good", 1.1)):
        name = "b.wav" if side == "good" and fault == "missing" else "a.wav"
        (tmp_path / side).mkdir()
        soundfile.write(tmp_path / side / name, play(seconds).T, 16_000)
    message = {"missing": "a.wav has no partner", "longer": r"lasts 1\.00 s and .* 1\.10 s"}[fault]
    with pytest.raises(FolderError, match=message):
        paper_reproduction.read_test_pairs(tmp_path)


def test_smoothing_keeps_the_blocks(model: Model, play: Callable[..., Any]) -> None:
    wave = play(1.5)[0]
    output, other = (optimize_blocks(wave, model, "rectangular", seed) for seed in (0, 1))
    assert output.sharp.gain_db.shape == output.smooth.gain_db.shape == (257, 151)
    sharp, smooth = (mask.gain_db.ravel() for mask in (output.sharp, output.smooth))
    # Averaging over 90 ms makes ramps of edges, and leaves the blocks.
    assert steepest(output.smooth) < 0.3 * steepest(output.sharp)
    assert np.corrcoef(sharp, smooth)[0, 1] > 0.7
    assert abs(np.corrcoef(sharp, other.smooth.gain_db.ravel())[0, 1]) < 0.3
    square = optimize_blocks(wave, model, "square", 0)
    assert edges(square.sharp) != edges(output.sharp)


def steepest(mask: Mask) -> float:
    return float(np.abs(np.diff(mask.gain_db, axis=1)).max())


def edges(mask: Mask) -> int:
    return int((np.diff(mask.gain_db, axis=1) != 0).sum())


def test_page_escapes_text() -> None:
    evil = '"><script>alert(1)</script>'
    blocks: list[ReportBlock] = [
        evil,
        ReportHeading(evil),
        ReportTable(evil, [[evil], [evil]]),
        ReportFigure(evil, b"png", evil),
        ReportAudio("audio/wav", b"wave", evil),
    ]
    page = Page(render_report(evil, blocks))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(evil) == 8 + 1  # the title stands twice; an attribute is no text
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert image["alt"] == evil


def test_progress_shows_methods_and_pieces(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with ReproducingDisplay() as display:
        display.show(CheckEvent("scorer", ValidationCheck(10, 40, 0.2, 0.75, 0.2)))
        display.show(MeasureProgress(3, 12, "static"))
        assert display.progress is not None
        scorer, pieces = display.progress.tasks
    assert (scorer.completed, scorer.total) == (10, 40)
    assert (pieces.completed, pieces.total, pieces.fields["note"]) == (3, 12, "static")
    assert "pieces" in capsys.readouterr().err
