"""To and from webMUSHRA: its configuration and stimuli, and the CSV that it writes.

To and from ReSEval: a folder for each condition, and the table of its responses.

What other listening tests are given, and what comes back from them.

Conditions travel as C01, C02 … in the order of the test, trials as t0, t1 …: names that an address
or a file name shows to a listener say nothing.

To and from other listening tests: webMUSHRA and ReSEval.
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
from tonewood.errors import CallError, FolderError, OutputError, printable
from tonewood.listening.database import AnswerDatabase, screen_to_json
from tonewood.listening.definition import CONSENT_FILE, STIMULI_FOLDER, ListeningTest
from tonewood.listening.trial_order import REFERENCE_LABEL, X_LABEL, LabelledStimulus, Screen
from tonewood.utils.atomic_write import temporary_folder


class ImportedAnswer(NamedTuple):
    """An answer from elsewhere: of whom, on which trial, what."""

    listener_id: str
    trial: int
    screen: Screen
    value: Any
    seconds: float


def condition_keys(test: ListeningTest) -> dict[str, str]:
    """Opaque name of every condition; of one length, so that they sort as they are counted."""
    return {name: f"C{k:02d}" for k, name in enumerate(test.conditions, start=1)}


def abx_target(test: ListeningTest, trial: int) -> str:
    """Condition that X is, where the test runs elsewhere: drawn by the seed."""
    side = int(np.random.default_rng([test.seed, 4, trial]).integers(2))
    return test.trials[trial].conditions[side]


def rebuild_screen(test: ListeningTest, trial: int, conditions: Sequence[str]) -> Screen:
    """A trial as if it had been asked here, its conditions in this order."""
    files, excerpt = test.file_by_condition(), test.trials[trial].excerpt
    slots = [
        LabelledStimulus(chr(ord("A") + k), files[excerpt, name, 0], name)
        for k, name in enumerate(conditions)
    ]
    right = None
    if test.kind == "mushra":
        assert test.reference is not None
        slots.insert(0, LabelledStimulus(REFERENCE_LABEL, files[excerpt, test.reference, 1], test.reference))
    elif test.kind == "abx":
        name = abx_target(test, trial)
        right = "AB"[list(conditions).index(name)]
        slots.append(LabelledStimulus(X_LABEL, files[excerpt, name, 1], name))
    return Screen("trial", trial, tuple(slots), right)


def rating_answer(
    test: ListeningTest, who: str, trial: int, ratings: dict[str, float], seconds: float
) -> ImportedAnswer:
    """Ratings by condition, as if they had been given here."""
    screen = rebuild_screen(test, trial, test.trials[trial].conditions)
    value = {slot.label: ratings[slot.condition] for slot in screen.stimuli[1:]}
    return ImportedAnswer(hash_listener_id(test, who), trial, screen, value, seconds)


def choice_answer(
    test: ListeningTest, who: str, trial: int, condition: str, seconds: float
) -> ImportedAnswer:
    """One of two conditions, as if it had been chosen here."""
    conditions = test.trials[trial].conditions
    value = "AB"[conditions.index(condition)]
    screen = rebuild_screen(test, trial, conditions)
    return ImportedAnswer(hash_listener_id(test, who), trial, screen, value, seconds)


def parse_trial(test: ListeningTest, text: str, table: Path, number: int) -> int:
    """Trial that a line names; FolderError if it is none of this test."""
    found = re.fullmatch(r"t(\d{1,6})", text.strip())
    if not found or int(found[1]) >= len(test.trials):
        raise FolderError(
            f"{printable(table)}, line {number}: {printable(text)!r} is no trial of this test: name its "
            "results"
        )
    return int(found[1])


def hash_listener_id(test: ListeningTest, who: str) -> str:
    """A number of our own for somebody else's: whatever it was, it is not kept."""
    return hashlib.sha256(f"{test.key} {who}".encode()).hexdigest()[:22]


