"""Export of listening tests to webMUSHRA and ReSEval, and import of their answers.

Listeners may see addresses and file names there, so conditions are named C01, C02 … and trials t0, t1 ….
"""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tonewood.data.manifest import read_csv_rows
from tonewood.errors import CallError, FolderError, OutputError, failure_reason, printable
from tonewood.listening.database import AnswerDatabase, screen_to_json
from tonewood.listening.definition import CONSENT_FILE, STIMULI_FOLDER, FileByCondition, ListeningTest
from tonewood.listening.trial_order import REFERENCE_LABEL, X_LABEL, LabelledStimulus, Screen
from tonewood.utils.files import temporary_folder

_LIKERT_SCALE = (("1", "bad"), ("2", "poor"), ("3", "fair"), ("4", "good"), ("5", "excellent"))
_WEBMUSHRA_COLUMNS = {
    "mushra": ("trial_id", "rating_stimulus", "rating_score"),
    "abx": ("trial_id", "choice_non_reference", "choice_answer"),
    "pairs": ("trial_id", "stimuli", "stimuli_rating"),
}


class ImportedAnswer(NamedTuple):
    """An answer that was given in another test system."""

    listener_id: str
    trial: int
    screen: Screen
    value: Any
    seconds: float


class ImportCount(NamedTuple):
    """Numbers of new listeners and answers."""

    listeners: int
    answers: int


class _ExchangeFormat(NamedTuple):
    write: Callable[[ListeningTest, Path, Path, str], Path]
    read: Callable[[ListeningTest, Path], Iterator[ImportedAnswer]]


def export_listening_test(test: ListeningTest, folder: Path, to: str, out: Path) -> Path:
    """Write a test for webMUSHRA or ReSEval into a new folder; return the path to open there.

    CallError or OutputError if the format is unknown, or the folder cannot be written.
    """
    form = _exchange_format(to, "--to")
    if out.exists():
        raise OutputError(f"{printable(out)} exists: choose another folder")
    name = re.sub(r"[^a-z0-9]+", "-", out.name.lower()).strip("-") or "test"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out.parent) as hidden:
            unfinished = hidden / "out"
            unfinished.mkdir()
            entry = form.write(test, folder, unfinished, name).relative_to(unfinished)
            unfinished.rename(out)
    except OSError as error:
        reason = failure_reason(error)
        raise OutputError(f"{printable(out)} cannot be created ({reason}): choose another folder") from None
    return out / entry


def read_imported_answers(test: ListeningTest, came_from: str, table: Path) -> list[ImportedAnswer]:
    """Read the answers in a table of webMUSHRA or ReSEval.

    CallError or FolderError if the format is unknown, or the table does not fit the test; the message names
    the line.
    """
    answers = list(_exchange_format(came_from, "--from").read(test, table))
    if not answers:
        raise FolderError(f"{printable(table)} has no answers to this test: choose its results")
    return answers


def import_answers(answers: AnswerDatabase, imported: Sequence[ImportedAnswer]) -> ImportCount:
    """Add answers to the database; answers that it has already stay unchanged."""
    listeners, total = 0, 0
    for answer in imported:
        listeners += answers.add_imported_listener(answer.listener_id)
        answers.save_question(answer.listener_id, answer.trial, screen_to_json(answer.screen))
        total += answers.save_answer(
            answer.listener_id, answer.trial, answer.value, final=True, seconds=answer.seconds
        )
    return ImportCount(listeners, total)


def _exchange_format(name: str, option: str) -> _ExchangeFormat:
    if name not in _EXCHANGE_FORMATS:
        raise CallError(f"{option} is {name!r}: choose {' or '.join(_EXCHANGE_FORMATS)}")
    return _EXCHANGE_FORMATS[name]


# --- both formats


def condition_keys(test: ListeningTest) -> dict[str, str]:
    """Return a neutral name for each condition; all have one length, so they sort in order."""
    return {name: f"C{k:02d}" for k, name in enumerate(test.conditions, start=1)}


def abx_target(test: ListeningTest, trial: int) -> str:
    """Return the condition of X in an exported trial; it follows from the seed."""
    side = int(np.random.default_rng([test.seed, 4, trial]).integers(2))
    return test.trials[trial].conditions[side]


