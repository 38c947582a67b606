"""Report of a listening test: tables for terminal and page, JSON, CSV files and an HTML page."""

import csv
import io
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tonewood.enhancement.plotting import check_matplotlib
from tonewood.html_report import (
    ReportBlock,
    ReportFigure,
    ReportHeading,
    ReportTable,
    figure_png,
    render_report,
)
from tonewood.listening.analysis import ConditionPair, ListeningResults, MushraRatings
from tonewood.listening.database import Participant
from tonewood.listening.definition import STIMULI_FOLDER
from tonewood.utils.files import check_report_folder, real_path, write_text

TextTable = list[list[str]]

RESULTS_PAGE, RESULTS_JSON = "index.html", "results.json"
ANSWERS_CSV, RATINGS_CSV = "answers.csv", "ratings.csv"

_PAIR_HEADINGS = {"pairs": "preference", "abx": "discrimination"}
_EXCLUDED_HEADING = "excluded by post-screening"
_TABLE_NOTES = {
    "listeners": "Listeners that are counted. Headphones: five of six correct, after Woods et al. (2017).",
    "preference": "Shares with exact intervals (Clopper and Pearson), which treat all answers as "
    "independent; by listeners, each counts once (Student's t). p is from the exact binomial test.",
    "discrimination": "Correct shares with exact intervals; chance is 50 %. p is one-sided. d' follows "
    "the differencing rule.",
    "any listener": "Logistic model with a random intercept for each listener: share of the median "
    "listener, profile intervals, and the spread of listeners (standard deviation).",
    "Bradley-Terry strengths": "P(i preferred to j) = 1 / (1 + exp(j - i)); penalised likelihood "
    "after Firth. Profile intervals treat all answers as independent and hold for these listeners; "
    "those for any listeners are from the jackknife over listeners.",
    "ratings": "Each listener's mean counts once; intervals of the median between order "
    "statistics. Quartiles are of all ratings.",
    "Friedman": "Test of whether the conditions differ at all.",
    "differences": "Wilcoxon's signed-rank test on the listeners' means.",
    "mixed effects": "Random listeners and trials, restricted maximum likelihood.",
    _EXCLUDED_HEADING: "ITU-R BS.1534-3, 4.1.2.",
}


def result_tables(results: ListeningResults) -> list[tuple[str, TextTable]]:
    """Return all results as tables with headings; the first row of a table names its columns."""
    tables = [("listeners", _participants_table(results))]
    if results.pairs:
        tables.append((_PAIR_HEADINGS[results.test.kind], _pairs_table(results)))
    if any(pair.mixed for pair in results.pairs):
        tables.append(("any listener", _mixed_table(results)))
    if results.strengths:
        tables.append(("Bradley-Terry strengths", _strengths_table(results)))
    if results.ratings:
        tables += _ratings_tables(results.ratings)
    return tables


def _participants_table(results: ListeningResults) -> TextTable:
    rows = [["name", "code", "answers", "finished", "headphones", "hearing"]]
    for p in results.participants:
        headphones = "-" if p.headphones is None else "passed" if p.headphones else "failed"
        hearing = "-" if p.hearing is None else f"{100 * p.hearing:.0f} %"
        finished = "yes" if p.finished else "no"
        rows.append([p.name, p.code, str(len(p.responses)), finished, headphones, hearing])
    return rows


def _pair_name(results: ListeningResults, pair: ConditionPair) -> str:
    return f"{pair.first} {'/' if results.test.kind == 'abx' else 'over'} {pair.second}"


def _pairs_table(results: ListeningResults) -> TextTable:
    abx = results.test.kind == "abx"
    header = ["pair", "answers", "right, %" if abx else "first preferred, %", "by listeners, %"]
    header += ["at the strongest effect, %", "at random, %", "p (Holm)"]
    rows = [[*header, "d'"] if abx else header]
    for pair in results.pairs:
        mean = pair.listeners
        row = [_pair_name(results, pair), str(pair.answers.total), format_share(*pair.answers[2:5])]
        row.append(format_share(mean.mean, mean.low, mean.high))
        row += [format_share(*pair.where[k][2:5]) if k in pair.where else "-" for k in ("mask", "random")]
        row.append(format_p_value(pair.p_holm))
        if pair.sensitivity:
            d, low, high = pair.sensitivity
            row.append(f"{d:.2f} ({low:.2f} to {'-' if high is None else f'{high:.2f}'})")
        rows.append(row)
    return rows


def _mixed_table(results: ListeningResults) -> TextTable:
    outcome = "right" if results.test.kind == "abx" else "first preferred"
    rows = [["pair", "listeners", f"{outcome} by the median one, %", "p", "spread, logits"]]
    for pair in results.pairs:
        if pair.mixed:
            number, *share, p, spread = pair.mixed
            name = _pair_name(results, pair)
            rows.append([name, str(number), format_share(*share), format_p_value(p), f"{spread:.2f}"])
    return rows