def parse_finite(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


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


def _webmushra_page(
    test: ListeningTest, trial: int, files: dict[tuple[int, str, int], str]
) -> dict[str, Any]:
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


def _abx_answers(
    test: ListeningTest, table: Path, who: str, trial: int, lines: list[_TableLine]
) -> Iterator[ImportedAnswer]:
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


def _rating_answers(
    test: ListeningTest, table: Path, who: str, trial: int, lines: list[_TableLine]
) -> Iterator[ImportedAnswer]:
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


def write_reseval_test(test: ListeningTest, folder: Path, out: Path, name: str) -> Path:
    """A folder for each test of two conditions, or one for MUSHRA; in it one for each condition."""
    files, named = test.file_by_condition(), condition_keys(test)
    for trial, asked in enumerate(test.trials):
        own = out / name
        if test.kind != "mushra":
            own = out / "-".join((name, *(named[it].lower() for it in asked.conditions)))
        sounds = {named[it]: files[asked.excerpt, it, 0] for it in asked.conditions}
        if test.kind == "abx":
            sounds[REFERENCE_LABEL] = files[asked.excerpt, abx_target(test, trial), 1]
        for key, file in sounds.items():
            (own / key).mkdir(parents=True, exist_ok=True)
            copied = shutil.copyfile(folder / STIMULI_FOLDER / file, own / key / f"t{trial}.wav")
            os.utime(copied, (0, 0))
    return out


def read_reseval_answers(test: ListeningTest, table: Path) -> Iterator[ImportedAnswer]:
    """Answers of a table of responses.

    Raises
    ------
    CallError, FolderError
        It cannot be read, or does not fit the test; the line is named.
    """
    names = {key: name for name, key in condition_keys(test).items()}
    for number, row in read_csv_rows(table, ("Stem", "Participant", "Response")):
        trial = parse_trial(test, row["Stem"], table, number)
        conditions = test.trials[trial].conditions
        who, said = row["Participant"], row["Response"].strip()
        if test.kind == "mushra":
            # Three digits for each condition, in the order of their folders' names.
            ordered = sorted(conditions, key=lambda it: condition_keys(test)[it])
            values = [int(it) for it in re.findall(r"\d{3}", said)]
            if len(said) != 3 * len(ordered) or len(values) != len(ordered) or max(values) > 100:
                raise FolderError(
                    f"{printable(table)}, line {number}: {printable(said)!r} is no response of "
                    f"{len(ordered)} ratings from 000 to 100: name this test's responses"
                )
            yield rating_answer(test, who, trial, dict(zip(ordered, map(float, values), strict=True)), 0.0)
            continue
        if names.get(said) not in conditions:
            raise FolderError(
                f"{printable(table)}, line {number}: {printable(said)!r} is no condition of trial "
                f"t{trial}: name this test's responses"
            )
        yield choice_answer(test, who, trial, names[said], 0.0)


class _ExchangeFormat(NamedTuple):
    """How a test is written for another program, and how its answers are read."""

    write: Callable[[ListeningTest, Path, Path, str], Path]
    read: Callable[[ListeningTest, Path], Iterator[ImportedAnswer]]


_EXCHANGE_FORMATS = {
    "webmushra": _ExchangeFormat(write_webmushra_test, read_webmushra_answers),
    "reseval": _ExchangeFormat(write_reseval_test, read_reseval_answers),
}


class ImportCount(NamedTuple):
    """How much was imported."""

    listeners: int
    answers: int


def export_listening_test(test: ListeningTest, folder: Path, to: str, out: Path) -> Path:
    """Write a test for webMUSHRA or ReSEval into a new folder; returns what to open there.

    Raises
    ------
    CallError, OutputError
        There is no such format, or the folder may not be written.
    """
    form = _exchange_format(to)
    if out.exists():
        raise OutputError(f"{printable(out)} exists: name another folder")
    name = re.sub(r"[^a-z0-9]+", "-", out.name.lower()).strip("-") or "test"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out.parent) as hidden:
            made = hidden / "out"
            made.mkdir()
            opened = form.write(test, folder, made, name).relative_to(made)
            made.rename(out)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OutputError(f"{printable(out)} cannot be made ({why}): name another folder") from None
    return out / opened


def read_imported_answers(test: ListeningTest, came_from: str, table: Path) -> list[ImportedAnswer]:
    """All answers of a table that was made elsewhere.

    Raises
    ------
    CallError, FolderError
        There is no such format, or the table does not fit the test; the line is named.
    """
    given = list(_exchange_format(came_from).read(test, table))
    if not given:
        raise FolderError(f"{printable(table)} holds no answers to this test: name its results")
    return given


def import_answers(answers: AnswerDatabase, imported: Sequence[ImportedAnswer]) -> ImportCount:
    """Bring in answers that were given elsewhere; what is there already stays as it is."""
    listeners, total = 0, 0
    for one in imported:
        listeners += answers.add_imported_listener(one.listener_id)
        answers.save_question(one.listener_id, one.trial, screen_to_json(one.screen))
        total += answers.save_answer(one.listener_id, one.trial, one.value, final=True, seconds=one.seconds)
    return ImportCount(listeners, total)


def _exchange_format(name: str) -> _ExchangeFormat:
    if name not in _EXCHANGE_FORMATS:
        raise CallError(f"{name!r} is no known format; choose {' or '.join(_EXCHANGE_FORMATS)}")
    return _EXCHANGE_FORMATS[name]
