"""To and from other listening tests: webMUSHRA's configuration and CSV, ReSEval's folders and CSV.

Conditions travel as C1, C2 … in the order of the test, trials as t0, t1 …: names that an address or
a file name shows to a listener say nothing.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tonewood.errors import CallError, FolderError, OutputError, shown
from tonewood.files.tables import rows
from tonewood.listening.answers import Answers
from tonewood.listening.design import CONSENT, STIMULI, Test
from tonewood.listening.replies import content_of
from tonewood.listening.sessions import REFERENCE, Screen, Slot, X

WEBMUSHRA, RESEVAL = "webmushra", "reseval"
_SCALE = (("1", "bad"), ("2", "poor"), ("3", "fair"), ("4", "good"), ("5", "excellent"))


class Taken(NamedTuple):
    """How much was imported."""

    listeners: int
    answers: int


class Given(NamedTuple):
    """An answer from elsewhere: of whom, on which trial, what."""

    who: str
    trial: int
    screen: Screen
    value: Any
    seconds: float


def export(test: Test, folder: Path, to: str, out: Path) -> Path:
    """Write a test for webMUSHRA or ReSEval into a new folder; returns what to open there.

    Raises
    ------
    CallError, OutputError
        There is no such format, or the folder may not be written.
    """
    _check(to)
    if out.exists():
        raise OutputError(f"{shown(out)} exists: name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tonewood-", dir=out.parent) as hidden:
        made = Path(hidden) / "out"
        made.mkdir()
        name = re.sub(r"[^a-z0-9]+", "-", out.name.lower()).strip("-") or "test"
        write = _to_webmushra if to == WEBMUSHRA else _to_reseval
        opened = write(test, folder, made, name).relative_to(made)
        made.rename(out)
    return out / opened


def take(test: Test, answers: Answers, came_from: str, table: Path) -> Taken:
    """Bring in answers that were given elsewhere; what was imported before stays as it is.

    Raises
    ------
    CallError, FolderError
        There is no such format, or the table does not fit the test; the line is named.
    """
    _check(came_from)
    read = _from_webmushra if came_from == WEBMUSHRA else _from_reseval
    given: dict[str, list[Given]] = {}
    for one in read(test, table):
        given.setdefault(one.who, []).append(one)
    if not given:
        raise FolderError(f"{shown(table)} holds no answers to this test: name its results")
    total = new = 0
    for who, own in given.items():
        if not answers.bring(who):
            continue
        new += 1
        for place, one in enumerate(own):
            answers.ask(who, place, content_of(one.screen))
            answers.keep(who, place, one.value, final=True, seconds=one.seconds)
            total += 1
    return Taken(new, total)


# --- webMUSHRA


def _to_webmushra(test: Test, folder: Path, out: Path, name: str) -> Path:
    """Files below webMUSHRA's own root; the configuration asks nobody for a name."""
    sounds = f"configs/resources/audio/{name}"
    shutil.copytree(folder / STIMULI, out / sounds)
    files = {key: f"{sounds}/{file}" for key, file in test.files().items()}
    consent = (folder / CONSENT).read_text(encoding="utf-8").strip()
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
    # JSON is YAML, and needs no library to be written.
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return path


def _webmushra_page(test: Test, trial: int, files: dict[tuple[int, str, int], str]) -> Any:  # noqa: ANN401
    asked = test.trials[trial]
    keys = _keys(test)
    page = {"id": f"t{trial}", "name": test.title, "content": f"<p>{escape(test.question)}</p>"}
    sounds = {keys[name]: files[asked.excerpt, name, 0] for name in asked.conditions}
    looped = {"showWaveform": False, "enableLooping": True}
    if test.kind == "mushra":
        assert test.reference is not None
        del sounds[keys[test.reference]]  # webMUSHRA hides the reference among them by itself
        reference = files[asked.excerpt, test.reference, 0]
        made = {"createAnchor35": False, "createAnchor70": False, "stimuli": sounds}
        return {"type": "mushra", **page, **looped, "reference": reference, **made}
    if test.kind == "abx":
        first, _ = asked.conditions
        reference = sounds.pop(keys[first])
        compared = {"reference": reference, "stimuli": sounds}
        return {"type": "paired_comparison", **page, **looped, **compared}
    return {
        "type": "likert_multi_stimulus", **page, "mustRate": True, "stimuli": sounds,
        "response": [{"value": value, "label": label} for value, label in _SCALE],
    }  # fmt: skip


