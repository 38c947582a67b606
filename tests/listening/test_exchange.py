"""To webMUSHRA and ReSEval and back; the schemas are what their own code reads."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import yaml
from pydantic import BaseModel, ConfigDict

from tonewood.errors import CallError, FolderError, OutputError
from tonewood.listening import exchange
from tonewood.listening.answers import Answers
from tonewood.listening.design import ANSWERS, Test
from tonewood.listening.results import results

Made = tuple[Test, Path]
Copied = Callable[[str], Made]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Top(Strict):
    """What webMUSHRA's documentation for experimenters names at the top level."""

    testname: str
    testId: str  # noqa: N815
    bufferSize: int  # noqa: N815
    stopOnErrors: bool  # noqa: N815
    showButtonPreviousPage: bool  # noqa: N815
    remoteService: str  # noqa: N815
    pages: list[Any]


class Page(Strict):
    type: str
    id: str
    name: str
    content: str


class Consent(Page):
    mustConsent: bool  # noqa: N815


class Mushra(Page):
    showWaveform: bool  # noqa: N815
    enableLooping: bool  # noqa: N815
    reference: str
    createAnchor35: bool  # noqa: N815
    createAnchor70: bool  # noqa: N815
    stimuli: dict[str, str]


class PairedComparison(Page):
    showWaveform: bool  # noqa: N815
    enableLooping: bool  # noqa: N815
    reference: str
    stimuli: dict[str, str]


class Answer(Strict):
    value: str
    label: str


class LikertMultiStimulus(Page):
    mustRate: bool  # noqa: N815
    stimuli: dict[str, str]
    response: list[Answer]


class Finish(Strict):
    type: str
    name: str
    content: str
    showResults: bool  # noqa: N815
    writeResults: bool  # noqa: N815


SCHEMA: dict[str, type[Strict]] = {
    "consent": Consent,
    "mushra": Mushra,
    "paired_comparison": PairedComparison,
    "likert_multi_stimulus": LikertMultiStimulus,
    "finish": Finish,
}


@pytest.mark.parametrize("kind", ["pairs", "abx", "mushra"])
def test_webmushras_schema_accepts_ours(made: dict[str, Made], tmp_path: Path, kind: str) -> None:
    test, folder = made[kind]
    path = exchange.export(test, folder, "webmushra", tmp_path / "Our Test")
    assert path == tmp_path / "Our Test" / "configs" / "our-test.yaml"
    config = Top.model_validate(yaml.safe_load(path.read_text()))
    assert config.bufferSize in (256, 512, 1024, 2048, 4096, 8192, 16384)
    first, (random, *trials), last = config.pages
    assert (first["type"], random, last["type"]) == ("consent", "random", "finish")
    pages = [SCHEMA[page["type"]].model_validate(page) for page in (first, *trials, last)]
    assert len(pages) == len(test.trials) + 2
    for page in trials:
        files = [*page["stimuli"].values(), *([page["reference"]] if "reference" in page else [])]
        infos = [soundfile.info(tmp_path / "Our Test" / file) for file in files]
        # Its MushraValidator: at most 12 conditions and 12 s, all alike in rate, length, channels.
        assert len(page["stimuli"]) <= 12
        assert all(it.duration <= 12 for it in infos)
        assert len({(it.samplerate, it.frames, it.channels) for it in infos}) == 1
        assert not any(name in str(page) for name in ("plain", "odd", "piece"))
    with pytest.raises(OutputError, match="exists"):
        exchange.export(test, folder, "webmushra", tmp_path / "Our Test")
    with pytest.raises(CallError, match="choose webmushra or reseval"):
        exchange.export(test, folder, "other", tmp_path / "x")


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_mushra_comes_back_from_webmushra(copied: Copied, tmp_path: Path) -> None:
    test, folder = copied("mushra")
    score = {"reference": 96, "C02": 40, "C03": 70, "C04": 20, "C05": 50}
    rows = [
        {"session_test_id": "t", "session_uuid": who, "trial_id": f"t{k}", "rating_stimulus": key,
         "rating_score": value, "rating_time": 2500, "rating_comment": ""}
        for who in ("u1", "u2") for k in range(len(test.trials)) for key, value in score.items()
    ]  # fmt: skip
    path = table(tmp_path / "mushra.csv", rows)
    answers = Answers(folder / ANSWERS)
    taken = exchange.take(test, answers, "webmushra", path)
    assert taken == (2, 2 * len(test.trials))
    assert exchange.take(test, answers, "webmushra", path) == (0, 0)  # known already
    found = results(test, answers)
    assert [it.name for it in found.people] == ["I2", "I1"]
    assert found.ratings is not None
    wanted = {name: score.get(f"C{k:02d}", 96) for k, name in enumerate(test.conditions, start=1)}
    assert {
        name: it.median
        for name, it in zip(found.ratings.conditions, found.ratings.medians, strict=True)
    } == wanted
    assert not any(b"u1" in p.read_bytes() for p in folder.glob("answers.sqlite*"))
    assert answers.join("yes").number == 0


