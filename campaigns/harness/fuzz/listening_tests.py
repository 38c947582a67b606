"""Readers of listening tests, their answers and imported tables, with valid inputs to damage."""

import csv
import io
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import soundfile

from campaigns.harness.audio import instrument
from campaigns.harness.fuzz.mutations import BYTES, TEXT
from campaigns.harness.fuzz.readers import Reader
from tonewood.listening import builder, interchange, stimuli
from tonewood.listening.analysis import analyze_answers
from tonewood.listening.database import AnswerDatabase, screens_of
from tonewood.listening.definition import ANSWERS_FILE, TEST_FILE, ListeningTest, load_listening_test
from tonewood.listening.trial_order import REFERENCE_LABEL


def build_listening_tests(folder: Path) -> dict[str, tuple[ListeningTest, Path]]:
    """Build a test of each kind; return each with its folder."""
    for number, name in enumerate(("good", "plain", "odd")):
        condition_folder = folder / "conditions" / name
        condition_folder.mkdir(parents=True)
        for piece in range(2):
            wave = instrument(6.0, formant_hz=600.0 + 900.0 * number, seed=piece)
            soundfile.write(condition_folder / f"piece{piece}.wav", wave.T, 16_000)
    tests = {}
    for kind in ("pairs", "abx", "mushra"):
        pieces = list(
            stimuli.pieces_from_conditions([folder / "conditions" / name for name in ("plain", "odd")])
        )
        if kind == "mushra":
            pieces = stimuli.add_reference(pieces, folder / "conditions" / "good")
        plan = builder.make_plan(
            kind=kind, seconds=5.0, repeats=1, checked=False, seed=3, title="Ours",
            reference="good" if kind == "mushra" else None,
        )  # fmt: skip
        *_, test = builder.build_listening_test(pieces, plan, folder / kind)
        assert isinstance(test, ListeningTest)
        tests[kind] = (test, folder / kind)
    return tests


def listening_readers(tests: dict[str, tuple[ListeningTest, Path]], scratch: Path) -> dict[str, Reader]:
    """Return readers of tests, of their answers, and of tables of other programs."""
    readers = {}
    for kind, (test, folder) in tests.items():
        _store_answers(test, folder)
        for name, suffix, kinds in ((TEST_FILE, ".json", TEXT), (ANSWERS_FILE, ".sqlite", BYTES)):
            seed = (folder / name).read_bytes()
            read = partial(_analyze_replaced, folder, name, scratch / kind)
            readers[f"{suffix[1:]} of {kind}"] = Reader(suffix, (seed,), read, kinds)
        for program, make_rows in (("webmushra", _webmushra), ("reseval", _reseval)):
            seed = _table(make_rows(test))
            readers[f"{program} {kind}"] = Reader(
                ".csv", (seed,), partial(interchange.read_imported_answers, test, program), TEXT
            )
    return readers


def _store_answers(test: ListeningTest, folder: Path) -> None:
    """Store the answers of two listeners."""
    database = AnswerDatabase(folder / ANSWERS_FILE)
    for _ in range(2):
        listener = database.add_listener("yes")
        for number, screen in screens_of(test, database, listener).items():
            value: Any = screen.correct_answer or "A"
            if screen.stage == "volume":
                value = "set"
            elif screen.stage in ("training", "trial") and test.kind == "mushra":
                value = {
                    stimulus.label: 99.0 if stimulus.condition == test.reference else 50.0
                    for stimulus in screen.stimuli
                    if stimulus.label != REFERENCE_LABEL
                }
            assert database.save_answer(listener.id, number, value, final=True, seconds=1.0)


def _analyze_replaced(folder: Path, name: str, scratch: Path, path: Path) -> None:
    """Analyse a test in which one file is replaced."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for file in (TEST_FILE, ANSWERS_FILE):
        shutil.copy(path if file == name else folder / file, scratch / file)
    analyze_answers(load_listening_test(scratch), AnswerDatabase(scratch / ANSWERS_FILE))


Row = dict[str, object]


def _webmushra(test: ListeningTest) -> list[Row]:
    rows: list[Row] = []
    for trial in range(len(test.trials)):
        named = {"session_test_id": "t", "session_uuid": "u", "trial_id": f"t{trial}"}
        keys = [interchange.condition_keys(test)[condition] for condition in test.trials[trial].conditions]
        if test.kind == "abx":
            named["choice_reference"] = "reference"
            right = interchange.condition_keys(test)[interchange.abx_target(test, trial)]
            (wrong,) = (key for key in keys if key != right)
            rows.append({**named, "choice_non_reference": wrong, "choice_answer": "correct"})
        elif test.kind == "pairs":
            rows += [{**named, "stimuli": key, "stimuli_rating": rank} for rank, key in enumerate(keys, 1)]
        else:
            hidden = [key for key in keys if key != interchange.condition_keys(test)[test.reference or ""]]
            rows += [
                {**named, "rating_stimulus": key, "rating_score": 40, "rating_time": 9}
                for key in ("reference", *hidden)
            ]
    return rows


def _reseval(test: ListeningTest) -> list[Row]:
    response = {"mushra": "050" * len(test.conditions)}.get(test.kind, "C01")
    return [
        {"Stem": f"t{trial}", "Participant": "p", "Response": response} for trial in range(len(test.trials))
    ]


def _table(rows: list[Row]) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()
