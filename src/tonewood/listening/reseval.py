"""To and from ReSEval: a folder for each condition, and the table of its responses."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from tonewood.errors import FolderError, printable
from tonewood.files.tables import read_csv_rows
from tonewood.listening.design import STIMULI_FOLDER, ListeningTest
from tonewood.listening.foreign import ImportedAnswer, choice_answer, condition_keys, rating_answer, abx_target, parse_trial
from tonewood.listening.sessions import REFERENCE_LABEL


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
