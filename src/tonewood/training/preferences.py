"""Read the answers of listeners, and measure how well a scorer agrees with them.

Answers are CSV tables: `preferred,other` names two recordings a line, `file,rating` one. Paths are
relative to the table. A column `group` names recordings that belong together, such as excerpts of
one piece; a group is never split when recordings are held out. `tonewood listen results` writes both
tables.
"""

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tonewood.audio_io.reader import read_recording
from tonewood.data.manifest import BadRecordings, group_of_path, read_csv_rows
from tonewood.data.tables import parse_number
from tonewood.dsp.features import band_levels
from tonewood.errors import AudioError, FolderError, printable
from tonewood.model.card import ListenerCard
from tonewood.scorer.network import Scorer
from tonewood.scorer.preference_training import ListenerData, agreement, mean_logit
from tonewood.settings import ModelSettings, TrainingSettings
from tonewood.stats.bradley_terry import estimate_posterior
from tonewood.stats.proportions import binomial_proportion
from tonewood.utils.arrays import FloatArray
from tonewood.utils.files import listed_path

# Four groups are the fewest that leave two to learn from and two to check on.
MIN_COMPARISONS, MIN_RATINGS, MIN_LISTENER_GROUPS = 30, 15, 4
_MAX_SPLIT_ATTEMPTS = 50
# Mean opinion score and MUSHRA, in the order in which a table without a scale is tried.
_RATING_SCALES = ((1.0, 5.0), (0.0, 100.0))


class Preference(NamedTuple):
    """Answer of a comparison."""

    preferred: Path
    other: Path


class ListenerRating(NamedTuple):
    """Mean rating of a recording, from 0 (worst of the scale) to 1 (best)."""

    file: Path
    value: float


class AnswerTables(NamedTuple):
    """Answers of both tables, and the group of every recording in them."""

    preferences: list[Preference]
    ratings: list[ListenerRating]
    groups: dict[Path, str]

    def without(self, paths: Collection[Path]) -> "AnswerTables":
        """Return the answers that are not about some recordings."""
        return AnswerTables(
            [answer for answer in self.preferences if not {*answer} & {*paths}],
            [rating for rating in self.ratings if rating.file not in paths],
            {path: group for path, group in self.groups.items() if path not in paths},
        )


class ListenerAudioProgress(NamedTuple):
    """Progress of `load_listener_answers`: one more recording was read; number counts from 1."""

    number: int
    total: int
    path: Path


@dataclass(frozen=True)
class ListenerAnswers:
    """Answers with the recordings they are about, and the duration of each recording."""

    data: ListenerData
    seconds: tuple[float, ...]


class ListenerSplit(NamedTuple):
    """Answers to learn from, and answers to check on."""

    train: ListenerData
    held_out: ListenerData


def read_answer_tables(
    preferences: Path | None, ratings: Path | None, training: TrainingSettings
) -> AnswerTables:
    """Read both tables; raise FolderError with the line number if one is wrong."""
    answers = AnswerTables([], [], {})
    if preferences is not None:
        _read_preferences(preferences, training, answers)
    if ratings is not None:
        _read_ratings(ratings, training, answers)
    return answers


def _read_preferences(table: Path, training: TrainingSettings, answers: AnswerTables) -> None:
    for number, row in _read_answer_rows(table, ("preferred", "other")):
        if row.get("again"):
            continue  # a repeated question, which measures the listener's consistency
        pair = Preference(*(listed_path(table.parent, row[name]) for name in ("preferred", "other")))
        if pair.preferred == pair.other:
            problem = "preferred and other are the same recording: correct the line"
            raise _line_error(table, number, problem)
        answers.preferences.append(pair)
        for path in pair:
            _assign_group(path, row, table, training, answers.groups)


