"""`tonewood search`: JSON, text and errors."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tonewood.cli.progress import SearchDisplay
from tonewood.research import architecture_search
from tonewood.research.architecture_search import SIZES, SizeProgress, SizeResult
from tonewood.scorer.training import ValidationCheck

Run = Callable[..., Any]
BRIEF = {
    "training.steps": 2,
    "training.check_every": 1,
    "training.batch": 2,
    "training.held_out": 0.25,
    "scorer.crop_seconds": 0.5,
}
SET = [word for name, value in BRIEF.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture
def call(training_folders: Any) -> list[object]:
    sides = ("--reference", training_folders.reference, "--source", training_folders.source)
    return ["search", *sides, *SET]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sizes instead of all."""
    real = architecture_search.search_sizes

    def few(*arguments: Any, **more: Any) -> Iterator[Any]:
        return real(*arguments, sizes=SIZES[:2], **more)

    monkeypatch.setattr(architecture_search, "search_sizes", few)


def test_help_names_every_option(run: Run) -> None:
    ran = run("search", "--help")
    assert ran.code == 0
    for option in ("--reference", "--source", "-o", "--seed", "--device", "--set", "--json"):
        assert re.search(rf"(?<![\w-]){option}\b", ran.out), option


def test_json_contains_all_sizes(run: Run, call: list[object], tmp_path: Path) -> None:
    picture = tmp_path / "ladder.png"
    ran = run(*call, "-o", picture, "--json")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    (line,) = ran.objects
    assert [(rung["width"], rung["depth"]) for rung in line["rungs"]] == [tuple(s) for s in SIZES]
    for rung in line["rungs"]:
        assert len(rung["accuracies"]) == len(rung["losses"]) == 3
        assert rung["accuracy"]["mean"] == pytest.approx(sum(rung["accuracies"]) / 3)
        assert rung["loss"]["mean"] == pytest.approx(sum(rung["losses"]) / 3)
    chosen = line["chosen"]
    assert (chosen["width"], chosen["depth"]) in SIZES
    assert line["options"] == (f"--set scorer.width={chosen['width']} --set scorer.depth={chosen['depth']}")
    assert line["picture"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [picture]


@pytest.mark.usefixtures("short")
def test_text_contains_a_table_and_options_for_train(
    run: Run, call: list[object], training_folders: Any, tmp_path: Path
) -> None:
    ran = run(*call)
    assert ran.code == 0, ran.err
    head, *rows, last = ran.out.splitlines()
    assert head.split() == ["width", "depth", "parameters", "accuracy,", "%", "loss"]
    assert [row.split()[:3] for row in rows] == [["12", "1", "325"], ["6", "2", "829"]]
    (line,) = run(*call, "--json").objects
    for name in ("chosen", "knee"):
        (marked,) = [row.split() for row in rows if name in row]
        assert marked[:2] == [str(line[name]["width"]), str(line[name]["depth"])]
    options = last.partition(": ")[2].split()
    # What it names, train takes: here only up to the reason why this output cannot be.
    sides = ("--reference", training_folders.reference, "--source", training_folders.source)
    ran = run("train", *sides, *options, "-o", tmp_path)
    assert ran.code == 1
    assert "is a folder, not a file" in ran.err


@pytest.mark.usefixtures("short")
def test_seed_determines_the_result_and_counts_up(run: Run, call: list[object]) -> None:
    first, same, next_ = (run(*call, "--seed", n, "--json").objects[0] for n in (0, 0, 1))
    losses, again, shifted = ([r["losses"] for r in x["rungs"]] for x in (first, same, next_))
    assert losses == again
    # Seeds 0, 1, 2 and 1, 2, 3 share two trials.
    assert [r[1:] for r in losses] == [r[:2] for r in shifted]
    assert [r[0] for r in losses] != [r[0] for r in shifted]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ladder.jpg", "is not a PNG file: end the name in .png"),
        ("there.png", "exists: name another output or pass --overwrite"),
        ("there.png/ladder.png", "there.png is a file): name another output folder"),
    ],
)
def test_invalid_picture_is_rejected_before_the_work(
    run: Run, call: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(architecture_search, "search_sizes", None)
    (tmp_path / "there.png").write_bytes(b"mine")
    ran = run(*call, "-o", tmp_path / name)
    assert ran.code == (2 if "jpg" in name else 1)
    assert message in ran.err
    assert (tmp_path / "there.png").read_bytes() == b"mine"


@pytest.mark.usefixtures("short")
def test_overwrite_replaces_the_picture(run: Run, call: list[object], tmp_path: Path) -> None:
    path = tmp_path / "there.png"
    path.write_bytes(b"mine")
    assert run(*call, "-o", path, "--overwrite").code == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_invalid_calls_are_rejected(run: Run, call: list[object], training_folders: Any) -> None:
    same = ["--reference", training_folders.source]
    assert "as both folders" in run(*call, *same).err
    assert run(*call, *same).code == 2
    assert run(*call, "--set", "scorer.wide=3").code == 2
    assert run(*call, "--device", "gpu").code == 2


def test_progress_shows_sizes_and_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    rung = SizeResult(SIZES[0], 325, (1.0, 1.0), (0.0, 0.0), 352, 0.1)
    with SearchDisplay() as display:
        display.show(SizeProgress(SIZES[0], 1, 2, 1, 3, ValidationCheck(10, 40, 0.2, 0.75, 0.2)))
        display.show(rung)
        display.show(SizeProgress(SIZES[1], 2, 2, 1, 3, ValidationCheck(10, 40, 0.2, 0.875, 0.2)))
        assert display.progress is not None
        sizes, steps = display.progress.tasks
    assert (sizes.completed, sizes.total) == (1, 2)
    assert sizes.fields["note"] == "width 6, depth 2, trial 1"
    assert (steps.completed, steps.total) == (10, 40)
    assert steps.fields["note"] == "held-out accuracy 87.5 %"
    assert "sizes" in capsys.readouterr().err
