"""What listeners said of recordings, as CSV: pairs of which one was preferred, and ratings.

`preferred,other` name two recordings a line, `file,rating` one; paths are relative to the table.
A column `group` says what belongs together (the piece, for excerpts of it), and is never parted
when recordings are held out. `tonewood listen results` writes both tables.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tonewood.errors import FolderError, printable
from tonewood.files.items import group_of_path
from tonewood.files.tables import read_csv_rows
from tonewood.settings import TrainingSettings

_RATING_SCALES = ((1.0, 5.0), (0.0, 100.0))


class Preference(NamedTuple):
    """One answer: a recording was preferred to another."""

    preferred: Path
    other: Path


class ListenerRating(NamedTuple):
    """A recording's mean rating, from 0 for the worst that the scale holds to 1 for the best."""

    file: Path
    value: float


class AnswerTables(NamedTuple):
    """All that a table or two say.

    Parameters
    ----------
    groups : dict of str
        By recording.
    """

    preferences: list[Preference]
    ratings: list[ListenerRating]
    groups: dict[Path, str]


def read_answer_tables(preferences: Path | None, ratings: Path | None, training: TrainingSettings) -> AnswerTables:
    """Read the tables; raises FolderError where one is none, naming the line."""
    found = AnswerTables([], [], {})
    for number, row in _read_answer_rows(preferences, ("preferred", "other")):
        assert preferences is not None
        if row.get("again"):
            continue  # asked again to see how steady the listener is
        pair = [preferences.parent / row[name] for name in ("preferred", "other")]
        if pair[0] == pair[1]:
            raise FolderError(
                f"{printable(preferences)}, line {number}: a recording is preferred to itself: mend it"
            )
        found.preferences.append(Preference(*pair))
        for path in pair:
            _assign_group(path, row, preferences, training, found.groups)
    scaled = [
        (number, row, _row_scale(ratings, number, row))
        for number, row in _read_answer_rows(ratings, ("file", "rating"))
    ]
    known = _guess_scale([_parse_rating(ratings, n, row["rating"]) for n, row, _ in scaled])
    for number, row, own in scaled:
        assert ratings is not None
        low, high = own or known
        value, path = _parse_rating(ratings, number, row["rating"]), ratings.parent / row["file"]
        if not low <= value <= high:
            raise FolderError(
                f"{printable(ratings)}, line {number}: a rating of {value:g} is off its scale from "
                f"{low:g} to {high:g}: mend it, or give the columns low and high"
            )
        found.ratings.append(ListenerRating(path, (value - low) / (high - low)))
        _assign_group(path, row, ratings, training, found.groups)
    return found


def _assign_group(
    path: Path,
    row: dict[str, str],
    table: Path,
    training: TrainingSettings,
    groups: dict[Path, str],
) -> None:
    try:
        own = group_of_path(path.relative_to(table.parent), training.group_by)
    except ValueError:
        own = str(path)
    group = row.get("group") or own
    if groups.setdefault(path, group) != group:
        raise FolderError(
            f"{printable(path)} is in two groups, {printable(groups[path])} and {printable(group)}: mend "
            f"{printable(table)}"
        )


def _read_answer_rows(table: Path | None, required: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a table that may be left out, and of one that is not, one at least."""
    if table is None:
        return
    empty = True
    for number, row in read_csv_rows(table, required):
        empty = False
        yield number, row
    if empty:
        raise FolderError(f"{printable(table)} holds no answers: ask listeners first")


def _row_scale(table: Path | None, number: int, row: dict[str, str]) -> tuple[float, float] | None:
    """Scale of a line's own; one that cannot be is refused rather than guessed."""
    ends = row.get("low", ""), row.get("high", "")
    if not any(ends):
        return None
    low, high = (_parse_rating(table, number, text) for text in ends)
    if low >= high:
        assert table is not None
        raise FolderError(
            f"{printable(table)}, line {number}: a scale from {low:g} to {high:g} has no room: give "
            "low below high"
        )
    return low, high


def _guess_scale(values: list[float]) -> tuple[float, float]:
    """1 to 5 where all ratings fit it, else 0 to 100."""
    for low, high in _RATING_SCALES:
        if all(low <= value <= high for value in values):
            return low, high
    return _RATING_SCALES[-1]


def _parse_rating(table: Path | None, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value or abs(value) == float("inf"):
        assert table is not None
        raise FolderError(
            f"{printable(table)}, line {number}: {printable(text)!r} is no rating: give a number"
        )
    return value