def _read_ratings(table: Path, training: TrainingSettings, answers: AnswerTables) -> None:
    lines = [
        (number, row, _row_scale(table, number, row), _parse_rating(table, number, row["rating"]))
        for number, row in _read_answer_rows(table, ("file", "rating"))
    ]
    # Lines without a scale of their own share one: 1 to 5 if all ratings fit it, else 0 to 100.
    fitting = (s for s in _RATING_SCALES if all(s[0] <= value <= s[1] for *_, value in lines))
    common_scale = next(fitting, _RATING_SCALES[-1])
    for number, row, row_scale, value in lines:
        low, high = row_scale or common_scale
        if not low <= value <= high:
            problem = f"the rating {value:g} is outside its scale from {low:g} to {high:g}"
            raise _line_error(table, number, f"{problem}: correct it, or add the columns low and high")
        path = listed_path(table.parent, row["file"])
        answers.ratings.append(ListenerRating(path, (value - low) / (high - low)))
        _assign_group(path, row, table, training, answers.groups)


def _assign_group(
    path: Path, row: dict[str, str], table: Path, training: TrainingSettings, groups: dict[Path, str]
) -> None:
    try:
        default = group_of_path(path.relative_to(table.parent), training.group_by)
    except ValueError:
        default = str(path)  # outside the table's folder: a group of its own
    group = row.get("group") or default
    if groups.setdefault(path, group) != group:
        raise FolderError(
            f"{printable(path)} is in two groups, {printable(groups[path])} and {printable(group)}: correct "
            f"{printable(table)}"
        )


