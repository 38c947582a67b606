"""Findings as tables of text, for the terminal and for the page."""

from tonewood.listening.results import MushraRatings, ListeningResults

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
        row += [
            format_share(*pair.where[k][2:5]) if k in pair.where else "-" for k in ("mask", "random")
        ]
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
        others = f"{results.population_intervals.low[k]:.2f} to {results.population_intervals.high[k]:.2f}" if results.population_intervals else "-"
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
