"""What was found, as JSON, as CSV for others and for `tonewood train`, and as a page.

Findings as tables of text, for the terminal and for the page.
"""

import csv
import io
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tonewood.enhancement import plotting
from tonewood.html_report import (
    ReportBlock,
    ReportFigure,
    ReportHeading,
    ReportTable,
    figure_png,
    render_report,
)
from tonewood.listening.analysis import ListeningResults, MushraRatings
from tonewood.listening.definition import STIMULI_FOLDER
from tonewood.utils.atomic_write import prepare_report_folder, write_text

TextTable = list[list[str]]

_PAIR_HEADINGS = {"pairs": "preference", "abx": "told apart"}


def result_tables(results: ListeningResults) -> list[tuple[str, TextTable]]:
    """Everything that was found as headed tables; each has its own head first."""
    made = [("listeners", _participants_table(results))]
    if results.pairs:
        made.append((_PAIR_HEADINGS[results.test.kind], _pairs_table(results)))
    if any(pair.mixed for pair in results.pairs):
        made.append(("any listener", _mixed_table(results)))
    if results.strengths:
        made.append(("Bradley-Terry strengths", _strengths_table(results)))
    if results.ratings:
        made += _ratings_tables(results.ratings)
    return made


def _participants_table(results: ListeningResults) -> TextTable:
    rows = [["name", "code", "answers", "finished", "headphones", "hearing"]]
    for it in results.participants:
        phones = "-" if it.headphones is None else "passed" if it.headphones else "failed"
        ears = "-" if it.hearing is None else f"{100 * it.hearing:.0f} %"
        done = "yes" if it.finished else "no"
        rows.append([it.name, it.code, str(len(it.responses)), done, phones, ears])
    return rows


def _pairs_table(results: ListeningResults) -> TextTable:
    abx = results.test.kind == "abx"
    head = ["pair", "answers", "right, %" if abx else "first preferred, %", "by listeners, %"]
    rows = [[*head, "where most was done, %", "at random, %", "p (Holm)"]]
    if abx:
        rows[0].append("d'")
    for pair in results.pairs:
        joined = f"{pair.first} {'/' if abx else 'over'} {pair.second}"
        spread = pair.listeners
        row = [joined, str(pair.answers.total), format_share(*pair.answers[2:5])]
        row.append(format_share(spread.mean, spread.low, spread.high))
        row += [format_share(*pair.where[k][2:5]) if k in pair.where else "-" for k in ("mask", "random")]
        row.append(format_p_value(pair.p_holm))
        if pair.sensitivity:
            d, low, high = pair.sensitivity
            row.append(f"{d:.2f} ({low:.2f} to {'-' if high is None else f'{high:.2f}'})")
        rows.append(row)
    return rows


def _mixed_table(results: ListeningResults) -> TextTable:
    """Effects of a model in which listeners are drawn at random."""
    said = "right" if results.test.kind == "abx" else "first preferred"
    rows = [["pair", "listeners", f"{said} by the middle one, %", "p", "spread, logits"]]
    for pair in results.pairs:
        if pair.mixed:
            number, *share, p, spread = pair.mixed
            joined = f"{pair.first} {'/' if results.test.kind == 'abx' else 'over'} {pair.second}"
            rows.append([joined, str(number), format_share(*share), format_p_value(p), f"{spread:.2f}"])
    return rows


def _strengths_table(results: ListeningResults) -> TextTable:
    assert results.strengths is not None
    strengths, low, high = results.strengths[:3]
    rows = [["condition", "strength, logits", "these listeners", "any listeners"]]
    for k in (-strengths).argsort(kind="stable"):
        others = (
            f"{results.population_intervals.low[k]:.2f} to {results.population_intervals.high[k]:.2f}"
            if results.population_intervals
            else "-"
        )
        own = f"{low[k]:.2f} to {high[k]:.2f}"
        rows.append([results.test.conditions[k], f"{strengths[k]:.2f}", own, others])
    return rows


def _ratings_tables(ratings: MushraRatings) -> list[tuple[str, TextTable]]:
    names = ratings.conditions
    medians = [["condition", "listeners", "median", "95 %", "quartiles"]]
    for name, it in zip(names, ratings.medians, strict=True):
        ends = "-" if it.low is None or it.high is None else f"{it.low:.0f} to {it.high:.0f}"
        quartiles = f"{it.quarter:.0f} to {it.three_quarters:.0f}"
        medians.append([name, str(it.listeners), f"{it.median:.0f}", ends, quartiles])
    gaps = [["pair", "median difference", "p", "p (Holm)"]]
    for gap in ratings.differences:
        pair = f"{names[gap.first]} - {names[gap.second]}"
        gaps.append([pair, f"{gap.median:.1f}", format_p_value(gap.p), format_p_value(gap.p_holm)])
    made = [("ratings", medians)]
    if ratings.friedman:
        told = [f"{ratings.friedman.statistic:.2f}", format_p_value(ratings.friedman.p)]
        made.append(("Friedman", [["statistic", "p"], told]))
    made.append(("differences", gaps))
    if not isinstance(ratings.effects, str):
        rows = [["mixed effects", "points", "95 %", "p"]]
        for effect in ratings.effects:
            pair = f"{names[effect.condition]} - {names[0]}"
            ends = f"{effect.low:.1f} to {effect.high:.1f}"
            rows.append([pair, f"{effect.estimate:.1f}", ends, format_p_value(effect.p)])
        made.append(("mixed effects", rows))
    if ratings.excluded:
        made.append(("left out by post-screening", [["name"], *([n] for n in ratings.excluded)]))
    return made


