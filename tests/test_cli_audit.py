"""`tonewood audit`, and the audit that `train` makes, as scripts and people call them."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from campaigns.harness.training import TINY_TRAINING, set_options
from tonewood.audit.pipeline import CONFOUNDS
from tonewood.model.card import ConfoundAudit
from tonewood.model.model import Model, load_model

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory, play: Callable[..., Any]) -> tuple[Path, Path]:
    """One instrument in two folders of twelve short takes; a hiss in the source."""
    root = tmp_path_factory.mktemp("sides")
    for number, side in enumerate(("reference", "<source>")):
        (root / side).mkdir()
        for seed in range(12):
            wave = play(6.0, seed=100 * number + seed)
            gap = np.arange(wave.shape[1]) % 32_000 > 24_000
            rng = np.random.default_rng(seed)
            wave = np.where(gap, 0, wave) + (1e-4, 1e-3)[number] * rng.standard_normal(wave.shape)
            soundfile.write(root / side / f"{seed}.wav", wave.T, 16_000)
    return root / "reference", root / "<source>"


@pytest.fixture
def call(sides: tuple[Path, Path]) -> list[object]:
    return ["audit", "--reference", sides[0], "--source", sides[1]]


def test_json_is_one_object_with_every_finding(run: Run, call: list[object]) -> None:
    ran = run(*call, "--json")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    (line,) = ran.objects
    assert line["verdict"] == "confounded"
    assert line["recordings"] == [12, 12]
    assert [finding["name"] for finding in line["findings"]] == [c.name for c in CONFOUNDS]
    floor = next(f for f in line["findings"] if f["name"] == "noise floor")
    assert floor["verdict"] == "confounded"
    assert 0.8 <= floor["accuracy"]["low"] <= floor["accuracy"]["mean"] <= 1
    assert floor["source"][0] - floor["reference"][0] == pytest.approx(20, abs=3)
    assert line["page"] is None
    assert line["scorer"] is None


def test_text_output_has_a_line_per_confound(run: Run, call: list[object]) -> None:
    ran = run(*call)
    assert ran.code == 0, ran.err
    for confound in CONFOUNDS:
        assert re.search(rf"^(fine|beware|confounded|untested) +{confound.name} ", ran.out, re.M)
    for unit in ("LUFS", "dB", "s / s / % / %", "Hz", "per min"):
        assert re.search(rf" \| [-\d. /]+ {unit}$", ran.out, re.M), unit
    assert "train with --fix noise" in ran.out
    assert re.search(r"^in all +confounded: noise floor", ran.out, re.M)


def test_page_contains_verdicts_and_figures(
    run: Run, call: list[object], tmp_path: Path, model_file: Path
) -> None:
    path = tmp_path / "report.html"
    ran = run(*call, "-o", path, "-m", model_file)
    assert ran.code == 0, ran.err
    page = path.read_text()
    assert "Verdict: confounded." in page
    assert "<source>" not in page
    assert "&lt;source&gt;" in page
    assert page.count("<img ") >= 2
    assert "held-out windows" in page
    assert "What the audit does not test" in page
    assert list(tmp_path.iterdir()) == [path]
    assert run(*call, "-o", path).code == 1
    assert run(*call, "-o", path, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("report.txt", 2, "is not an HTML file: end the name in .html"),
        ("file/report.html", 1, "file is a file): name another output folder"),
        ("", 2, "is not an HTML file"),
    ],
)
def test_unwritable_page_is_refused_before_the_audit(
    run: Run, call: list[object], tmp_path: Path, name: str, code: int, message: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    ran = run(*call, "-o", tmp_path / name)
    assert ran.code == code
    assert message in ran.err
    assert ran.out == ""


def test_missing_matplotlib_is_one_line(
    run: Run, call: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = run(*call, "-o", tmp_path / "report.html")
    assert (ran.code, ran.out) == (1, "")
    assert "pip install '.[plot]'" in ran.err


def test_unusable_folders_are_refused(run: Run, sides: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.wav").write_text("no sound")
    (tmp_path / "still").mkdir()
    soundfile.write(tmp_path / "still" / "a.wav", np.zeros(16_000), 16_000)
    for name in ("absent", "empty", "text", "still"):
        ran = run("audit", "--reference", sides[0], "--source", tmp_path / name)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.count("\n") == 1
        assert str(tmp_path / name) in ran.err
    assert run("audit", "--reference", sides[0], "--source", sides[0]).code == 2
    assert run("audit", "--reference", sides[0]).code == 2


def test_few_recordings_are_untested(run: Run, training_folders: Any) -> None:
    ran = run("audit", "--reference", training_folders.reference, "--source", training_folders.source)
    assert ran.code == 0, ran.err
    assert "untested: 4 recordings on one side; each side needs 5" in ran.out
    assert re.search(r"^session +day0 \(reference\), left out", ran.out, re.M)


@pytest.fixture
def learn(sides: tuple[Path, Path]) -> list[object]:
    words = set_options(*TINY_TRAINING, "training.steps=2", "training.check_every=1")
    return ["train", "--reference", sides[0], "--source", sides[1], "--no-judge", *words]


def test_train_warns_and_stores_the_audit(run: Run, learn: list[object], tmp_path: Path) -> None:
    path = tmp_path / "mine.tonewood"
    ran = run(*learn, "-o", path, "--json")
    assert ran.code == 0, ran.err
    assert "warning: confounded: noise floor alone identifies the folder of 100 %" in ran.err
    audit = load_model(path).card.audit
    assert audit is not None
    assert audit.verdict == "confounded"
    assert ConfoundAudit.model_validate(ran.objects[0]["card"]["audit"]) == audit
    info = run("info", path).out
    assert re.search(r"^audit +confounded: noise floor", info, re.M)


def test_train_fix_removes_the_confound(run: Run, learn: list[object], tmp_path: Path) -> None:
    path = tmp_path / "mine.tonewood"
    ran = run(*learn, "-o", path, "--fix", "noise,level")
    assert ran.code == 0, ran.err
    assert "noise floor" not in ran.err
    model = load_model(path)
    assert model.settings.training.fix == ("noise", "level")
    assert model.card.fix is not None
    assert model.card.fix.cutoff_hz is None
    assert model.card.fix.floor_bands_db is not None
    assert model.card.audit is not None
    assert "noise floor" not in model.card.audit.names_with_verdict("confounded")
    assert re.search(r"^ +normalized: noise, level$", run("info", path).out, re.M)


def test_unknown_fix_is_refused(run: Run, learn: list[object], tmp_path: Path) -> None:
    for fix in ("room", "level,bandwidth,noise,room"):
        ran = run(*learn, "-o", tmp_path / "mine.tonewood", "--fix", fix)
        assert ran.code == 2
        assert ran.err.startswith("tonewood: --fix is 'room': ")
        assert not list(tmp_path.iterdir())


def test_model_without_audit_shows_none(run: Run, model: Model, tmp_path: Path) -> None:
    path = tmp_path / "plain.tonewood"
    replace(model, card=model.card.model_copy(update={"audit": None})).save(path)
    assert "\naudit " not in run("info", path).out
    assert "\naudit " in run("info", "cello").out


def test_audit_of_bad_recordings_alone_is_one_line(run: Run, tmp_path: Path) -> None:
    for side in ("reference", "source"):
        (tmp_path / side).mkdir()
        (tmp_path / side / f"{side}.wav").write_bytes(b"RIFF")
    call = ("audit", "--reference", tmp_path / "reference", "--source", tmp_path / "source")
    assert run(*call).err.startswith("tonewood: 2 recordings cannot be used; repair or remove them, or pass")
    ran = run(*call, "--skip-bad")
    reason = "every recording of the reference was left out: add some that can be used"
    assert (ran.code, ran.err) == (1, f"tonewood: {reason}\n")