def _from_webmushra(test: Test, table: Path) -> Iterator[Given]:
    wanted = {
        "mushra": ("trial_id", "rating_stimulus", "rating_score"),
        "abx": ("trial_id", "choice_non_reference", "choice_answer"),
        "pairs": ("trial_id", "stimuli", "stimuli_rating"),
    }[test.kind]
    names = {key: name for name, key in _keys(test).items()}
    whole: list[tuple[str, int, dict[str, str], float]] = []
    met = set[tuple[int, str]]()
    session = 0
    for number, row in rows(table, wanted):
        trial = _trial(test, row["trial_id"], table, number)
        # Some of its tables tell listeners apart only by their questions coming round again.
        if (trial, row[wanted[1]]) in met and not row.get("session_uuid"):
            session, met = session + 1, set()
        met.add((trial, row[wanted[1]]))
        who = row.get("session_uuid") or f"{table.name} {session}"
        seconds = _float(row.get("rating_time") or row.get("choice_time") or "0") / 1000
        key, value = row[wanted[1]].strip(), row[wanted[2]].strip()
        if whole and whole[-1][:2] == (who, trial):
            whole[-1][2][key] = value
        else:
            whole.append((who, trial, {key: value}, seconds))
    for who, trial, said, seconds in whole:
        identity = _identity(test, who)
        conditions = test.trials[trial].conditions
        if test.kind == "abx":
            right = said.popitem()[1]
            if right in ("correct", "incorrect"):
                screen = _screen(test, trial, conditions, "A")
                yield Given(identity, trial, screen, "A" if right == "correct" else "B", seconds)
            continue
        rated = {names.get(k, test.reference): _float(v) for k, v in said.items()}
        if set(rated) != set(conditions):
            raise FolderError(
                f"{shown(table)}, trial t{trial}: ratings are of {', '.join(sorted(said))}, not of "
                "what this test compares: name this test's results"
            )
        if test.kind == "mushra":
            screen = _screen(test, trial, conditions, None)
            by_label = {slot.label: rated[slot.condition] for slot in screen.slots[1:]}
            yield Given(identity, trial, screen, by_label, seconds)
        else:
            first, second = conditions
            if rated[first] != rated[second]:  # a tie prefers neither
                better = "A" if rated[first] > rated[second] else "B"
                yield Given(
                    identity, trial, _screen(test, trial, conditions, None), better, seconds
                )


# --- ReSEval


def _to_reseval(test: Test, folder: Path, out: Path, name: str) -> Path:
    """A folder for each test of two conditions, or one for MUSHRA; in it one for each condition."""
    files, keys = test.files(), _keys(test)
    for trial, asked in enumerate(test.trials):
        own = out / name
        if test.kind != "mushra":
            own = out / "-".join((name, *(keys[it].lower() for it in asked.conditions)))
        sounds = {keys[it]: files[asked.excerpt, it, 0] for it in asked.conditions}
        if test.kind == "abx":
            sounds[REFERENCE] = files[asked.excerpt, _same(test, trial), 1]
        for key, file in sounds.items():
            (own / key).mkdir(parents=True, exist_ok=True)
            copied = shutil.copyfile(folder / STIMULI / file, own / key / f"t{trial}.wav")
            os.utime(copied, (0, 0))
    return out


def _same(test: Test, trial: int) -> str:
    """Condition that X is, where the test runs elsewhere: drawn by the seed."""
    side = int(np.random.default_rng([test.seed, 4, trial]).integers(2))
    return test.trials[trial].conditions[side]


def _from_reseval(test: Test, table: Path) -> Iterator[Given]:
    names = {key: name for name, key in _keys(test).items()}
    for number, row in rows(table, ("Stem", "Participant", "Response")):
        trial = _trial(test, row["Stem"], table, number)
        conditions = test.trials[trial].conditions
        identity, said = _identity(test, row["Participant"]), row["Response"].strip()
        if test.kind == "mushra":
            # Three digits for each condition, in the order of their folders' names.
            ordered = sorted(conditions, key=lambda it: _keys(test)[it])
            if not re.fullmatch(r"(\d{3})+", said) or len(said) != 3 * len(ordered):
                raise FolderError(
                    f"{shown(table)}, line {number}: {shown(said)!r} is no response of "
                    f"{len(ordered)} ratings: name this test's responses"
                )
            rated = {it: float(said[3 * k : 3 * k + 3]) for k, it in enumerate(ordered)}
            screen = _screen(test, trial, conditions, None)
            ratings = {slot.label: rated[slot.condition] for slot in screen.slots[1:]}
            yield Given(identity, trial, screen, ratings, 0.0)
            continue
        if names.get(said) not in conditions:
            raise FolderError(
                f"{shown(table)}, line {number}: {shown(said)!r} is no condition of trial "
                f"t{trial}: name this test's responses"
            )
        right = "AB"[conditions.index(_same(test, trial))] if test.kind == "abx" else None
        value = "AB"[conditions.index(names[said])]
        yield Given(identity, trial, _screen(test, trial, conditions, right), value, 0.0)


# --- both


def _keys(test: Test) -> dict[str, str]:
    """Opaque name of every condition; of one length, so that they sort as they are counted."""
    return {name: f"C{k:02d}" for k, name in enumerate(test.conditions, start=1)}


def _screen(test: Test, trial: int, conditions: Sequence[str], right: str | None) -> Screen:
    files, excerpt = test.files(), test.trials[trial].excerpt
    slots = [
        Slot(chr(ord("A") + k), files[excerpt, name, 0], name) for k, name in enumerate(conditions)
    ]
    if test.kind == "mushra":
        assert test.reference is not None
        slots.insert(0, Slot(REFERENCE, files[excerpt, test.reference, 1], test.reference))
    if right is not None:
        name = conditions["AB".index(right)]
        slots.append(Slot(X, files[excerpt, name, 1], name))
    return Screen("trial", trial, tuple(slots), right)


def _trial(test: Test, text: str, table: Path, number: int) -> int:
    found = re.fullmatch(r"t(\d{1,6})", text.strip())
    if not found or int(found[1]) >= len(test.trials):
        raise FolderError(
            f"{shown(table)}, line {number}: {shown(text)!r} is no trial of this test: name its "
            "results"
        )
    return int(found[1])


def _identity(test: Test, who: str) -> str:
    """A number of our own for somebody else's: whatever it was, it is not kept."""
    return hashlib.sha256(f"{test.key} {who}".encode()).hexdigest()[:22]


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _check(name: str) -> None:
    if name not in (WEBMUSHRA, RESEVAL):
        raise CallError(f"{name!r} is no known format; choose {WEBMUSHRA} or {RESEVAL}")
