"""To and from ReSEval: a folder for each condition, and the table of its responses."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from tonewood.errors import FolderError, shown
from tonewood.files.tables import rows
from tonewood.listening.design import STIMULI, Test
from tonewood.listening.foreign import Given, chosen, keys, rated, same, trial_of
from tonewood.listening.sessions import REFERENCE


def write(test: Test, folder: Path, out: Path, name: str) -> Path:
    """A folder for each test of two conditions, or one for MUSHRA; in it one for each condition."""
    files, named = test.files(), keys(test)
    for trial, asked in enumerate(test.trials):
        own = out / name
        if test.kind != "mushra":
            own = out / "-".join((name, *(named[it].lower() for it in asked.conditions)))
        sounds = {named[it]: files[asked.excerpt, it, 0] for it in asked.conditions}
        if test.kind == "abx":
            sounds[REFERENCE] = files[asked.excerpt, same(test, trial), 1]
        for key, file in sounds.items():
            (own / key).mkdir(parents=True, exist_ok=True)
            copied = shutil.copyfile(folder / STIMULI / file, own / key / f"t{trial}.wav")
            os.utime(copied, (0, 0))
    return out


def read(test: Test, table: Path) -> Iterator[Given]:
    """Answers of a table of responses.

    Raises
    ------
    CallError, FolderError
        It cannot be read, or does not fit the test; the line is named.
    """
    names = {key: name for name, key in keys(test).items()}
    for number, row in rows(table, ("Stem", "Participant", "Response")):
        trial = trial_of(test, row["Stem"], table, number)
        conditions = test.trials[trial].conditions
        who, said = row["Participant"], row["Response"].strip()
        if test.kind == "mushra":
            # Three digits for each condition, in the order of their folders' names.
            ordered = sorted(conditions, key=lambda it: keys(test)[it])
            values = [int(it) for it in re.findall(r"\d{3}", said)]
            if len(said) != 3 * len(ordered) or len(values) != len(ordered) or max(values) > 100:
                raise FolderError(
                    f"{shown(table)}, line {number}: {shown(said)!r} is no response of "
                    f"{len(ordered)} ratings from 000 to 100: name this test's responses"
                )
            yield rated(test, who, trial, dict(zip(ordered, map(float, values), strict=True)), 0.0)
            continue
        if names.get(said) not in conditions:
            raise FolderError(
                f"{shown(table)}, line {number}: {shown(said)!r} is no condition of trial "
                f"t{trial}: name this test's responses"
            )
        yield chosen(test, who, trial, names[said], 0.0)
