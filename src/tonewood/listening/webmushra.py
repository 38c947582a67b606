"""To and from webMUSHRA: its configuration and stimuli, and the CSV that it writes."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from tonewood.errors import FolderError, printable
from tonewood.files.tables import read_csv_rows
from tonewood.listening.design import CONSENT_FILE, STIMULI_FOLDER, ListeningTest
from tonewood.listening.foreign import ImportedAnswer, choice_answer, condition_keys, parse_finite, rating_answer, abx_target, parse_trial
from tonewood.listening.sessions import REFERENCE_LABEL

_LIKERT_SCALE = (("1", "bad"), ("2", "poor"), ("3", "fair"), ("4", "good"), ("5", "excellent"))
_WEBMUSHRA_COLUMNS = {
    "mushra": ("trial_id", "rating_stimulus", "rating_score"),
    "abx": ("trial_id", "choice_non_reference", "choice_answer"),
    "pairs": ("trial_id", "stimuli", "stimuli_rating"),
}


def write_webmushra_test(test: ListeningTest, folder: Path, out: Path, name: str) -> Path:
    """Files below webMUSHRA's own root; the configuration asks nobody for a name."""
    sounds = f"configs/resources/audio/{name}"
    shutil.copytree(folder / STIMULI_FOLDER, out / sounds)
    files = {key: f"{sounds}/{file}" for key, file in test.file_by_condition().items()}
    consent = (folder / CONSENT_FILE).read_text(encoding="utf-8").strip()
    told = "".join(f"<p>{escape(part)}</p>" for part in consent.split("\n\n"))
    config = {
        "testname": test.title,
        "testId": name,
        "bufferSize": 2048,
        "stopOnErrors": True,
        "showButtonPreviousPage": False,
        "remoteService": "service/write.php",
        "pages": [
            {"type": "consent", "id": "consent", "name": "Before you begin", "mustConsent": True,
             "content": told},
            ["random", *(_webmushra_page(test, k, files) for k in range(len(test.trials)))],
            {"type": "finish", "name": "Thank you", "content": "All your answers are sent.",
             "showResults": False, "writeResults": True},
        ],
    }  # fmt: skip
    path = out / "configs" / f"{name}.yaml"
    path.write_text("\n".join(_yaml_lines(config)) + "\n", encoding="utf-8")
    return path


def _webmushra_page(test: ListeningTest, trial: int, files: dict[tuple[int, str, int], str]) -> dict[str, Any]:
    asked, named = test.trials[trial], condition_keys(test)
    page = {"id": f"t{trial}", "name": test.title, "content": f"<p>{escape(test.question)}</p>"}
    sounds = {named[name]: files[asked.excerpt, name, 0] for name in asked.conditions}
    looped = {"showWaveform": False, "enableLooping": True}
    if test.kind == "mushra":
        assert test.reference is not None
        del sounds[named[test.reference]]  # webMUSHRA hides the reference among them by itself
        reference = files[asked.excerpt, test.reference, 0]
        made = {"createAnchor35": False, "createAnchor70": False, "stimuli": sounds}
        return {"type": "mushra", **page, **looped, "reference": reference, **made}
    if test.kind == "abx":
        reference = sounds.pop(named[abx_target(test, trial)])
        compared = {"reference": reference, "stimuli": sounds}
        return {"type": "paired_comparison", **page, **looped, **compared}
    return {
        "type": "likert_multi_stimulus", **page, "mustRate": True, "stimuli": sounds,
        "response": [{"value": value, "label": label} for value, label in _LIKERT_SCALE],
    }  # fmt: skip


def _yaml_lines(value: Any) -> Iterator[str]:  # noqa: ANN401
    """Lines of YAML in block style, every scalar as JSON.

    webMUSHRA's own reader takes no list and no map in brackets that goes over several lines.
    """
    pairs = value.items() if isinstance(value, dict) else ((None, it) for it in value)
    for key, own in pairs:
        head = "-" if key is None else f"{key}:"
        if not isinstance(own, dict | list):
            yield f"{head} {json.dumps(own, ensure_ascii=False)}"
            continue
        yield head
        yield from (f"  {line}" for line in _yaml_lines(own))


