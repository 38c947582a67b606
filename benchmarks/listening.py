"""Test the statistics of listening tests on simulated listeners with known preferences.

    python benchmarks/listening.py [--simulations 1000] [--docs docs/listening.md]

Coverage: how often a 95 % interval holds what was planted. Active choice: how many comparisons it
takes to find the order of the conditions, against pairs drawn at random.
"""

import argparse
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.special import expit
from scipy.stats import kendalltau, norm

from tonewood.stats import bradley_terry, mushra, proportions

BEGIN, END = "<!-- listening:begin -->", "<!-- listening:end -->"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--docs", type=Path)
    call = parser.parse_args()
    block = "\n".join([*coverage_table(call.simulations), "", *active_table()])
    print(block)
    if call.docs:
        before, rest = call.docs.read_text(encoding="utf-8").split(BEGIN)
        text = f"{before}{BEGIN}\n\n{block}\n\n{END}{rest.split(END)[1]}"
        call.docs.write_text(text, encoding="utf-8")


def coverage_table(simulations: int) -> list[str]:
    lines = [
        f"| interval | planted | coverage, % of {simulations} simulations |", "|---|---|---:|",
    ]  # fmt: skip
    for name, (planted, once) in CASES.items():
        held = covered(once, simulations)
        lines.append(f"| {name} | {planted} | {100 * held:.1f} |")
    return lines


def covered(once: Callable[[np.random.Generator], list[bool]], simulations: int) -> float:
    """Return the share of intervals that contain the true value; each simulation has its own seed."""
    return float(np.mean([once(np.random.default_rng([7, k])) for k in range(simulations)]))


def preference(rng: np.random.Generator) -> list[bool]:
    found = proportions.binomial_proportion(int(rng.binomial(400, 0.65)), 400)
    return [found.low <= 0.65 <= found.high]


def listeners(rng: np.random.Generator) -> list[bool]:
    own = rng.beta(6.5, 3.5, 20)  # listeners differ in how much they prefer it; their mean is 0.65
    spread = proportions.mean_over_listeners(rng.binomial(16, own).tolist(), [16] * 20)
    return [spread.low <= 0.65 <= spread.high]


def middle(rng: np.random.Generator, number: int = 20, each: int = 16) -> list[bool]:
    planted = np.log(0.65 / 0.35)
    counts = rng.binomial(each, expit(planted + rng.normal(0, 1, number)))
    found = bradley_terry.fit_mixed_logit(counts.tolist(), [each] * number)
    assert found is not None
    return [found.low <= 0.65 <= found.high]


def few_listeners(rng: np.random.Generator) -> list[bool]:
    return middle(rng, 8, 8)


def sensitivity(rng: np.random.Generator) -> list[bool]:
    correct = int(rng.binomial(320, proportions.abx_correct(1.5)))
    found = proportions.abx_sensitivity(correct, 320)
    return [found.low <= 1.5 <= (found.high or np.inf)]


STRENGTHS = np.array([-1.2, -0.5, 0.1, 0.4, 1.2])


def strengths(rng: np.random.Generator, each: int = 16) -> list[bool]:
    found = bradley_terry.fit_strengths(answered(STRENGTHS, each, rng))
    return ((found.low <= STRENGTHS) & (found.high >= STRENGTHS)).tolist()


def few_answers(rng: np.random.Generator) -> list[bool]:
    return strengths(rng, 5)


def one_pair(rng: np.random.Generator) -> list[bool]:
    found = bradley_terry.fit_strengths(answered(STRENGTHS, 16, rng))
    _, low, high = found.preference_probability(0, 3)
    return [low <= 1 / (1 + np.exp(STRENGTHS[3] - STRENGTHS[0])) <= high]


def unlike_answers(rng: np.random.Generator, number: int, each: int = 2) -> np.ndarray:
    """Simulate wins [listener, condition, condition]; strengths vary by 0.8 between listeners."""
    own = STRENGTHS + rng.normal(0, 0.8, (number, len(STRENGTHS)))
    wins = np.zeros((number, len(STRENGTHS), len(STRENGTHS)))
    for i in range(len(STRENGTHS)):
        for j in range(i + 1, len(STRENGTHS)):
            wins[:, i, j] = rng.binomial(each, expit(own[:, i] - own[:, j]))
            wins[:, j, i] = each - wins[:, i, j]
    return wins


@cache
def among_all() -> np.ndarray:
    """Return the strengths of the whole population."""
    everybody = unlike_answers(np.random.default_rng(0), 200_000, 1)
    return bradley_terry.estimate_strengths(everybody.sum(axis=0))


def others(rng: np.random.Generator) -> list[bool]:
    found = bradley_terry.jackknife_intervals(unlike_answers(rng, 20))
    assert found is not None
    return ((found.low <= among_all()) & (found.high >= among_all())).tolist()


