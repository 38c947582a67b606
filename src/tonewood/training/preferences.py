"""What listeners said, as something to learn from, and how far a scorer agrees with it.

What listeners said of recordings, as CSV: pairs of which one was preferred, and ratings.

`preferred,other` name two recordings a line, `file,rating` one; paths are relative to the table.
A column `group` says what belongs together (the piece, for excerpts of it), and is never parted
when recordings are held out. `tonewood listen results` writes both tables.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tonewood.audio_io.reader import read_recording
from tonewood.data.manifest import group_of_path, read_csv_rows
from tonewood.dsp.filterbank import band_levels
from tonewood.errors import FolderError, printable
from tonewood.model.card import ListenerCard
from tonewood.scorer.network import Scorer
from tonewood.scorer.preference_training import ListenerData, agreement, mean_logit
from tonewood.settings import (
    ModelSettings,
    TrainingSettings,
)
from tonewood.stats.bradley_terry import estimate_posterior
from tonewood.stats.proportions import binomial_proportion
from tonewood.utils.arrays import FloatArray

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


def read_answer_tables(
    preferences: Path | None, ratings: Path | None, training: TrainingSettings
) -> AnswerTables:
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


MIN_COMPARISONS, MIN_RATINGS, MIN_LISTENER_GROUPS = 30, 15, 4
_MAX_SPLIT_ATTEMPTS = 50


class ListenerAudioProgress(NamedTuple):
    """A recording that was heard in a test has been read; it is the number-th of so many."""

    number: int
    total: int
    path: Path


@dataclass(frozen=True)
class ListenerAnswers:
    """Everything that listeners said, and how long it sounds.

    Parameters
    ----------
    data : Heard
    seconds : tuple of float
        Of each recording.
    """

    data: ListenerData
    seconds: tuple[float, ...]


class ListenerSplit(NamedTuple):
    """What of it is learnt from, and what is held out."""

    train: ListenerData
    held_out: ListenerData


def load_listener_answers(
    preferences: Path | None, ratings: Path | None, settings: ModelSettings
) -> Generator[ListenerAudioProgress, None, ListenerAnswers]:
    """Read the tables and every recording they name, yielding each.

    Raises
    ------
    FolderError, AudioError
        A table or a recording cannot teach; it is named.
    """
    said = read_answer_tables(preferences, ratings, settings.training)
    if said.preferences and len(said.preferences) < MIN_COMPARISONS:
        raise FolderError(
            f"{len(said.preferences)} comparisons; {MIN_COMPARISONS} are needed to learn from: ask more"
        )
    if said.ratings and len(said.ratings) < MIN_RATINGS:
        raise FolderError(f"{len(said.ratings)} ratings; {MIN_RATINGS} are needed to learn from: ask more")
    groups = len(set(said.groups.values()))
    if groups < MIN_LISTENER_GROUPS:
        raise FolderError(
            f"what was heard is of {groups} pieces; {MIN_LISTENER_GROUPS} are needed, for some are held "
            "out: ask about more"
        )
    paths, spectrum = sorted(said.groups), settings.spectrum
    rows, seconds = [], []
    for number, path in enumerate(paths, start=1):
        recording = read_recording(path)
        wave = torch.from_numpy(recording.at_rate(spectrum.rate))
        rows.append(band_levels(wave, spectrum.rate, settings.scorer.bands, spectrum))
        seconds.append(recording.duration)
        yield ListenerAudioProgress(number, len(paths), path)
    place = {path: k for k, path in enumerate(paths)}
    pairs = [(place[it.preferred], place[it.other]) for it in said.preferences]
    better, worse = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    liking = torch.tensor([it.value for it in said.ratings])
    rated = torch.tensor([place[it.file] for it in said.ratings], dtype=torch.long)
    heard = ListenerData(
        rows, [said.groups[path] for path in paths], better, worse, rated, 1 - liking,
        _preferred_half(len(paths), pairs, [(place[it.file], it.value) for it in said.ratings]),
    )  # fmt: skip
    return ListenerAnswers(heard, tuple(seconds))


def hold_out_listener_groups(data: ListenerData, held_out: float, seed: int) -> ListenerSplit:
    """Hold out whole groups, drawn by the seed; what joins both sides teaches neither.

    Raises
    ------
    FolderError
        No split leaves answers, and recordings of both halves, on either side.
    """
    groups = sorted(set(data.groups))
    generator = torch.Generator().manual_seed(seed)
    count = min(len(groups) - 2, max(2, round(held_out * len(groups))))
    for _ in range(_MAX_SPLIT_ATTEMPTS):
        order = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
        made = ListenerSplit(data.select_groups(set(order[count:])), data.select_groups(set(order[:count])))
        if all(_is_learnable(part) for part in made):
            return made
    raise FolderError(
        "no pieces can be held out that listeners compared among themselves: compare sounds of "
        "one piece, or say in a column group what belongs together"
    )


def measure_listener_agreement(scorer: Scorer, data: ListenerData, split: ListenerSplit) -> ListenerCard:
    """How far a scorer agrees with listeners on recordings that it never saw.

    The interval is exact and counts two recordings once, however often they were compared.
    """
    kept = split.held_out
    logits = torch.stack([mean_logit(scorer, rows) for rows in kept.rows])
    agreed = agreement(logits, kept)
    if len(kept.better):
        ends = torch.stack([kept.better, kept.worse]).sort(dim=0).values
        independent = len(torch.unique(ends, dim=1).T)
    else:
        independent = len(kept.rated)
    found = binomial_proportion(round(agreed * independent), independent)
    return ListenerCard(
        comparisons=len(data.better),
        ratings=len(data.rated),
        recordings=len(data.rows),
        groups=len(set(data.groups)),
        learnt_from=len(split.train.better) + len(split.train.rated),
        held_out=len(kept.better) + len(kept.rated),
        independent=independent,
        agreement=agreed,
        agreement_interval=(min(found.low, agreed), max(found.high, agreed)),
    )


def _is_learnable(data: ListenerData) -> bool:
    halves = data.split_by_preference()
    return bool(len(data.better) + len(data.rated) >= 2 and halves.reference and halves.source)


def _preferred_half(
    count: int, pairs: Sequence[tuple[int, int]], rated: Sequence[tuple[int, float]]
) -> torch.Tensor:
    """Which recordings [recording] are in the better half, by ratings, else by strengths."""
    wins = np.zeros((count, count))
    for better, worse in pairs:
        wins[better, worse] += 1
    liking = _z_scores(estimate_posterior(wins).mean) if pairs else np.zeros(count)
    if rated:
        sums, given = np.zeros(count), np.zeros(count)
        for place, value in rated:
            sums[place] += value
            given[place] += 1
        has = given > 0
        liking[has] = _z_scores(sums[has] / given[has])
    half = np.zeros(count, dtype=bool)
    half[np.argsort(-liking, kind="stable")[: count // 2]] = True
    return torch.from_numpy(half)


def _z_scores(values: FloatArray) -> FloatArray:
    spread = float(values.std()) or 1.0
    return np.asarray((values - values.mean()) / spread)