def _read_answer_rows(table: Path, required: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a table with their numbers; raise FolderError if it has none."""
    rows = list(read_csv_rows(table, required))
    if not rows:
        raise FolderError(f"{printable(table)} has no answers: collect some first")
    return rows


def _row_scale(table: Path, number: int, row: dict[str, str]) -> tuple[float, float] | None:
    """Return the scale that a line gives in its columns low and high, if it has one."""
    ends = row.get("low", ""), row.get("high", "")
    if not any(ends):
        return None
    low, high = (_parse_rating(table, number, text) for text in ends)
    if low >= high:
        problem = f"low is {low:g} and high is {high:g}: give a low below high"
        raise _line_error(table, number, problem)
    return low, high


def _parse_rating(table: Path, number: int, text: str) -> float:
    # A rating of a table that commas separate has no comma in it, so a comma is the decimal sign.
    value = parse_number(text, ";")
    if not isfinite(value):
        raise _line_error(table, number, f"{printable(text)!r} is not a number: give a number")
    return value


def _line_error(table: Path, number: int, problem: str) -> FolderError:
    return FolderError(f"{printable(table)}, line {number}: {problem}")


def load_listener_answers(
    preferences: Path | None, ratings: Path | None, settings: ModelSettings, bad: BadRecordings | None = None
) -> Generator[ListenerAudioProgress, None, ListenerAnswers]:
    """Read the tables and every recording in them; yield one progress event per recording.

    FolderError or AudioError if a table or a recording cannot be used; the message names it. With `bad`,
    answers about bad recordings may be left out.
    """
    bad = bad or BadRecordings()
    answers = read_answer_tables(preferences, ratings, settings.training)
    _check_enough_answers(answers)

    # Analyse the recordings in a fixed order, so that the model does not depend on the tables' order.
    paths, spectrum = sorted(answers.groups), settings.spectrum
    rows, seconds = [], []
    left_out: set[Path] = set()  # not all of `bad`, which may have recordings of the folders
    for number, path in enumerate(paths, start=1):
        try:
            recording = read_recording(path)
        except AudioError as error:
            bad.add(path, error)
            left_out.add(path)
            continue
        wave = recording.at_rate(spectrum.rate)
        rows.append(band_levels(wave, spectrum.rate, settings.scorer.bands, spectrum))
        seconds.append(recording.duration)
        yield ListenerAudioProgress(number, len(paths), path)

    bad.check()
    answers = answers.without(left_out)
    _check_enough_answers(answers)
    paths = sorted(answers.groups)

    index = {path: k for k, path in enumerate(paths)}
    pairs = [(index[answer.preferred], index[answer.other]) for answer in answers.preferences]
    ratings_by_index = [(index[rating.file], rating.value) for rating in answers.ratings]
    better, worse = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    # A score of 0 means "like the reference", so the best rating is the smallest target.
    target = 1 - torch.tensor([value for _, value in ratings_by_index])
    data = ListenerData(
        rows,
        [answers.groups[path] for path in paths],
        better,
        worse,
        torch.tensor([k for k, _ in ratings_by_index], dtype=torch.long),
        target,
        _preferred_half(len(paths), pairs, ratings_by_index),
    )
    return ListenerAnswers(data, tuple(seconds))


def _check_enough_answers(answers: AnswerTables) -> None:
    for count, limit, name in (
        (len(answers.preferences), MIN_COMPARISONS, "comparisons"),
        (len(answers.ratings), MIN_RATINGS, "ratings"),
    ):
        if count and count < limit:
            raise FolderError(f"there are {count} {name}; training needs {limit}: collect more answers")
    groups = len(set(answers.groups.values()))
    if groups < MIN_LISTENER_GROUPS:
        raise FolderError(
            f"the recordings are of {groups} pieces; training needs {MIN_LISTENER_GROUPS}, because some are "
            "held out: collect answers about more pieces"
        )


def hold_out_listener_groups(data: ListenerData, share: float, seed: int) -> ListenerSplit:
    """Hold out whole groups, drawn by the seed; a comparison across both sides is not used.

    FolderError if no split leaves answers about preferred and other recordings on both sides.
    """
    groups = sorted(set(data.groups))
    generator = torch.Generator().manual_seed(seed)
    # Two groups at least on either side: agreement on a single piece says little.
    count = min(len(groups) - 2, max(2, round(share * len(groups))))
    # A random split may have no comparison within one side; usually the first few attempts succeed.
    for _ in range(_MAX_SPLIT_ATTEMPTS):
        order = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
        split = ListenerSplit(data.select_groups(set(order[count:])), data.select_groups(set(order[:count])))
        if all(_is_learnable(part) for part in split):
            return split
    raise FolderError(
        "no pieces can be held out that listeners compared with each other: compare sounds of "
        "one piece, or name what belongs together in a column group"
    )


def measure_listener_agreement(scorer: Scorer, data: ListenerData, split: ListenerSplit) -> ListenerCard:
    """Return how often a scorer agrees with listeners on recordings that it did not learn from.

    The interval is exact (Clopper & Pearson 1934) for independent observations, so two recordings
    that were compared several times count once.
    """
    held_out = split.held_out
    logits = torch.tensor([mean_logit(scorer, rows) for rows in held_out.rows])
    agreed = agreement(logits, held_out)
    if len(held_out.better):
        ends = torch.stack([held_out.better, held_out.worse]).sort(dim=0).values
        independent = len(torch.unique(ends, dim=1).T)
    else:
        independent = len(held_out.rated)
    # The interval must contain the estimate, which rounding to whole observations can move.
    interval = binomial_proportion(round(agreed * independent), independent)
    return ListenerCard(
        comparisons=len(data.better),
        ratings=len(data.rated),
        recordings=len(data.rows),
        groups=len(set(data.groups)),
        learnt_from=len(split.train.better) + len(split.train.rated),
        held_out=len(held_out.better) + len(held_out.rated),
        independent=independent,
        agreement=agreed,
        agreement_interval=(min(interval.low, agreed), max(interval.high, agreed)),
    )


def _is_learnable(data: ListenerData) -> bool:
    halves = data.split_by_preference()
    return bool(len(data.better) + len(data.rated) >= 2 and halves.reference and halves.source)


def _preferred_half(
    count: int, pairs: Sequence[tuple[int, int]], ratings: Sequence[tuple[int, float]]
) -> torch.Tensor:
    """Return a flag per recording: in the better half by mean rating, else by Bradley-Terry strength."""
    wins = np.zeros((count, count))
    for better, worse in pairs:
        wins[better, worse] += 1
    quality = _z_scores(estimate_posterior(wins).mean) if pairs else np.zeros(count)
    # Ratings replace strengths where both exist: they are on one scale for all recordings.
    if ratings:
        sums, counts = np.zeros(count), np.zeros(count)
        for k, value in ratings:
            sums[k] += value
            counts[k] += 1
        rated = counts > 0
        quality[rated] = _z_scores(sums[rated] / counts[rated])
    # A stable sort breaks ties by position, the same on every machine.
    half = np.zeros(count, dtype=bool)
    half[np.argsort(-quality, kind="stable")[: count // 2]] = True
    return torch.from_numpy(half)


def _z_scores(values: FloatArray) -> FloatArray:
    deviation = float(values.std()) or 1.0  # equal values have no order to scale
    return np.asarray((values - values.mean()) / deviation)