def format_share(middle: float, low: float | None, high: float | None) -> str:
    """A share and its interval in per cent."""
    ends = "" if low is None or high is None else f" ({100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * middle:.0f}{ends}"


def format_p_value(p: float) -> str:
    """A p-value, never more exact than it is worth."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


RESULTS_PAGE, RESULTS_JSON, ANSWERS_CSV, RATINGS_CSV = (
    "index.html",
    "results.json",
    "answers.csv",
    "ratings.csv",
)

_TABLE_NOTES = {
    "listeners": "Who is counted. Headphones: five of six right, after Woods et al. (2017).",
    "preference": "Shares with exact intervals (Clopper and Pearson), which take all answers for "
    "independent; by listeners, each counts once (Student's t). p is of the exact binomial test.",
    "told apart": "Shares right with exact intervals; chance is 50 %. p is one-sided. d' by the "
    "differencing rule.",
    "any listener": "A logistic model with a random intercept for each listener: the share of the "
    "middle listener, profile intervals, and how far listeners lie apart (standard deviation).",
    "Bradley-Terry strengths": "P(i preferred to j) = 1 / (1 + exp(j - i)); penalised likelihood "
    "after Firth. Profile intervals take all answers for independent and hold for these listeners; "
    "those for any listeners leave out one of them at a time.",
    "ratings": "Each listener's mean counts once; intervals of the median between order "
    "statistics. Quartiles are of all ratings.",
    "Friedman": "Whether the conditions differ at all.",
    "differences": "Wilcoxon's signed ranks of the listeners' means.",
    "mixed effects": "Listeners and trials drawn at random, restricted maximum likelihood.",
    "left out by post-screening": "ITU-R BS.1534-3, 4.1.2.",
}


def prepare_results_folder(out: Path, overwrite: bool) -> None:
    """Make the folder, or refuse before the work what would be refused after it."""
    plotting.check_matplotlib("a report")
    prepare_report_folder(out, (RESULTS_PAGE, RESULTS_JSON, ANSWERS_CSV, RATINGS_CSV), overwrite)


def write_listening_report(
    out: Path, test_folder: Path, results: ListeningResults, *, overwrite: bool = False
) -> Path:
    """Write the report's files into the folder `out`; returns the page."""
    base = Path(os.path.relpath((test_folder / STIMULI_FOLDER).resolve(), out.resolve()))
    files = {
        RESULTS_JSON: json.dumps(results.summary, indent=1, allow_nan=False) + "\n",
        ANSWERS_CSV: _answers_csv(results, base),
        RESULTS_PAGE: _render_results_page(results),
    }
    if results.ratings:
        files[RATINGS_CSV] = _ratings_csv(results, base)
    for name, text in files.items():
        write_text(out / name, text, overwrite=overwrite)
    return out / RESULTS_PAGE


def _answers_csv(results: ListeningResults, base: Path) -> str:
    """Every answer, a line each; of MUSHRA, every rating."""
    rated = results.test.kind == "mushra"
    about = ["condition", "file", "rating"] if rated else []
    if results.test.kind == "pairs":
        about = ["preferred", "other", "preferred_condition", "other_condition"]
    elif results.test.kind == "abx":
        about = ["first", "second", "correct"]
    rows: list[Sequence[object]] = [
        ["listener", "screen", "group", "start", "chosen", "again", "seconds", *about]
    ]
    for person in results.participants:
        for it in person.responses:
            head = [
                person.name, it.screen_number, it.excerpt.piece, f"{it.excerpt.start:.3f}",
                it.excerpt.chosen, "" if it.repeat_of is None else it.repeat_of, it.seconds,
            ]  # fmt: skip
            if rated:
                rows += [
                    [*head, name, (base / slot.file).as_posix(), rating]
                    for name, (slot, rating) in it.ratings.items()
                ]
            elif results.test.kind == "pairs":
                sounds = [(base / slot.file).as_posix() for slot in (it.preferred, it.rejected)]
                rows.append([*head, *sounds, it.preferred.condition, it.rejected.condition])
            else:
                conditions = [slot.condition for slot in it.question.stimuli[:2]]
                rows.append([*head, *conditions, int(it.correct)])
    return _to_csv(rows)