class _TableLine(NamedTuple):
    """One line of a table: where it stands, its trial, and what it says of which sound."""

    number: int
    trial: int
    key: str
    answer: str
    row: dict[str, str]

    @property
    def seconds(self) -> float:
        """Time taken, 0 where it is not told."""
        told = self.row.get("rating_time") or self.row.get("choice_time") or "0"
        return max(0.0, (parse_finite(told) or 0.0) / 1000)


def read_webmushra_answers(test: ListeningTest, table: Path) -> Iterator[ImportedAnswer]:
    """Answers of a table that webMUSHRA's service wrote.

    Raises
    ------
    CallError, FolderError
        It cannot be read, or does not fit the test; the line is named.
    """
    for who, lines in _group_by_listener(test, table):
        by_trial: dict[int, list[_TableLine]] = {}
        for line in lines:
            by_trial.setdefault(line.trial, []).append(line)
        answer = _abx_answers if test.kind == "abx" else _rating_answers
        for trial, own in by_trial.items():
            yield from answer(test, table, who, trial, own)


def _group_by_listener(test: ListeningTest, table: Path) -> Iterator[tuple[str, list[_TableLine]]]:
    """Lines of every listener; where nobody is named, a question that returns begins another."""
    wanted = _WEBMUSHRA_COLUMNS[test.kind]
    found: list[tuple[str | None, list[_TableLine]]] = []
    by_name: dict[str, list[_TableLine]] = {}
    met = set[tuple[int, str]]()
    for number, row in read_csv_rows(table, wanted):
        key, said = (row[name].strip() for name in wanted[1:])
        line = _TableLine(number, parse_trial(test, row["trial_id"], table, number), key, said, row)
        name = row.get("session_uuid")
        if name:
            if name not in by_name:
                found.append((name, by_name.setdefault(name, [])))
            by_name[name].append(line)
            continue
        if not met or (line.trial, key) in met:
            found.append((None, []))
            met = set()
        met.add((line.trial, key))
        found[-1][1].append(line)
    for place, (name, lines) in enumerate(found):
        # Nameless answers are known again by where they stand and what they say.
        content = repr([(it.trial, it.key, it.answer, it.seconds) for it in lines])
        yield name or f"{place} {hashlib.sha256(content.encode()).hexdigest()}", lines


def _abx_answers(test: ListeningTest, table: Path, who: str, trial: int, lines: list[_TableLine]) -> Iterator[ImportedAnswer]:
    """Which of two was taken for the reference; who did not say is left out."""
    right, named = abx_target(test, trial), condition_keys(test)
    (other,) = (it for it in test.trials[trial].conditions if it != right)
    for line in lines[-1:]:
        if line.key != named[other] or line.answer not in (
            "correct", "incorrect", "undecided", "unknown",
        ):  # fmt: skip
            raise FolderError(
                f"{printable(table)}, line {line.number}: {printable(line.answer)!r} on {printable(line.key)!r} "
                f"is no answer to trial t{trial}: name this test's results"
            )
        if line.answer in ("correct", "incorrect"):
            taken = right if line.answer == "correct" else other
            yield choice_answer(test, who, trial, taken, line.seconds)


def _rating_answers(test: ListeningTest, table: Path, who: str, trial: int, lines: list[_TableLine]) -> Iterator[ImportedAnswer]:
    """Ratings; of two sounds without a reference, the one that was rated higher."""
    names = {key: name for name, key in condition_keys(test).items()}
    low, high = (0, 100) if test.kind == "mushra" else (1, len(_LIKERT_SCALE))
    if test.reference is not None:
        names[REFERENCE_LABEL] = test.reference
    found: dict[str, float] = {}
    for line in lines:
        value = parse_finite(line.answer)
        if value is None or not low <= value <= high:
            raise FolderError(
                f"{printable(table)}, line {line.number}: {printable(line.answer)!r} is no rating from {low} "
                f"to {high}: mend it"
            )
        found[names.get(line.key, line.key)] = value
    conditions = test.trials[trial].conditions
    if set(found) != set(conditions):
        told = ", ".join(sorted(printable(line.key) for line in lines))
        raise FolderError(
            f"{printable(table)}, line {lines[0].number}: trial t{trial} has ratings of {told}, not of "
            "what this test compares: name this test's results"
        )
    if test.kind == "mushra":
        yield rating_answer(test, who, trial, found, lines[-1].seconds)
        return
    first, second = conditions
    if found[first] != found[second]:  # a tie prefers neither
        better = first if found[first] > found[second] else second
        yield choice_answer(test, who, trial, better, lines[-1].seconds)
