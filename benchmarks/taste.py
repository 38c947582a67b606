"""Test whether a scorer learns a known preference from pairs, and whether enhancement follows it.

    python benchmarks/taste.py [--seeds 3] [--docs docs/listening.md]

Listeners are simulated: they like what is bright, by the slope of the long-term spectrum, and
choose by Bradley and Terry's rule. 60 recordings are compared; 40 others are ordered by the scorer,
and 20 of them enhanced. Pairs are drawn at random, or chosen as the most informative.
"""

import argparse
import csv
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import soundfile
import torch
from planted.instrument import PLAIN, RATE, phrase
from scipy.signal import welch
from scipy.stats import kendalltau

from tonewood.enhancement.analysis import score_array
from tonewood.enhancement.pipeline import enhance_array
from tonewood.settings import EnhanceSettings, ModelSettings
from tonewood.stats.bradley_terry import most_informative_pair
from tonewood.training import pipeline

BEGIN, END = "<!-- taste:begin -->", "<!-- taste:end -->"
RECORDINGS, UNSEEN, ENHANCED, SECONDS = 60, 40, 20, 6.0
SPREAD = 3.0  # of the taste, logits
DESIGNS = (("random", 600), ("random", 360), ("active", 360))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "| pairs | comparisons | τ on unseen recordings | held-out agreement, % "
        "| change of preferred quality, dB/octave | improved, of those changed |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    results = [[measure_seed(seed, *design) for seed in range(options.seeds)] for design in DESIGNS]
    for (selection, count), runs in zip(DESIGNS, results, strict=True):
        tau, agreement, moved, improved, changed_ = np.array(runs, dtype=float).T
        spread = f"{tau.mean():.2f} ({tau.min():.2f} to {tau.max():.2f})"
        lines.append(
            f"| {selection} | {count} | {spread} | {100 * agreement.mean():.0f} | {moved.mean():+.2f} "
            f"| {improved.sum():.0f} of {changed_.sum():.0f} |"
        )
    block = "\n".join(lines)
    print(block)
    if options.docs:
        before, rest = options.docs.read_text(encoding="utf-8").split(BEGIN)
        text = f"{before}{BEGIN}\n\n{block}\n\n{END}{rest.split(END)[1]}"
        options.docs.write_text(text, encoding="utf-8")


def takes(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [tilt(phrase(PLAIN, SECONDS, seed + k), rng.normal(0, 2)) for k in range(count)]


def tilt(wave: np.ndarray, db_per_octave: float) -> np.ndarray:
    hz = np.fft.rfftfreq(len(wave), 1 / RATE)
    gain = 10 ** (db_per_octave * np.log2(np.clip(hz, 60, 8_000) / 700) / 20)
    filtered = np.fft.irfft(np.fft.rfft(wave) * gain, len(wave))
    return (0.1 * filtered / np.std(filtered)).astype(np.float32)


def brightness(wave: np.ndarray) -> float:
    """Return the slope of the long-term spectrum, dB per octave."""
    hz, power = welch(wave, RATE, nperseg=2048)
    used = (hz > 100) & (hz < 7_000)
    return float(np.polyfit(np.log2(hz[used]), 10 * np.log10(power[used] + 1e-12), 1)[0])


def comparisons(taste: np.ndarray, selection: str, count: int, rng: np.random.Generator) -> list:
    wins, answers = np.zeros((len(taste), len(taste))), []
    for _ in range(count):
        pair = most_informative_pair(wins, rng) if selection == "active" else rng.permutation(len(taste))[:2]
        i, j = map(int, pair)
        if rng.random() >= 1 / (1 + np.exp(taste[j] - taste[i])):
            i, j = j, i
        wins[i, j] += 1
        answers.append((f"{i}.wav", f"{j}.wav"))
    return answers


def measure_seed(seed: int, selection: str, count: int) -> tuple[float, float, float, int, int]:
    waves, unseen = takes(RECORDINGS, 1_000 * seed), takes(UNSEEN, 1_000 * seed + 500)
    taste = np.array([brightness(wave) for wave in waves])
    taste = SPREAD * (taste - taste.mean()) / taste.std()
    rng = np.random.default_rng([13, seed])
    with tempfile.TemporaryDirectory() as folder:
        for k, wave in enumerate(waves):
            soundfile.write(Path(folder) / f"{k}.wav", wave, RATE)
        table = Path(folder) / "answers.csv"
        with table.open("w", newline="") as stream:
            rows = [("preferred", "other"), *comparisons(taste, selection, count, rng)]
            csv.writer(stream).writerows(rows)
        settings = ModelSettings().replace(training=dict(seed=seed))
        *_, model = pipeline.train_model(None, None, settings, preferences=table)
    scores = [score_array(wave[None], RATE, model).scorer for wave in unseen]
    tau = kendalltau(-np.array(scores), [brightness(wave) for wave in unseen]).statistic
    changes = []
    for wave in unseen[:ENHANCED]:
        *_, result = enhance_array(wave[None], RATE, model, EnhanceSettings())
        if result.steps:
            changes.append(brightness(result.samples[0]) - brightness(wave))
    return tau, model.card.ears.agreement, np.mean(changes), sum(np.array(changes) > 0), len(changes)


if __name__ == "__main__":
    main()
