"""Test the statistics of listening tests on simulated listeners with known preferences.

    python benchmarks/listening.py [--simulations 1000] [--docs docs/listening.md]

Coverage: how often a 95 % interval contains the planted value. Active choice: how many comparisons it
takes to find the order of the conditions, compared with pairs drawn at random.
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
    options = parser.parse_args()
    block = "\n".join([*coverage_table(options.simulations), "", *active_table()])
    print(block)
    if options.docs:
        before, rest = options.docs.read_text(encoding="utf-8").split(BEGIN)
        text = f"{before}{BEGIN}\n\n{block}\n\n{END}{rest.split(END)[1]}"
        options.docs.write_text(text, encoding="utf-8")


def coverage_table(simulations: int) -> list[str]:
    lines = [
        f"| interval | planted | coverage, % of {simulations} simulations |", "|---|---|---:|",
    ]  # fmt: skip
    for name, (planted, simulate) in CASES.items():
        coverage = measure_coverage(simulate, simulations)
        lines.append(f"| {name} | {planted} | {100 * coverage:.1f} |")
    return lines


def measure_coverage(simulate: Callable[[np.random.Generator], list[bool]], simulations: int) -> float:
    """Return the share of intervals that contain the true value; each simulation has its own seed."""
    return float(np.mean([simulate(np.random.default_rng([7, k])) for k in range(simulations)]))


def preference(rng: np.random.Generator) -> list[bool]:
    interval = proportions.binomial_proportion(int(rng.binomial(400, 0.65)), 400)
    return [interval.low <= 0.65 <= interval.high]


def listeners(rng: np.random.Generator) -> list[bool]:
    own = rng.beta(6.5, 3.5, 20)  # listeners differ in how much they prefer it; their mean is 0.65
    spread = proportions.mean_over_listeners(rng.binomial(16, own).tolist(), [16] * 20)
    return [spread.low <= 0.65 <= spread.high]


def median_listener(rng: np.random.Generator, number: int = 20, each: int = 16) -> list[bool]:
    planted = np.log(0.65 / 0.35)
    counts = rng.binomial(each, expit(planted + rng.normal(0, 1, number)))
    interval = bradley_terry.fit_mixed_logit(counts.tolist(), [each] * number)
    assert interval is not None
    return [interval.low <= 0.65 <= interval.high]


def few_listeners(rng: np.random.Generator) -> list[bool]:
    return median_listener(rng, 8, 8)


def sensitivity(rng: np.random.Generator) -> list[bool]:
    correct = int(rng.binomial(320, proportions.abx_correct(1.5)))
    interval = proportions.abx_sensitivity(correct, 320)
    return [interval.low <= 1.5 <= (interval.high or np.inf)]


STRENGTHS = np.array([-1.2, -0.5, 0.1, 0.4, 1.2])


def strengths(rng: np.random.Generator, each: int = 16) -> list[bool]:
    intervals = bradley_terry.fit_strengths(simulate_wins(STRENGTHS, each, rng))
    return ((intervals.low <= STRENGTHS) & (intervals.high >= STRENGTHS)).tolist()


def few_answers(rng: np.random.Generator) -> list[bool]:
    return strengths(rng, 5)


def one_pair(rng: np.random.Generator) -> list[bool]:
    fit = bradley_terry.fit_strengths(simulate_wins(STRENGTHS, 16, rng))
    _, low, high = fit.preference_probability(0, 3)
    return [low <= 1 / (1 + np.exp(STRENGTHS[3] - STRENGTHS[0])) <= high]


def simulate_listeners(rng: np.random.Generator, number: int, each: int = 2) -> np.ndarray:
    """Simulate wins [listener, condition, condition]; strengths vary by 0.8 between listeners."""
    own = STRENGTHS + rng.normal(0, 0.8, (number, len(STRENGTHS)))
    wins = np.zeros((number, len(STRENGTHS), len(STRENGTHS)))
    for i in range(len(STRENGTHS)):
        for j in range(i + 1, len(STRENGTHS)):
            wins[:, i, j] = rng.binomial(each, expit(own[:, i] - own[:, j]))
            wins[:, j, i] = each - wins[:, i, j]
    return wins


@cache
def population_strengths() -> np.ndarray:
    """Return the strengths of the whole population."""
    everybody = simulate_listeners(np.random.default_rng(0), 200_000, 1)
    return bradley_terry.estimate_strengths(everybody.sum(axis=0))


def any_listeners(rng: np.random.Generator) -> list[bool]:
    intervals = bradley_terry.jackknife_intervals(simulate_listeners(rng, 20))
    assert intervals is not None
    return ((intervals.low <= population_strengths()) & (intervals.high >= population_strengths())).tolist()


def same_listeners(rng: np.random.Generator) -> list[bool]:
    intervals = bradley_terry.fit_strengths(simulate_listeners(rng, 20).sum(axis=0))
    return ((intervals.low <= population_strengths()) & (intervals.high >= population_strengths())).tolist()


def simulate_wins(planted: np.ndarray, each: int, rng: np.random.Generator) -> np.ndarray:
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


def mixed_effects(rng: np.random.Generator) -> list[bool]:
    own, piece = rng.normal(0, 8, (16, 1, 1)), rng.normal(0, 5, (1, 10, 1))
    ratings = EFFECTS + own + piece + rng.normal(0, 10, (16, 10, 4))
    effects = mushra.fit_mixed_effects(ratings)
    return [effect.low <= EFFECTS[effect.condition] - EFFECTS[0] <= effect.high for effect in effects]


CASES: dict[str, tuple[str, Callable[[np.random.Generator], list[bool]]]] = {
    "share, exact": ("65 % of 400 answers", preference),
    "share, by listeners": ("65 % on average, 20 unlike listeners, 16 answers each", listeners),
    "share, any listener": ("median listener 65 %, 20 unlike listeners, 16 each", median_listener),
    "share, any listener, few": ("median listener 65 %, 8 unlike listeners, 8 each", few_listeners),
    "ABX d′": ("1.5, 320 answers", sensitivity),
    "Bradley-Terry strength": ("5 conditions, 16 answers a pair", strengths),
    "Bradley-Terry strength, few answers": ("5 conditions, 5 answers a pair", few_answers),
    "Bradley-Terry, one pair": ("5 conditions, 16 answers a pair", one_pair),
    "Bradley-Terry, any listeners": ("5 conditions, 20 unlike listeners, 2 answers a pair", any_listeners),
    "the same, answers treated as independent": ("for comparison", same_listeners),
    "MUSHRA median": ("17 listeners, skewed ratings", median),
    "mixed effects": ("16 listeners, 10 trials, 4 conditions", mixed_effects),
}


def active_table(runs: int = 100) -> list[str]:
    lines = [
        "| conditions | spread of strengths, logits | random: τ 0.8, 0.9 | active: τ 0.8, 0.9 |",
        "|---:|---:|---:|---:|",
    ]
    for count, spread in ((8, 1.5), (16, 1.5), (16, 2.5), (24, 2.5), (40, 2.5)):
        curves = (
            np.mean([curve(count, spread, active, seed) for seed in range(runs)], axis=0)
            for active in (False, True)
        )
        needed = (
            ", ".join(format_count(comparisons_needed(mean_tau, tau)) for tau in (0.8, 0.9))
            for mean_tau in curves
        )
        lines.append(f"| {count} | {spread:g} | {' | '.join(needed)} |")
    return lines


def comparisons_needed(curve: np.ndarray, tau: float) -> float:
    """Return the number of comparisons after which the mean τ stays above a value."""
    below = np.flatnonzero(curve < tau)
    return float(STEP * (below[-1] + 2)) if below[-1] + 1 < len(curve) else np.inf


def format_count(number: float) -> str:
    return f"{number:.0f}" if np.isfinite(number) else f"over {MAX_COMPARISONS}"


STEP, MAX_COMPARISONS = 4, 500


def curve(count: int, spread: float, active: bool, seed: int) -> np.ndarray:
    """Return Kendall's τ between true and estimated order over the number of comparisons."""
    rng = np.random.default_rng([11, seed])
    planted = spread * norm.ppf((rng.permutation(count) + 0.5) / count)
    wins, taus = np.zeros((count, count)), []
    for number in range(1, MAX_COMPARISONS + 1):
        pair = bradley_terry.most_informative_pair(wins, rng) if active else draw_pair(count, rng)
        i, j = pair
        prefers_first = rng.random() < 1 / (1 + np.exp(planted[j] - planted[i]))
        wins[pair if prefers_first else pair[::-1]] += 1
        if number % STEP == 0:
            mean = bradley_terry.estimate_posterior(wins).mean
            taus.append(kendalltau(planted, mean).statistic)
    return np.nan_to_num(np.array(taus))


def draw_pair(count: int, rng: np.random.Generator) -> tuple[int, int]:
    i, j = rng.permutation(count)[:2]
    return int(i), int(j)


if __name__ == "__main__":
    main()