def these(rng: np.random.Generator) -> list[bool]:
    found = bradley_terry.fit_strengths(unlike_answers(rng, 20).sum(axis=0))
    return ((found.low <= among_all()) & (found.high >= among_all())).tolist()


def answered(planted: np.ndarray, each: int, rng: np.random.Generator) -> np.ndarray:
    wins = np.zeros((len(planted), len(planted)))
    for i in range(len(planted)):
        for j in range(i + 1, len(planted)):
            wins[i, j] = rng.binomial(each, 1 / (1 + np.exp(planted[j] - planted[i])))
            wins[j, i] = each - wins[i, j]
    return wins


def median(rng: np.random.Generator) -> list[bool]:
    # Skewed, as ratings near the end of a scale are: 100 less an exponential; median known.
    values = 100 - rng.exponential(20, 17)
    low, high = mushra.median_interval(values)
    return [low <= 100 - 20 * np.log(2) <= high]


EFFECTS = np.array([50.0, 58.0, 47.0, 80.0])


def mixed(rng: np.random.Generator) -> list[bool]:
    own, piece = rng.normal(0, 8, (16, 1, 1)), rng.normal(0, 5, (1, 10, 1))
    ratings = EFFECTS + own + piece + rng.normal(0, 10, (16, 10, 4))
    found = mushra.fit_mixed_effects(ratings)
    return [it.low <= EFFECTS[it.condition] - EFFECTS[0] <= it.high for it in found]


CASES: dict[str, tuple[str, Callable[[np.random.Generator], list[bool]]]] = {
    "share, exact": ("65 % of 400 answers", preference),
    "share, by listeners": ("65 % on average, 20 unlike listeners, 16 answers each", listeners),
    "share, any listener": ("median listener 65 %, 20 unlike listeners, 16 each", middle),
    "share, any listener, few": ("median listener 65 %, 8 unlike listeners, 8 each", few_listeners),
    "ABX d′": ("1.5, 320 answers", sensitivity),
    "Bradley-Terry strength": ("5 conditions, 16 answers a pair", strengths),
    "Bradley-Terry strength, few answers": ("5 conditions, 5 answers a pair", few_answers),
    "Bradley-Terry, one pair": ("5 conditions, 16 answers a pair", one_pair),
    "Bradley-Terry, any listeners": ("5 conditions, 20 unlike listeners, 2 answers a pair", others),
    "the same, answers treated as independent": ("for comparison", these),
    "MUSHRA median": ("17 listeners, skewed ratings", median),
    "mixed effects": ("16 listeners, 10 trials, 4 conditions", mixed),
}


def active_table(runs: int = 100) -> list[str]:
    lines = [
        "| conditions | spread of strengths, logits | random: τ 0.8, 0.9 | active: τ 0.8, 0.9 |",
        "|---:|---:|---:|---:|",
    ]
    for count, spread in ((8, 1.5), (16, 1.5), (16, 2.5), (24, 2.5), (40, 2.5)):
        curves = (
            np.mean([curve(count, spread, way, seed) for seed in range(runs)], axis=0)
            for way in (False, True)
        )
        needed = (", ".join(told(comparisons(it, tau)) for tau in (0.8, 0.9)) for it in curves)
        lines.append(f"| {count} | {spread:g} | {' | '.join(needed)} |")
    return lines


def comparisons(curve: np.ndarray, wanted: float) -> float:
    """Return the number of comparisons after which the mean τ stays above a value."""
    below = np.flatnonzero(curve < wanted)
    return float(STEP * (below[-1] + 2)) if below[-1] + 1 < len(curve) else np.inf


def told(number: float) -> str:
    return f"{number:.0f}" if np.isfinite(number) else f"over {MOST}"


STEP, MOST = 4, 500


def curve(count: int, spread: float, active: bool, seed: int, most: int | None = None) -> np.ndarray:
    """Return Kendall's τ between true and estimated order over the number of comparisons."""
    rng = np.random.default_rng([11, seed])
    planted = spread * norm.ppf((rng.permutation(count) + 0.5) / count)
    wins, found = np.zeros((count, count)), []
    for number in range(1, (most or MOST) + 1):
        pair = bradley_terry.most_informative_pair(wins, rng) if active else drawn(count, rng)
        i, j = pair
        first = rng.random() < 1 / (1 + np.exp(planted[j] - planted[i]))
        wins[pair if first else pair[::-1]] += 1
        if number % STEP == 0:
            mean = bradley_terry.estimate_posterior(wins).mean
            found.append(kendalltau(planted, mean).statistic)
    return np.nan_to_num(np.array(found))


def drawn(count: int, rng: np.random.Generator) -> tuple[int, int]:
    i, j = rng.permutation(count)[:2]
    return int(i), int(j)


if __name__ == "__main__":
    main()