def test_choices_come_back_from_webmushra(copied: Copied, tmp_path: Path) -> None:
    test, folder = copied("abx")
    rows = [
        {"session_test_id": "t", "trial_id": f"t{k}", "choice_reference": "reference",
         "choice_non_reference": "C02", "choice_answer": "incorrect" if k == 0 else "correct",
         "choice_time": 900, "choice_comment": ""}
        for _ in range(3) for k in range(len(test.trials))
    ]  # fmt: skip
    answers = Answers(folder / ANSWERS)
    path = table(tmp_path / "paired_comparison.csv", rows)
    assert exchange.take(test, answers, "webmushra", path) == (3, 3 * len(test.trials))
    (pair,) = results(test, answers).pairs
    assert (pair.answers.successes, pair.answers.total) == (9, 12)

    test, folder = copied("pairs")
    rows = [
        {"session_test_id": "t", "trial_id": f"t{k}", "stimuli_rating": f" {value} ",
         "stimuli": key, "rating_time": 1}
        for k in range(len(test.trials))
        for key, value in (("C02", 4), ("C01", 4 if k == 1 else 2))
    ]  # fmt: skip
    answers = Answers(folder / ANSWERS)
    exchange.take(test, answers, "webmushra", table(tmp_path / "lms.csv", rows))
    (pair,) = results(test, answers).pairs
    assert (pair.answers.successes, pair.answers.total) == (0, 3)  # a tie prefers neither


@pytest.mark.parametrize("kind", ["pairs", "abx", "mushra"])
def test_resevals_folders_and_responses(copied: Copied, tmp_path: Path, kind: str) -> None:
    test, folder = copied(kind)
    out = exchange.export(test, folder, "reseval", tmp_path / "out")
    (own,) = (path for path in out.iterdir() if path.is_dir())
    conditions = sorted(path.name for path in own.iterdir())
    stems = {name: sorted(it.stem for it in (own / name).iterdir()) for name in conditions}
    assert all(it == [f"t{k}" for k in range(len(test.trials))] for it in stems.values())
    assert ("reference" in conditions) == (kind == "abx")
    keys = [f"C{k:02d}" for k in range(1, len(test.conditions) + 1)]
    assert [name for name in conditions if name != "reference"] == keys
    answers = Answers(folder / ANSWERS)
    said = "C02" if kind != "mushra" else "095030060020050"
    rows = [
        {"Stem": f"t{k}", "Participant": "p", "OrderAsked": k, "Response": said}
        for k in range(len(test.trials))
    ]
    assert exchange.take(test, answers, "reseval", table(tmp_path / "responses.csv", rows))[0] == 1
    found = results(test, answers)
    if kind == "pairs":
        assert found.pairs[0].answers.successes == 0
    elif kind == "abx":
        # X is what lies in the reference's folder: right is who names it.
        right = sum(
            (own / "reference" / f"t{k}.wav").read_bytes()
            == (folder / "stimuli" / test.files()[it.excerpt, "odd", 1]).read_bytes()
            for k, it in enumerate(test.trials)
        )
        assert found.pairs[0].answers.successes == right
    else:
        assert found.ratings is not None
        assert [it.median for it in found.ratings.medians] == [95, 30, 60, 20, 50]


def test_tables_of_another_test_are_refused(copied: Copied, tmp_path: Path) -> None:
    test, folder = copied("pairs")
    answers = Answers(folder / ANSWERS)
    good = {"Stem": "t0", "Participant": "p", "Response": "C01"}
    for change, why in (
        ({"Stem": "t99"}, "line 2: 't99' is no trial"),
        ({"Response": "C07"}, "no condition of trial t0"),
    ):
        path = table(tmp_path / "r.csv", [{**good, **change}])
        with pytest.raises(FolderError, match=why):
            exchange.take(test, answers, "reseval", path)
    with pytest.raises(FolderError, match="has no column Stem"):
        exchange.take(test, answers, "reseval", table(tmp_path / "r.csv", [{"a": 1}]))
    with pytest.raises(CallError, match="cannot be read"):
        exchange.take(test, answers, "reseval", tmp_path / "none.csv")
    assert not answers.listeners()
