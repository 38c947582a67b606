"""`tonewood evaluate` on tiny pairs and folders."""

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tonewood.batch.analysis_tasks import MeasureTask
from tonewood.batch.enhance_file import FileEnhanced
from tonewood.batch.runner import run_batch
from tonewood.batch.tasks import EnhanceTask
from tonewood.cli.progress import PairsDisplay
from tonewood.enhancement.output_files import FileStarted, plan_jobs
from tonewood.evaluation.alignment import align_recordings
from tonewood.evaluation.metrics import (
    FolderComparison,
    compare_folder_sound,
    gap_closed,
    mel_distance,
    to_mono_16k,
)
from tonewood.evaluation.pipeline import (
    EVALUATED_METHODS,
    Evaluation,
    MeasureProgress,
    PairFiles,
    PairResult,
    measure_pair,
    pairs_by_name,
    summarize_evaluation,
)
from tonewood.evaluation.report import means_table
from tonewood.model.model import Model, load_model
from tonewood.settings import EnhanceSettings

Run = Callable[..., Any]
FILES = {"index.html", "evaluation.json", "evaluation.csv"}
RATE = 22_050


def write(path: Path, wave: Any, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.T, rate)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory, play: Callable[..., Any]) -> Path:
    """Two pairs that are simultaneous and one whose reference begins later."""
    root = tmp_path_factory.mktemp("pairs") / "<b>pairs & co"
    for piece in range(3):
        for side, formant in (("source", 2_500.0), ("reference", 600.0)):
            wave = play(2.4, RATE, 1 + piece % 2, formant_hz=formant, seed=40 + piece)
            if piece == 2 and side == "reference":
                wave = np.concatenate([np.zeros((1, RATE), np.float32), wave], axis=1)
            write(root / side / f"p{piece}.wav", wave)
    return root


@pytest.fixture(scope="module")
def evaluation(pieces: Path, model: Model) -> Evaluation:
    results = []
    for files in pairs_by_name(pieces / "source", pieces / "reference"):
        assert isinstance(files, PairFiles)
        *_, result = measure_pair(files, model)
        assert isinstance(result, PairResult)
        results.append(result)
    return summarize_evaluation(results, [], seed=0)


def test_every_method_is_measured_on_every_pair(evaluation: Evaluation) -> None:
    assert [piece.files.name for piece in evaluation.pairs] == ["p0", "p1", "p2"]
    assert [piece.alignment.exact for piece in evaluation.pairs] == [True, True, False]
    # Zimtohrli compares simultaneous sounds only.
    perceptual = [piece.methods["untouched"].zimtohrli for piece in evaluation.pairs]
    assert [value is not None and value > 0 for value in perceptual] == [True, True, False]
    assert "zimtohrli" not in evaluation.means["untouched"]
    assert means_table(evaluation)[0] == ["method", "closed, %", "mel, dB", "judge"]
    simultaneous = summarize_evaluation(evaluation.pairs[:2], [], seed=0)
    assert means_table(simultaneous)[0] == ["method", "closed, %", "mel, dB", "judge", "Zimtohrli"]
    for piece in evaluation.pairs:
        assert tuple(piece.methods) == tuple(EVALUATED_METHODS)
        assert piece.methods["untouched"].closed == 0
        # Two formants apart: a match EQ closes something of that.
        assert piece.methods["static"].closed > 0.1
        assert piece.methods["Tonewood"].scorer < piece.methods["untouched"].scorer
        assert piece.waveforms is None


def test_exact_pair_is_not_warped(evaluation: Evaluation, pieces: Path) -> None:
    piece = evaluation.pairs[0]
    pair = piece.files.read()
    source, reference = (to_mono_16k(side.samples, side.rate) for side in pair)
    assert piece.methods["untouched"].mel == mel_distance(source, reference)
    row = piece.methods["static"]
    assert row.closed == gap_closed(piece.methods["untouched"].mel, row.mel)


def test_means_and_gains_are_over_pairs(evaluation: Evaluation) -> None:
    shares = [piece.methods["static"].closed for piece in evaluation.pairs]
    mean = evaluation.means["static"]["closed"]
    assert mean.mean == pytest.approx(np.mean(shares))
    assert mean.low is not None
    assert mean.high is not None
    assert mean.low <= mean.mean <= mean.high
    gain = evaluation.gains["static"]["closed"].mean
    assert gain == pytest.approx(evaluation.means["Tonewood"]["closed"].mean - mean.mean)
    assert set(evaluation.gains) == {"untouched", "static"}


