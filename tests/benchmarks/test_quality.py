"""Short share of the quality benchmark: its table, on a corpus with a known answer."""

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from scipy.signal import lfilter

from campaigns.harness.training import TINY_TRAINING, set_options

RATE = 16_000
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "quality.py"
ROWS = ("untouched", "static", "matchering", "best-mask", "reference")


def notes(seconds: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Harmonic notes of half a second over a soft noise."""
    time = np.arange(RATE // 2) / RATE
    parts = []
    for pitch in rng.integers(36, 60, round(2 * seconds)):
        hz = 440 * 2 ** ((pitch - 69) / 12)
        tone = sum(np.sin(2 * np.pi * k * hz * time) / k for k in range(1, int(7500 / hz)))
        parts.append(tone * np.exp(-3 * time))
    wave = np.concatenate(parts)
    return 0.1 * wave + 0.003 * rng.standard_normal(len(wave))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a corpus whose source is the reference through a fixed filter, so a static EQ suffices."""
    root = tmp_path_factory.mktemp("corpora") / "filtered"
    rng = np.random.default_rng(5)
    for split, names, seconds in (("train", "ab", 31.0), ("test", "xy", 4.0)):
        for side in ("good", "cheap"):
            (root / split / side).mkdir(parents=True)
        for name in names:
            wave = notes(seconds, rng)
            other = wave if split == "test" else notes(seconds, rng)
            soundfile.write(root / split / "good" / f"{name}.wav", wave, RATE)
            filtered = lfilter([1.0], [1.0, -0.9], other) / 4
            soundfile.write(root / split / "cheap" / f"{name}.wav", filtered, RATE)
    return root


def run_script(*arguments: object) -> tuple[int, str]:
    """Run the benchmark in this process; return its exit code and what it prints."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        patch.setenv("TONEWOOD_MATCHERING", "")
        patch.syspath_prepend(SCRIPT.parent)
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()
    return 0, printed.getvalue()


@pytest.fixture(scope="module")
def report(corpus: Path) -> tuple[Path, dict[str, Any], str]:
    page = corpus.parent / "docs" / "quality.md"
    page.parent.mkdir()
    page.write_text("# By hand\n\n<!-- quality:begin -->\nold\n<!-- quality:end -->\n\nkept\n")
    small = set_options(*TINY_TRAINING, "training.steps=4")
    models = "--models", corpus.parent / "models"
    code, printed = run_script(corpus, "--quick", "--rows", *ROWS, *small, "--docs", page, *models)
    assert code == 0
    result = json.loads(page.with_suffix(".json").read_text())["filtered"]
    return page, result, printed


def test_rows_measure_the_known_answer(report: tuple[Path, dict[str, Any], str]) -> None:
    rows = report[1]["rows"]
    assert tuple(rows) == ROWS
    closed = {name: row["seeds"][0]["closed"] for name, row in rows.items() if "seeds" in row}
    assert closed["untouched"] == 0
    assert closed["reference"] == 100
    assert 60 < closed["static"] < closed["reference"]
    assert 60 < closed["best-mask"] < closed["reference"]
    static = rows["static"]["seeds"][0]
    assert static["long_term"] < 0.4 * rows["untouched"]["seeds"][0]["long_term"]
    assert static["roughness_db"] < 1
    assert set(static["pieces"]) == {"x", "y"}


def test_unavailable_row_is_reported(report: tuple[Path, dict[str, Any], str]) -> None:
    assert "TONEWOOD_MATCHERING" in report[1]["rows"]["matchering"]["skipped"]
    assert "skipped: TONEWOOD_MATCHERING" in report[2]


def test_page_keeps_handwritten_text(report: tuple[Path, dict[str, Any], str]) -> None:
    page, _, printed = report
    text = page.read_text()
    assert text.startswith("# By hand")
    assert text.endswith("kept\n")
    assert "\nold\n" not in text
    assert "| static match EQ |" in text
    assert "![" in text
    assert (page.parent / "images" / "quality-filtered.png").stat().st_size > 5_000
    assert "static match EQ" in printed


def test_second_run_loads_the_model_and_keeps_other_rows(
    report: tuple[Path, dict[str, Any], str], corpus: Path
) -> None:
    page, first, _ = report
    [path] = (corpus.parent / "models").iterdir()
    before = path.stat().st_mtime_ns
    small = set_options(*TINY_TRAINING, "training.steps=4")
    call = (
        corpus,
        "--quick",
        "--rows",
        "tonewood-no-search",
        *small,
        "--docs",
        page,
        "--models",
        path.parent,
    )
    assert run_script(*call)[0] == 0
    assert [(path, before)] == [(each, each.stat().st_mtime_ns) for each in path.parent.iterdir()]
    rows = json.loads(page.with_suffix(".json").read_text())["filtered"]["rows"]
    assert rows["tonewood-no-search"]["seeds"][0]["training_seconds"] is None
    assert rows["static"] == {**first["rows"]["static"], "date": first["date"]}
    assert f"| static match EQ ({first['date']}) |" in page.read_text()


def test_every_row_has_valid_settings() -> None:
    code, printed = run_script("--list")
    assert code == 0
    names = {line.split()[0] for line in printed.splitlines()}
    assert {"tonewood", "cyclegan", "supervised", *ROWS} <= names
