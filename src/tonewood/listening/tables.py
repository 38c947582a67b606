"""Findings as tables of text, for the terminal and for the page."""

from tonewood.listening.results import Ratings, Results

Text = list[list[str]]

_HEADS = {"pairs": "preference", "abx": "told apart"}


def tables(found: Results) -> list[tuple[str, Text]]:
    """Everything that was found as headed tables; each has its own head first."""
    made = [("listeners", _people_table(found))]
    if found.pairs:
        made.append((_HEADS[found.test.kind], _pairs_table(found)))
    if any(pair.mixed for pair in found.pairs):
        made.append(("any listener", _mixed_table(found)))
    if found.strengths:
        made.append(("Bradley-Terry strengths", _strengths_table(found)))
    if found.ratings:
        made += _ratings_tables(found.ratings)
    return made


def _people_table(found: Results) -> Text:
    rows = [["name", "code", "answers", "finished", "headphones", "hearing"]]
    for it in found.people:
        phones = "-" if it.headphones is None else "passed" if it.headphones else "failed"
        ears = "-" if it.hearing is None else f"{100 * it.hearing:.0f} %"
        done = "yes" if it.finished else "no"
        rows.append([it.name, it.code, str(len(it.replies)), done, phones, ears])
    return rows


def _pairs_table(found: Results) -> Text:
    abx = found.test.kind == "abx"
    head = ["pair", "answers", "right, %" if abx else "first preferred, %", "by listeners, %"]
    rows = [[*head, "where most was done, %", "at random, %", "p (Holm)"]]
    if abx:
        rows[0].append("d'")
    for pair in found.pairs:
        joined = f"{pair.first} {'/' if abx else 'over'} {pair.second}"
        spread = pair.listeners
        row = [joined, str(pair.answers.total), percent(*pair.answers[2:5])]
        row.append(percent(spread.mean, spread.low, spread.high))
        row += [
            percent(*pair.where[k][2:5]) if k in pair.where else "-" for k in ("mask", "random")
        ]
        row.append(probability(pair.p_holm))
        if pair.sensitivity:
            d, low, high = pair.sensitivity
            row.append(f"{d:.2f} ({low:.2f} to {'-' if high is None else f'{high:.2f}'})")
        rows.append(row)
    return rows


def _mixed_table(found: Results) -> Text:
    """Effects of a model in which listeners are drawn at random."""
    said = "right" if found.test.kind == "abx" else "first preferred"
    rows = [["pair", "listeners", f"{said} by the middle one, %", "p", "spread, logits"]]
    for pair in found.pairs:
        if pair.mixed:
            number, *share, p, spread = pair.mixed
            joined = f"{pair.first} {'/' if found.test.kind == 'abx' else 'over'} {pair.second}"
            rows.append([joined, str(number), percent(*share), probability(p), f"{spread:.2f}"])
    return rows


def _strengths_table(found: Results) -> Text:
    assert found.strengths is not None
    strengths, low, high = found.strengths[:3]
    rows = [["condition", "strength, logits", "these listeners", "any listeners"]]
    for k in (-strengths).argsort(kind="stable"):
        others = f"{found.others.low[k]:.2f} to {found.others.high[k]:.2f}" if found.others else "-"
        own = f"{low[k]:.2f} to {high[k]:.2f}"
        rows.append([found.test.conditions[k], f"{strengths[k]:.2f}", own, others])
    return rows


def _ratings_tables(found: Ratings) -> list[tuple[str, Text]]:
    names = found.conditions
    medians = [["condition", "listeners", "median", "95 %", "quartiles"]]
    for name, it in zip(names, found.medians, strict=True):
        ends = "-" if it.low is None or it.high is None else f"{it.low:.0f} to {it.high:.0f}"
        quartiles = f"{it.quarter:.0f} to {it.three_quarters:.0f}"
        medians.append([name, str(it.listeners), f"{it.median:.0f}", ends, quartiles])
    gaps = [["pair", "median difference", "p", "p (Holm)"]]
    for gap in found.differences:
        pair = f"{names[gap.first]} - {names[gap.second]}"
        gaps.append([pair, f"{gap.median:.1f}", probability(gap.p), probability(gap.p_holm)])
    made = [("ratings", medians)]
    if found.friedman:
        told = [f"{found.friedman.statistic:.2f}", probability(found.friedman.p)]
        made.append(("Friedman", [["statistic", "p"], told]))
    made.append(("differences", gaps))
    if not isinstance(found.effects, str):
        rows = [["mixed effects", "points", "95 %", "p"]]
        for effect in found.effects:
            pair = f"{names[effect.condition]} - {names[0]}"
            ends = f"{effect.low:.1f} to {effect.high:.1f}"
            rows.append([pair, f"{effect.estimate:.1f}", ends, probability(effect.p)])
        made.append(("mixed effects", rows))
    if found.excluded:
        made.append(("left out by post-screening", [["name"], *([n] for n in found.excluded)]))
    return made


def percent(middle: float, low: float | None, high: float | None) -> str:
    """A share and its interval in per cent."""
    ends = "" if low is None or high is None else f" ({100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * middle:.0f}{ends}"


def probability(p: float) -> str:
    """A p-value, never more exact than it is worth."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