def _strengths_table(results: ListeningResults) -> TextTable:
    assert results.strengths is not None
    strengths, low, high = results.strengths[:3]
    population = results.population_intervals
    rows = [["condition", "strength, logits", "these listeners", "any listeners"]]
    for k in (-strengths).argsort(kind="stable"):
        interval = f"{low[k]:.2f} to {high[k]:.2f}"
        wider = f"{population.low[k]:.2f} to {population.high[k]:.2f}" if population else "-"
        rows.append([results.test.conditions[k], f"{strengths[k]:.2f}", interval, wider])
    return rows


def _ratings_tables(ratings: MushraRatings) -> list[tuple[str, TextTable]]:
    names = ratings.conditions
    medians = [["condition", "listeners", "median", "95 %", "quartiles"]]
    for name, m in zip(names, ratings.medians, strict=True):
        interval = "-" if m.low is None or m.high is None else f"{m.low:.0f} to {m.high:.0f}"
        quartiles = f"{m.quarter:.0f} to {m.three_quarters:.0f}"
        medians.append([name, str(m.listeners), f"{m.median:.0f}", interval, quartiles])
    tables = [("ratings", medians)]
    if ratings.friedman:
        values = [f"{ratings.friedman.statistic:.2f}", format_p_value(ratings.friedman.p)]
        tables.append(("Friedman", [["statistic", "p"], values]))
    differences = [["pair", "median difference", "p", "p (Holm)"]]
    for d in ratings.differences:
        pair = f"{names[d.first]} - {names[d.second]}"
        differences.append([pair, f"{d.median:.1f}", format_p_value(d.p), format_p_value(d.p_holm)])
    tables.append(("differences", differences))
    if not isinstance(ratings.effects, str):
        effects = [["mixed effects", "points", "95 %", "p"]]
        for e in ratings.effects:
            pair = f"{names[e.condition]} - {names[0]}"
            interval = f"{e.low:.1f} to {e.high:.1f}"
            effects.append([pair, f"{e.estimate:.1f}", interval, format_p_value(e.p)])
        tables.append(("mixed effects", effects))
    if ratings.excluded:
        tables.append((_EXCLUDED_HEADING, [["name"], *([name] for name in ratings.excluded)]))
    return tables


def format_share(share: float, low: float | None, high: float | None) -> str:
    """Return a share and its interval in per cent."""
    interval = "" if low is None or high is None else f" ({100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * share:.0f}{interval}"