def test_report_has_page_table_and_data(
    run: Run, pieces: Path, model_file: Path, training_folders: Any, tmp_path: Path
) -> None:
    out = tmp_path / "made" / "here"
    pairs = ("--pairs", pieces / "source", pieces / "reference")
    folders = ("--folders", training_folders.source, training_folders.reference)
    call = ("evaluate", *pairs, *folders, "-m", model_file, "-o", out)
    ran = run(*call)
    assert ran.code == 0, ran.err
    assert {path.name for path in out.iterdir()} == FILES
    data = json.loads((out / "evaluation.json").read_text())
    assert data["pairs"]["pairs"] == 3
    assert data["folders"]["stretches"] == [8, 8]
    rows = list(csv.DictReader((out / "evaluation.csv").read_text().splitlines()))
    assert [(row["piece"], row["method"]) for row in rows[:2]] == [
        ("p0", "untouched"),
        ("p0", "static"),
    ]
    text = (out / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|<script|<link|<b>", text)
    assert text.count("<audio") == 3 * 4
    assert text.count("<img") == 3
    head, *lines = ran.out.splitlines()
    assert head.split() == ["method", "closed,", "%", "mel,", "dB", "judge"]
    assert [line.split()[0] for line in lines[:3]] == list(EVALUATED_METHODS)
    assert lines[-1] == f"page       {out / 'index.html'}"
    again = ("evaluate", *folders, "-m", model_file, "-o", out)
    assert (run(*again).code, run(*again, "--overwrite").code) == (1, 0)
    assert json.loads((out / "evaluation.json").read_text())["pairs"] is None


def test_json_has_a_line_per_pair_and_a_summary(
    run: Run, pieces: Path, model_file: Path, evaluation: Evaluation
) -> None:
    call = ("--pairs", pieces / "source", pieces / "reference", "-m", model_file, "--json")
    ran = run("evaluate", *call)
    assert (ran.code, ran.err) == (0, "")
    *each, last = ran.objects
    assert [line["piece"] for line in each] == ["p0", "p1", "p2"]
    assert each == json.loads(json.dumps(evaluation.summary["pieces"]))
    assert last["pairs"]["means"] == json.loads(json.dumps(evaluation.summary["means"]))
    assert "pieces" not in last["pairs"]
    assert (last["folders"], last["page"]) == (None, None)


def test_unusable_pairs_are_reported_and_others_measured(
    run: Run, pieces: Path, model_file: Path, tmp_path: Path, play: Callable[..., Any]
) -> None:
    good = soundfile.read(pieces / "source" / "p0.wav", always_2d=True)[0].T
    expected = soundfile.read(pieces / "reference" / "p0.wav", always_2d=True)[0].T
    for name, source, reference in (
        ("good", good, expected),
        ("alone", good, None),
        ("other", good, play(2.4, RATE, formant_hz=600.0, seed=77)),
        ("same", good, good),
        ("short", good[:, :1_000], expected),
        ("silent", good, 0 * expected),
    ):
        write(tmp_path / "s" / f"{name}.wav", source)
        if reference is not None:
            write(tmp_path / "r" / f"{name}.wav", reference)
    write(tmp_path / "s" / "text.wav", good)
    (tmp_path / "r" / "text.wav").write_text("no audio")
    ran = run("evaluate", "--pairs", tmp_path / "s", tmp_path / "r", "-m", model_file)
    assert ran.code == 1
    messages = ran.err.splitlines()
    for name, message in (
        ("alone", "has no partner"),
        ("other", "check that both play the same piece"),
        ("same", "are the same recording"),
        ("short", "lasts 0.045 s"),
        ("silent", "is silent"),
        ("text", "is not audio"),
    ):
        assert sum(f"{name}.wav" in line and message in line for line in messages) == 1, name
    assert messages[-1] == "tonewood: 6 of 7 failed, 1 done"
    assert "untouched" in ran.out
    (tmp_path / "s" / "good.wav").unlink()
    (tmp_path / "r" / "good.wav").unlink()
    ran = run("evaluate", "--pairs", tmp_path / "s", tmp_path / "r", "-m", model_file)
    assert (ran.code, ran.out) == (1, "")
    assert "no pair could be measured" in ran.err


def test_table_defines_pairs(run: Run, pieces: Path, model_file: Path, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("source,reference,source_s,reference_s\np2.wav,p2.wav,1.2,2.2\np2.wav,none.wav,,\n")
    pairs = ("--pairs", pieces / "source", pieces / "reference")
    ran = run("evaluate", *pairs, "--table", table, "-m", model_file, "--json")
    assert ran.code == 1
    first, second, _ = ran.objects
    assert first["piece"] == "p2.wav"
    assert "does not exist" in second["error"]
    table.write_text("source,reference\na.wav\n")
    ran = run("evaluate", *pairs, "--table", table, "-m", model_file)
    assert (ran.code, "line 2" in ran.err) == (2, True)


def test_folders_need_no_pairs(
    model: Model, training_folders: Any, tmp_path: Path, play: Callable[..., Any]
) -> None:
    """The source is far from the reference, and other takes of the reference are near."""
    reference = training_folders.reference
    for take in range(8):
        write(tmp_path / f"{take}.wav", play(6.0, 16_000, formant_hz=600.0, seed=60 + take), 16_000)
    *progress, far = compare_folder_sound(training_folders.source, reference, model)
    *_, near = compare_folder_sound(tmp_path, reference, model, seed=1)
    assert isinstance(far, FolderComparison)
    assert isinstance(near, FolderComparison)
    assert len(progress) == 8
    for kind in ("scorer", "mel"):
        distant, close = getattr(far, kind), getattr(near, kind)
        assert distant.distance > 4 * distant.error
        assert distant.distance > 5 * abs(close.distance)


def test_folders_need_enough_audio(
    run: Run, model_file: Path, training_folders: Any, tmp_path: Path, play: Callable[..., Any]
) -> None:
    write(tmp_path / "a.wav", play(4.0))
    (tmp_path / "b.wav").write_text("no audio")
    ran = run("evaluate", "--folders", tmp_path, training_folders.reference, "-m", model_file)
    assert ran.code == 1
    assert "b.wav is not audio" in ran.err
    assert "has 1 stretches of up to 10 s; a Fréchet distance needs 6" in ran.err


def test_wrong_options_are_refused_before_the_work(
    run: Run, pieces: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = ("--pairs", pieces / "source", pieces / "reference")
    assert run("evaluate", "-m", model_file).code == 2
    folders = ("--folders", tmp_path, tmp_path)
    assert run("evaluate", *folders, "--table", tmp_path / "x.csv", "-m", model_file).code == 2
    assert run("evaluate", *pairs, "-m", model_file, "--seed", -1).code == 2
    assert run("evaluate", *pairs, "-m", tmp_path / "none").code == 1
    assert run("evaluate", "--pairs", tmp_path / "none", tmp_path, "-m", model_file).code == 1
    (tmp_path / "file").write_bytes(b"mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        ran = run("evaluate", *pairs, "-m", model_file, "-o", out)
        assert (ran.code, ran.out) == (1, "")
    monkeypatch.setitem(sys.modules, "synctoolbox.dtw.mrmsdtw", None)
    ran = run("evaluate", *pairs, "-m", model_file)
    expected = "tonewood: aligning pairs needs synctoolbox: pip install '.[align]'\n"
    assert (ran.code, ran.err) == (1, expected)


def test_progress_shows_methods_and_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with PairsDisplay(MeasureTask()) as display:
        display.show(MeasureProgress(3, 12, "static"))
        display.show(FileStarted(2, 4, Path("a.wav")))
        assert display.progress is not None
        pairs, files = display.progress.tasks
    assert (pairs.completed, pairs.total, pairs.fields["note"]) == (2, 12, "static")
    assert (files.completed, files.total, files.fields["note"]) == (1, 4, "a.wav")
    assert "methods" in capsys.readouterr().err


@pytest.mark.parametrize("corpus", ["real_cello", "soundfont_cello_mit"])
def test_exact_pairs_of_the_corpora_are_detected(corpora: Path, corpus: str) -> None:
    test = corpora / corpus / "test"
    for files in pairs_by_name(test / "cheap", test / "good"):
        assert isinstance(files, PairFiles)
        source, reference = (to_mono_16k(side.samples, side.rate) for side in files.read())
        alignment = align_recordings(source, reference)
        assert alignment.exact
        assert alignment.quality.problem is None


def test_corpus_folders_are_ranked(corpora: Path, tmp_path: Path) -> None:
    """Source, then the source enhanced, then other takes of the reference itself."""
    root = corpora / "real_cello"
    cello = load_model("cello")
    learnt = sorted((root / "train" / "good").iterdir())[:12]
    for path in learnt:
        (tmp_path / "good").mkdir(exist_ok=True)
        (tmp_path / "good" / path.name).symlink_to(path)
    (tmp_path / "cheap").mkdir()
    for path in sorted((root / "test" / "cheap").iterdir())[::2]:
        (tmp_path / "cheap" / path.name).symlink_to(path)
    jobs = plan_jobs([tmp_path / "cheap"], tmp_path / "enhanced")
    task = EnhanceTask(EnhanceSettings().replace(force=True, certificate=dict(control_steps=0)))
    outputs = [event for event in run_batch(jobs, task, cello) if isinstance(event, FileEnhanced)]
    assert len(outputs) == len(jobs)
    comparisons = []
    for folder in (tmp_path / "cheap", tmp_path / "enhanced", root / "test" / "good"):
        *_, last = compare_folder_sound(folder, tmp_path / "good", cello)
        assert isinstance(last, FolderComparison)
        comparisons.append(last)
    for kind in ("scorer", "mel"):
        source, enhanced, reference = (getattr(item, kind).distance for item in comparisons)
        assert source > 3 * enhanced
        assert enhanced > reference - getattr(comparisons[2], kind).error
        assert abs(reference) < 0.1 * source