def _ratings_csv(results: ListeningResults, base: Path) -> str:
    """Mean rating of every sound over the listeners that were kept: for `tonewood train`."""
    assert results.ratings is not None
    given: dict[tuple[str, str], list[float]] = defaultdict(list)
    for person in results.participants:
        if person.name in results.ratings.excluded:
            continue
        for it in person.responses:
            for slot, rating in it.ratings.values():
                given[slot.file, it.excerpt.piece].append(rating)
    rows: list[Sequence[object]] = [["file", "rating", "answers", "group", "low", "high"]]
    rows += [
        [(base / file).as_posix(), f"{np.mean(own):.3f}", len(own), piece, 0, 100]
        for (file, piece), own in sorted(given.items())
    ]
    return _to_csv(rows)


def _to_csv(rows: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _render_results_page(results: ListeningResults) -> str:
    answers = sum(len(person.responses) for person in results.participants)
    blocks: list[ReportBlock] = [
        f"{results.test.question} {answers} answers of {len(results.participants)} listeners."
    ]
    if results.excluded_count:
        blocks.append(f"{results.excluded_count} listeners are left out.")
    for name, share in (
        ("Same answer when asked again", results.consistency),
        ("Chose A", results.first_side),
    ):
        if share:
            told = f"{100 * share.share:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})"
            blocks.append(f"{name}: {told} of {share.total}.")
    listeners, *findings = result_tables(results)
    for heading, rows in (*findings, listeners):
        blocks.append(ReportHeading(heading[:1].upper() + heading[1:]))
        if heading in ("preference", "told apart"):
            blocks.append(ReportFigure(heading, _plot_shares(results), "Shares with 95 % intervals."))
        elif heading == "Bradley-Terry strengths":
            blocks.append(ReportFigure(heading, _plot_strengths(results), "Strengths with 95 % intervals."))
        elif heading == "ratings":
            told = "All ratings; the line is the median, its notch the 95 % interval."
            blocks.append(ReportFigure(heading, _plot_ratings(results), told))
        blocks.append(ReportTable(_TABLE_NOTES[heading], rows))
    return render_report(results.test.title, blocks)


def _plot_shares(results: ListeningResults) -> bytes:
    rows = [
        (
            f"{it.first} {'/' if results.test.kind == 'abx' else 'over'} {it.second}",
            *it.answers[2:5],
        )
        for it in reversed(results.pairs)  # drawn upwards
    ]
    label = "right" if results.test.kind == "abx" else "share that preferred the first"
    return _plot_intervals(rows, label, 0.5, (0.0, 1.0))


def _plot_strengths(results: ListeningResults) -> bytes:
    assert results.strengths is not None
    ends = results.population_intervals or results.strengths[1:3]
    rows = list(zip(results.test.conditions, results.strengths.strength, *ends, strict=True))
    return _plot_intervals(sorted(rows, key=lambda it: it[1]), "strength, logits", 0.0, None)


def _plot_intervals(
    rows: Sequence[tuple[str, float, float, float]],
    label: str,
    chance: float,
    limits: tuple[float, float] | None,
) -> bytes:
    """Points with their intervals, a line each; a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    middle, low, high = (np.array([row[k] for row in rows]) for k in (1, 2, 3))
    ends = np.abs(np.stack([middle - low, high - middle]))
    axes.errorbar(middle, places, xerr=np.where(np.isfinite(ends), ends, 20.0), fmt="o", capsize=4)
    axes.axvline(chance, color="0.6", linewidth=1)
    axes.set_yticks(places, [row[0] for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(label)
    if limits:
        axes.set_xlim(*limits)
    return figure_png(figure)


def _plot_ratings(results: ListeningResults) -> bytes:
    from matplotlib.figure import Figure

    assert results.ratings is not None
    cube, names = results.ratings.scores, results.ratings.conditions
    figure = Figure(figsize=(1.5 + 1.3 * len(names), 4.5), layout="constrained")
    axes = figure.subplots()
    columns = [cube[:, :, k][~np.isnan(cube[:, :, k])] for k in range(len(names))]
    middles = [it.median for it in results.ratings.medians]
    ends = [
        (it.median if it.low is None else it.low, it.median if it.high is None else it.high)
        for it in results.ratings.medians
    ]
    axes.boxplot(columns, notch=True, usermedians=middles, conf_intervals=ends, widths=0.5)
    axes.set_xticks(np.arange(1, len(names) + 1), names, rotation=20)
    axes.set_ylim(-2, 102)
    axes.set_ylabel("rating")
    return figure_png(figure)