def format_p_value(p: float) -> str:
    """Return a p-value with three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def check_results_folder(out: Path, overwrite: bool) -> None:
    """Raise before the analysis the errors of a report that cannot be written."""
    check_matplotlib("a report")
    check_report_folder(out, (RESULTS_PAGE, RESULTS_JSON, ANSWERS_CSV, RATINGS_CSV), overwrite)


def write_listening_report(
    out: Path, test_folder: Path, results: ListeningResults, *, overwrite: bool = False
) -> Path:
    """Write the files of the report into a folder; return the page."""
    # Paths in the CSV files are relative, so that both folders can be moved together.
    base = Path(os.path.relpath(real_path(test_folder / STIMULI_FOLDER), real_path(out)))
    files = {
        RESULTS_JSON: json.dumps(results.summary, indent=1, allow_nan=False) + "\n",
        ANSWERS_CSV: _answers_csv(results, base),
        RESULTS_PAGE: _render_results_page(results),
    }
    if results.ratings:
        files[RATINGS_CSV] = _ratings_csv(results.participants, results.ratings.excluded, base)
    for name, text in files.items():
        write_text(out / name, text, overwrite=overwrite)
    return out / RESULTS_PAGE


_ANSWER_COLUMNS = {
    "pairs": ["preferred", "other", "preferred_condition", "other_condition"],
    "abx": ["first", "second", "correct"],
    "mushra": ["condition", "file", "rating"],
}


def _answers_csv(results: ListeningResults, base: Path) -> str:
    """Return one line for each answer, or for each rating (MUSHRA)."""
    rows: list[Sequence[object]] = [
        ["listener", "screen", "group", "start", "chosen", "again", "seconds",
         *_ANSWER_COLUMNS[results.test.kind]]
    ]  # fmt: skip
    for participant in results.participants:
        for r in participant.responses:
            common = [
                participant.name, r.screen_number, r.excerpt.piece, f"{r.excerpt.start:.3f}",
                r.excerpt.chosen, "" if r.repeat_of is None else r.repeat_of, r.seconds,
            ]  # fmt: skip
            if results.test.kind == "mushra":
                rows += [
                    [*common, condition, (base / stimulus.file).as_posix(), rating]
                    for condition, (stimulus, rating) in r.ratings.items()
                ]
            elif results.test.kind == "pairs":
                sounds = [(base / stimulus.file).as_posix() for stimulus in (r.preferred, r.rejected)]
                rows.append([*common, *sounds, r.preferred.condition, r.rejected.condition])
            else:
                conditions = [stimulus.condition for stimulus in r.question.stimuli[:2]]
                rows.append([*common, *conditions, int(r.correct)])
    return _to_csv(rows)


def _ratings_csv(participants: Sequence[Participant], excluded: Sequence[str], base: Path) -> str:
    """Return the mean rating of each sound by the listeners not excluded, for `tonewood train`."""
    ratings_by_sound: dict[tuple[str, str], list[float]] = defaultdict(list)
    for participant in participants:
        if participant.name not in excluded:
            for r in participant.responses:
                for stimulus, rating in r.ratings.values():
                    ratings_by_sound[stimulus.file, r.excerpt.piece].append(rating)
    rows: list[Sequence[object]] = [["file", "rating", "answers", "group", "low", "high"]]
    rows += [
        [(base / file).as_posix(), f"{np.mean(ratings):.3f}", len(ratings), piece, 0, 100]
        for (file, piece), ratings in sorted(ratings_by_sound.items())
    ]
    return _to_csv(rows)


def _to_csv(rows: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _render_results_page(results: ListeningResults) -> str:
    answers = sum(len(participant.responses) for participant in results.participants)
    blocks: list[ReportBlock] = [
        f"{results.test.question} {answers} answers of {len(results.participants)} listeners."
    ]
    if results.excluded_count:
        blocks.append(f"{results.excluded_count} listeners are not counted.")
    for name, share in (
        ("Same answer to a repeated question", results.consistency),
        ("Chose A", results.first_side),
    ):
        if share:
            interval = f"({100 * share.low:.0f} to {100 * share.high:.0f})"
            blocks.append(f"{name}: {100 * share.share:.0f} % {interval} of {share.total}.")
    listeners, *findings = result_tables(results)
    for heading, rows in (*findings, listeners):
        blocks.append(ReportHeading(heading[:1].upper() + heading[1:]))
        if heading in _PAIR_HEADINGS.values():
            blocks.append(ReportFigure(heading, _plot_shares(results), "Shares with 95 % intervals."))
        elif heading == "Bradley-Terry strengths":
            blocks.append(ReportFigure(heading, _plot_strengths(results), "Strengths with 95 % intervals."))
        elif results.ratings and heading == "ratings":
            caption = "All ratings; the line is the median, its notch the 95 % interval."
            blocks.append(ReportFigure(heading, _plot_ratings(results.ratings), caption))
        blocks.append(ReportTable(_TABLE_NOTES[heading], rows))
    return render_report(results.test.title, blocks)


def _plot_shares(results: ListeningResults) -> bytes:
    # The first pair is drawn last, because the axis points upwards.
    rows = [(_pair_name(results, pair), *pair.answers[2:5]) for pair in reversed(results.pairs)]
    label = "right" if results.test.kind == "abx" else "share that preferred the first"
    return _plot_intervals(rows, label, 0.5, (0.0, 1.0))


def _plot_strengths(results: ListeningResults) -> bytes:
    assert results.strengths is not None
    intervals = results.population_intervals or results.strengths[1:3]
    rows = list(zip(results.test.conditions, results.strengths.strength, *intervals, strict=True))
    return _plot_intervals(sorted(rows, key=lambda row: row[1]), "strength, logits", 0.0, None)


def _plot_intervals(
    rows: Sequence[tuple[str, float, float, float]],
    label: str,
    chance: float,
    limits: tuple[float, float] | None,
) -> bytes:
    """Return a PNG of one point and interval for each row of (name, middle, low, high)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    heights = np.arange(len(rows))
    middle, low, high = (np.array([row[k] for row in rows]) for k in (1, 2, 3))
    reach = np.abs(np.stack([middle - low, high - middle]))
    reach = np.where(np.isfinite(reach), reach, 20.0)  # an open interval leaves the picture
    axes.errorbar(middle, heights, xerr=reach, fmt="o", capsize=4)
    axes.axvline(chance, color="0.6", linewidth=1)
    axes.set_yticks(heights, [row[0] for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(label)
    if limits:
        axes.set_xlim(*limits)
    return figure_png(figure)


def _plot_ratings(ratings: MushraRatings) -> bytes:
    """Return a PNG of box plots whose notches are the intervals of the medians."""
    from matplotlib.figure import Figure

    names = ratings.conditions
    figure = Figure(figsize=(1.5 + 1.3 * len(names), 4.5), layout="constrained")
    axes = figure.subplots()
    columns = [column[~np.isnan(column)] for column in np.moveaxis(ratings.scores, 2, 0)]
    medians = [m.median for m in ratings.medians]
    intervals = [
        (m.median if m.low is None else m.low, m.median if m.high is None else m.high)
        for m in ratings.medians
    ]
    axes.boxplot(columns, notch=True, usermedians=medians, conf_intervals=intervals, widths=0.5)
    axes.set_xticks(np.arange(1, len(names) + 1), names, rotation=20)
    axes.set_ylim(-2, 102)
    axes.set_ylabel("rating")
    return figure_png(figure)