def _rebuild_screen(test: ListeningTest, trial: int) -> Screen:
    """Return an exported trial as a screen of our own page."""
    files, excerpt = test.file_by_condition(), test.trials[trial].excerpt
    conditions = test.trials[trial].conditions
    stimuli = [
        LabelledStimulus(chr(ord("A") + k), files[excerpt, name, 0], name)
        for k, name in enumerate(conditions)
    ]
    correct_answer = None
    if test.kind == "mushra":
        assert test.reference is not None
        reference = files[excerpt, test.reference, 1]
        stimuli.insert(0, LabelledStimulus(REFERENCE_LABEL, reference, test.reference))
    elif test.kind == "abx":
        target = abx_target(test, trial)
        correct_answer = "AB"[conditions.index(target)]
        stimuli.append(LabelledStimulus(X_LABEL, files[excerpt, target, 1], target))
    return Screen("trial", trial, tuple(stimuli), correct_answer)


def _rating_answer(
    test: ListeningTest, listener: str, trial: int, ratings: dict[str, float], seconds: float
) -> ImportedAnswer:
    """Return ratings by condition as an answer on our own page."""
    screen = _rebuild_screen(test, trial)
    # The first stimulus is the open reference, which is not rated.
    value = {stimulus.label: ratings[stimulus.condition] for stimulus in screen.stimuli[1:]}
    return ImportedAnswer(_hash_listener_id(test, listener), trial, screen, value, seconds)


def _choice_answer(
    test: ListeningTest, listener: str, trial: int, condition: str, seconds: float
) -> ImportedAnswer:
    """Return a choice of two conditions as an answer on our own page."""
    value = "AB"[test.trials[trial].conditions.index(condition)]
    identity = _hash_listener_id(test, listener)
    return ImportedAnswer(identity, trial, _rebuild_screen(test, trial), value, seconds)


def _hash_listener_id(test: ListeningTest, listener: str) -> str:
    """Return an id for a listener of another system, whose own id may be a name and is not stored."""
    # As long as our own ids, the 22 characters of `token_urlsafe(16)`.
    return hashlib.sha256(f"{test.key} {listener}".encode()).hexdigest()[:22]


def _parse_trial(test: ListeningTest, text: str, table: Path, line: int) -> int:
    match = re.fullmatch(r"t(\d{1,6})", text.strip())
    if not match or int(match[1]) >= len(test.trials):
        raise FolderError(
            f"{printable(table)}, line {line}: {printable(text)!r} is not a trial of this test: choose "
            "its results"
        )
    return int(match[1])


def _parse_finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# --- webMUSHRA


def write_webmushra_test(test: ListeningTest, folder: Path, out: Path, name: str) -> Path:
    """Write stimuli and configuration below webMUSHRA's root; the page asks for no personal data."""
    sounds = f"configs/resources/audio/{name}"
    shutil.copytree(folder / STIMULI_FOLDER, out / sounds)
    files = {key: f"{sounds}/{file}" for key, file in test.file_by_condition().items()}
    consent = (folder / CONSENT_FILE).read_text(encoding="utf-8").strip()
    paragraphs = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in consent.split("\n\n"))
    config = {
        "testname": test.title,
        "testId": name,
        "bufferSize": 2048,
        "stopOnErrors": True,
        "showButtonPreviousPage": False,
        "remoteService": "service/write.php",
        "pages": [
            {"type": "consent", "id": "consent", "name": "Before you begin", "mustConsent": True,
             "content": paragraphs},
            ["random", *(_webmushra_page(test, k, files) for k in range(len(test.trials)))],
            {"type": "finish", "name": "Thank you", "content": "All your answers are sent.",
             "showResults": False, "writeResults": True},
        ],
    }  # fmt: skip
    path = out / "configs" / f"{name}.yaml"
    path.write_text("\n".join(_yaml_lines(config)) + "\n", encoding="utf-8")
    return path


