"""What was found, as JSON, as CSV for others and for `tonewood train`, and as a page."""

import csv
import io
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tonewood.files.output import prepare_folder, write_text
from tonewood.listening.design import STIMULI
from tonewood.listening.results import Results
from tonewood.listening.tables import tables
from tonewood.workflow import picture
from tonewood.workflow.figures import png
from tonewood.workflow.page import Block, Heading, Picture, Table, page

PAGE, DATA, ANSWERS, RATINGS = "index.html", "results.json", "answers.csv", "ratings.csv"

_TOLD = {
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


def prepare(out: Path, overwrite: bool) -> None:
    """Make the folder, or refuse before the work what would be refused after it."""
    picture.check("a report")
    prepare_folder(out, (PAGE, DATA, ANSWERS, RATINGS), overwrite)


def write(out: Path, test_folder: Path, found: Results, *, overwrite: bool = False) -> Path:
    """Write the report's files into the folder `out`; returns the page."""
    base = Path(os.path.relpath((test_folder / STIMULI).resolve(), out.resolve()))
    files = {
        DATA: json.dumps(found.summary, indent=1, allow_nan=False) + "\n",
        ANSWERS: _answers(found, base),
        PAGE: _page(found),
    }
    if found.ratings:
        files[RATINGS] = _ratings(found, base)
    for name, text in files.items():
        write_text(out / name, text, overwrite=overwrite)
    return out / PAGE


def _answers(found: Results, base: Path) -> str:
    """Every answer, a line each; of MUSHRA, every rating."""
    rated = found.test.kind == "mushra"
    about = ["condition", "file", "rating"] if rated else []
    if found.test.kind == "pairs":
        about = ["preferred", "other", "preferred_condition", "other_condition"]
    elif found.test.kind == "abx":
        about = ["first", "second", "correct"]
    rows: list[Sequence[object]] = [
        ["listener", "screen", "group", "start", "chosen", "again", "seconds", *about]
    ]
    for person in found.people:
        for it in person.replies:
            head = [
                person.name, it.screen, it.excerpt.piece, f"{it.excerpt.start:.3f}",
                it.excerpt.chosen, "" if it.again is None else it.again, it.seconds,
            ]  # fmt: skip
            if rated:
                rows += [
                    [*head, name, (base / slot.file).as_posix(), rating]
                    for name, (slot, rating) in it.ratings.items()
                ]
            elif found.test.kind == "pairs":
                sounds = [(base / slot.file).as_posix() for slot in (it.preferred, it.other)]
                rows.append([*head, *sounds, it.preferred.condition, it.other.condition])
            else:
                conditions = [slot.condition for slot in it.asked.slots[:2]]
                rows.append([*head, *conditions, int(it.correct)])
    return _csv(rows)


def _ratings(found: Results, base: Path) -> str:
    """Mean rating of every sound over the listeners that were kept: for `tonewood train`."""
    assert found.ratings is not None
    given: dict[tuple[str, str], list[float]] = defaultdict(list)
    for person in found.people:
        if person.name in found.ratings.excluded:
            continue
        for it in person.replies:
            for slot, rating in it.ratings.values():
                given[slot.file, it.excerpt.piece].append(rating)
    rows: list[Sequence[object]] = [["file", "rating", "answers", "group", "low", "high"]]
    rows += [
        [(base / file).as_posix(), f"{np.mean(own):.3f}", len(own), piece, 0, 100]
        for (file, piece), own in sorted(given.items())
    ]
    return _csv(rows)


def _csv(rows: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _page(found: Results) -> str:
    answers = sum(len(person.replies) for person in found.people)
    blocks: list[Block] = [
        f"{found.test.question} {answers} answers of {len(found.people)} listeners."
    ]
    if found.left_out:
        blocks.append(f"{found.left_out} listeners are left out.")
    for name, share in (("Same answer when asked again", found.steady), ("Chose A", found.left)):
        if share:
            told = f"{100 * share.share:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})"
            blocks.append(f"{name}: {told} of {share.total}.")
    listeners, *findings = tables(found)
    for heading, rows in (*findings, listeners):
        blocks.append(Heading(heading[:1].upper() + heading[1:]))
        if heading in ("preference", "told apart"):
            blocks.append(Picture(heading, _shares(found), "Shares with 95 % intervals."))
        elif heading == "Bradley-Terry strengths":
            blocks.append(Picture(heading, _strengths(found), "Strengths with 95 % intervals."))
        elif heading == "ratings":
            told = "All ratings; the line is the median, its notch the 95 % interval."
            blocks.append(Picture(heading, _boxes(found), told))
        blocks.append(Table(_TOLD[heading], rows))
    return page(found.test.title, blocks)


def _shares(found: Results) -> bytes:
    rows = [
        (f"{it.first} {'/' if found.test.kind == 'abx' else 'over'} {it.second}", *it.answers[2:5])
        for it in reversed(found.pairs)  # drawn upwards
    ]
    label = "right" if found.test.kind == "abx" else "share that preferred the first"
    return _intervals(rows, label, 0.5, (0.0, 1.0))


def _strengths(found: Results) -> bytes:
    assert found.strengths is not None
    ends = found.others or found.strengths[1:3]
    rows = list(zip(found.test.conditions, found.strengths.strength, *ends, strict=True))
    return _intervals(sorted(rows, key=lambda it: it[1]), "strength, logits", 0.0, None)


def _intervals(
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
    return png(figure)


def _boxes(found: Results) -> bytes:
    from matplotlib.figure import Figure

    assert found.ratings is not None
    cube, names = found.ratings.cube, found.ratings.conditions
    figure = Figure(figsize=(1.5 + 1.3 * len(names), 4.5), layout="constrained")
    axes = figure.subplots()
    columns = [cube[:, :, k][~np.isnan(cube[:, :, k])] for k in range(len(names))]
    middles = [it.median for it in found.ratings.medians]
    ends = [
        (it.median if it.low is None else it.low, it.median if it.high is None else it.high)
        for it in found.ratings.medians
    ]
    axes.boxplot(columns, notch=True, usermedians=middles, conf_intervals=ends, widths=0.5)
    axes.set_xticks(np.arange(1, len(names) + 1), names, rotation=20)
    axes.set_ylim(-2, 102)
    axes.set_ylabel("rating")
    return png(figure)