def _webmushra_page(test: ListeningTest, number: int, files: FileByCondition) -> dict[str, Any]:
    trial, keys = test.trials[number], condition_keys(test)
    page = {"id": f"t{number}", "name": test.title, "content": f"<p>{escape(test.question)}</p>"}
    sounds = {keys[name]: files[trial.excerpt, name, 0] for name in trial.conditions}
    player = {"showWaveform": False, "enableLooping": True}
    if test.kind == "mushra":
        assert test.reference is not None
        del sounds[keys[test.reference]]  # webMUSHRA itself adds the hidden reference
        reference = files[trial.excerpt, test.reference, 0]
        anchors = {"createAnchor35": False, "createAnchor70": False}
        return {"type": "mushra", **page, **player, "reference": reference, **anchors, "stimuli": sounds}
    if test.kind == "abx":
        reference = sounds.pop(keys[abx_target(test, number)])
        return {"type": "paired_comparison", **page, **player, "reference": reference, "stimuli": sounds}
    return {
        "type": "likert_multi_stimulus", **page, "mustRate": True, "stimuli": sounds,
        "response": [{"value": value, "label": label} for value, label in _LIKERT_SCALE],
    }  # fmt: skip


def _yaml_lines(value: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield YAML in block style with scalars as JSON; webMUSHRA's parser reads no multi-line brackets."""
    items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in items:
        head = "-" if key is None else f"{key}:"
        if not isinstance(item, dict | list):
            yield f"{head} {json.dumps(item, ensure_ascii=False)}"
            continue
        yield head
        yield from (f"  {line}" for line in _yaml_lines(item))


class _TableLine(NamedTuple):
    """A line of webMUSHRA's results: trial, condition key and answer."""

    number: int
    trial: int
    key: str
    answer: str
    row: dict[str, str]

    @property
    def seconds(self) -> float:
        """Response time; 0 if the table has none."""
        text = self.row.get("rating_time") or self.row.get("choice_time") or "0"
        return max(0.0, (_parse_finite(text) or 0.0) / 1000)


def read_webmushra_answers(test: ListeningTest, table: Path) -> Iterator[ImportedAnswer]:
    """Yield the answers of a table that webMUSHRA's service wrote."""
    read_answers = _abx_answers if test.kind == "abx" else _rating_answers
    for listener, lines in _group_by_listener(test, table):
        by_trial: dict[int, list[_TableLine]] = {}
        for line in lines:
            by_trial.setdefault(line.trial, []).append(line)
        for trial, lines_of_trial in by_trial.items():
            yield from read_answers(test, table, listener, trial, lines_of_trial)


def _group_by_listener(test: ListeningTest, table: Path) -> Iterator[tuple[str, list[_TableLine]]]:
    """Yield the lines of each listener.

    Without session ids, a question that occurs again begins a new listener. Such a listener is identified
    by the place and the content of the lines, so that a second import finds the same listeners.
    """
    columns = _WEBMUSHRA_COLUMNS[test.kind]
    groups: list[tuple[str | None, list[_TableLine]]] = []
    by_session: dict[str, list[_TableLine]] = {}
    answered = set[tuple[int, str]]()
    for number, row in read_csv_rows(table, columns):
        key, answer = (row[name].strip() for name in columns[1:])
        line = _TableLine(number, _parse_trial(test, row["trial_id"], table, number), key, answer, row)
        session = row.get("session_uuid")
        if session:
            if session not in by_session:
                groups.append((session, by_session.setdefault(session, [])))
            by_session[session].append(line)
            continue
        if not answered or (line.trial, key) in answered:
            groups.append((None, []))
            answered = set()
        answered.add((line.trial, key))
        groups[-1][1].append(line)
    for place, (session, lines) in enumerate(groups):
        content = repr([(line.trial, line.key, line.answer, line.seconds) for line in lines])
        yield session or f"{place} {hashlib.sha256(content.encode()).hexdigest()}", lines


def _abx_answers(
    test: ListeningTest, table: Path, listener: str, trial: int, lines: list[_TableLine]
) -> Iterator[ImportedAnswer]:
    """Yield the condition that was taken for X; undecided answers are skipped."""
    target, keys = abx_target(test, trial), condition_keys(test)
    (other,) = (name for name in test.trials[trial].conditions if name != target)
    line = lines[-1]
    if line.key != keys[other] or line.answer not in ("correct", "incorrect", "undecided", "unknown"):
        raise FolderError(
            f"{printable(table)}, line {line.number}: {printable(line.answer)!r} on "
            f"{printable(line.key)!r} is not an answer to trial t{trial}: choose this test's results"
        )
    if line.answer in ("correct", "incorrect"):
        condition = target if line.answer == "correct" else other
        yield _choice_answer(test, listener, trial, condition, line.seconds)


def _rating_answers(
    test: ListeningTest, table: Path, listener: str, trial: int, lines: list[_TableLine]
) -> Iterator[ImportedAnswer]:
    """Yield the ratings; of a pair, the sound with the higher rating."""
    names = {key: name for name, key in condition_keys(test).items()}
    low, high = (0, 100) if test.kind == "mushra" else (1, len(_LIKERT_SCALE))
    if test.reference is not None:
        names[REFERENCE_LABEL] = test.reference
    ratings: dict[str, float] = {}
    for line in lines:
        value = _parse_finite(line.answer)
        if value is None or not low <= value <= high:
            raise FolderError(
                f"{printable(table)}, line {line.number}: {printable(line.answer)!r} is not a rating from "
                f"{low} to {high}: correct the table"
            )
        ratings[names.get(line.key, line.key)] = value
    conditions = test.trials[trial].conditions
    if set(ratings) != set(conditions):
        keys = ", ".join(sorted(printable(line.key) for line in lines))
        raise FolderError(
            f"{printable(table)}, line {lines[0].number}: trial t{trial} has ratings of {keys}, which are "
            "not the conditions of this trial: choose this test's results"
        )
    if test.kind == "mushra":
        yield _rating_answer(test, listener, trial, ratings, lines[-1].seconds)
        return
    first, second = conditions
    if ratings[first] != ratings[second]:  # a tie is not a preference
        better = first if ratings[first] > ratings[second] else second
        yield _choice_answer(test, listener, trial, better, lines[-1].seconds)


# --- ReSEval


def write_reseval_test(test: ListeningTest, folder: Path, out: Path, name: str) -> Path:
    """Write a folder for each pair of conditions, or one for MUSHRA, with a folder for each condition."""
    files, keys = test.file_by_condition(), condition_keys(test)
    for number, trial in enumerate(test.trials):
        test_name = name
        if test.kind != "mushra":
            test_name = "-".join((name, *(keys[condition].lower() for condition in trial.conditions)))
        sounds = {keys[condition]: files[trial.excerpt, condition, 0] for condition in trial.conditions}
        if test.kind == "abx":
            sounds[REFERENCE_LABEL] = files[trial.excerpt, abx_target(test, number), 1]
        for key, file in sounds.items():
            target = out / test_name / key / f"t{number}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / STIMULI_FOLDER / file, target)
            os.utime(target, (0, 0))  # equal times: the order of creation would reveal conditions
    return out


def read_reseval_answers(test: ListeningTest, table: Path) -> Iterator[ImportedAnswer]:
    """Yield the answers of a table of responses."""
    keys = condition_keys(test)
    names = {key: name for name, key in keys.items()}
    for number, row in read_csv_rows(table, ("Stem", "Participant", "Response")):
        trial = _parse_trial(test, row["Stem"], table, number)
        conditions = test.trials[trial].conditions
        listener, response = row["Participant"], row["Response"].strip()
        if test.kind == "mushra":
            # Three digits for each condition, in the order of their folders' names.
            ordered = sorted(conditions, key=lambda name: keys[name])
            values = [int(digits) for digits in re.findall(r"\d{3}", response)]
            if len(response) != 3 * len(ordered) or len(values) != len(ordered) or max(values) > 100:
                raise FolderError(
                    f"{printable(table)}, line {number}: {printable(response)!r} does not consist of "
                    f"{len(ordered)} ratings from 000 to 100: choose this test's responses"
                )
            ratings = dict(zip(ordered, map(float, values), strict=True))
            yield _rating_answer(test, listener, trial, ratings, 0.0)
            continue
        if names.get(response) not in conditions:
            raise FolderError(
                f"{printable(table)}, line {number}: {printable(response)!r} is not a condition of trial "
                f"t{trial}: choose this test's responses"
            )
        yield _choice_answer(test, listener, trial, names[response], 0.0)


_EXCHANGE_FORMATS = {
    "webmushra": _ExchangeFormat(write_webmushra_test, read_webmushra_answers),
    "reseval": _ExchangeFormat(write_reseval_test, read_reseval_answers),
}
