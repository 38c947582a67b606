"""Measure whether a model's scores and masks can be trusted: `docs/quality.md` explains the figures.

    python benchmarks/trust.py CORPUS… [--model MODEL] [--seeds 0 1 2] [-o OUT]

A corpus is a folder laid out as train|val|test/{good,cheap}; pieces of test are pairs by name. A model is
trained on `train` without pairs, and these questions are answered with the pairs of `test`:

- Does the score fall along the way from source to reference, and does it order treatments that help and
  harm like the true distance does?
- Do noises, tones and recordings of other corpora score as reference, and are they recognised?
- Are reference takes left alone, is a second pass harmless, and does a take half-way get half?
- How many ordinary source takes are refused?
- How much steeper is `NeuralLoss` at source takes than half-way, and at reference takes?
- Does a synthesiser that follows `NeuralLoss`, or the score alone, get nearer to the reference folder?
"""

import argparse
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from quality import corpus, synthesis
from quality.bench import Bench, render_mask
from quality.corpus import Corpus, Piece, mel_rows, mono
from scipy.stats import spearmanr
from torch.nn.functional import interpolate

import tonewood
from tonewood.audio_io.reader import read_recording
from tonewood.dsp.chunking import ArrayTimeSeries
from tonewood.dsp.features import center_frequencies
from tonewood.enhancement.analysis import mean_score
from tonewood.enhancement.pipeline import Enhancement
from tonewood.evaluation.metrics import measure_distances
from tonewood.model.model import Model
from tonewood.scorer.graded_crops import synthetic_rows
from tonewood.settings import EnhanceSettings, ModelSettings
from tonewood.utils.arrays import Levels

SETTINGS = ModelSettings()
RATE = SETTINGS.spectrum.rate
WAY = (0, 25, 50, 75, 100)
SCORES_AS_REFERENCE = 0.5
FOREIGN_SECONDS, FOREIGN_SOUNDS = 6.0, 60
Wave = np.ndarray


class Treated(NamedTuple):
    """Score and true mel distance of one treated recording."""

    score: float
    distance_db: float


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    corpora: dict[str, Corpus] = {}
    results = {}
    for folder in options.corpus:
        with corpus.opened(folder) as opened:
            corpora[opened.name] = opened
    for name, opened in corpora.items():
        others = {other: c for other, c in corpora.items() if other != name}
        results[name] = []
        for seed in options.seeds:
            bench = Bench(opened, seed, models=options.models)
            model = tonewood.load(options.model) if options.model else bench.trained().model
            results[name].append(measure(bench, others, model))
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "trust.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        print(table(results), flush=True)


def measure(bench: Bench, others: dict[str, Corpus], model: Model) -> dict:
    """Return all figures of one corpus and seed."""
    opened, seed = bench.corpus, bench.seed
    card = model.card.scorer
    figures: dict = {"seed": seed, "accuracy": card.accuracy}
    figures |= measure_treatments(opened.test, model, seed)
    figures |= measure_foreign(others, model, seed)
    figures |= measure_masks(opened.test, model)
    figures |= measure_slopes(opened.test, model)
    figures |= synthesis.measure_synthesiser(bench, model)
    print(f"{opened.name} {seed} {json.dumps(figures)}", file=sys.stderr)
    return figures


# --- Scores


def treatments(piece: Piece, plain_db: Levels, rng: torch.Generator) -> dict[str, Wave]:
    """Return treatments of a source take, as sound: the way to its paired take, and others.

    Parameters
    ----------
    plain_db : float32 array [row]
        Difference of the folders' mean spectra.
    """
    difference = mel_rows(piece.target) - mel_rows(piece.before)
    rows, frames = difference.shape
    hz = center_frequencies(SETTINGS.scorer.bands, SETTINGS.spectrum)
    octaves = np.repeat(np.log2(np.maximum(hz, 50) / 1_000)[:, None], frames, axis=1)
    static = np.repeat(plain_db[:, None], frames, axis=1)
    # Bumps over a few rows, and half a second long.
    coarse = torch.randn(1, 1, 7, max(2, frames // 50), generator=rng)
    smooth = interpolate(coarse, size=(rows, frames), mode="bilinear", align_corners=True)
    bumps = 10 * smooth[0, 0].numpy()
    masks = {f"way {share}": share / 100 * difference for share in WAY}
    masks |= {
        "static": static,
        "static twice": 2 * static,
        "static inverse": -static,
        "tilt up": 4 * octaves,
        "tilt down": -4 * octaves,
        "bumps": bumps,
        "over-corrected": 1.6 * difference,
    }
    sounds = {name: render_mask(piece, mask).samples for name, mask in masks.items()}
    noise = torch.randn(piece.samples.shape, generator=rng).numpy()
    rms = math.sqrt(float(np.square(piece.samples).mean()))
    sounds["noise at 20 dB"] = piece.samples + (0.1 * rms * noise).astype(np.float32)
    return sounds


def measure_treatments(pieces: Sequence[Piece], model: Model, seed: int) -> dict:
    """Return the scores on the way, their error, and the rank correlation with the true distance."""
    rng = torch.Generator().manual_seed(seed)
    plain_db = static_difference(model)
    table: dict[str, list[Treated]] = {}
    for piece in pieces:
        for name, samples in treatments(piece, plain_db, rng).items():
            score = tonewood.score(samples, piece.rate, model).scorer
            table.setdefault(name, []).append(Treated(score, mel_distance(samples, piece)))
    means = {name: Treated(*np.mean(values, axis=0).tolist()) for name, values in table.items()}
    way = [means[f"way {share}"].score for share in WAY]
    expected = [1 - share / 100 for share in WAY]
    distance = [means[f"way {share}"].distance_db for share in WAY]
    return {
        "way": way,
        "falls": all(a > b for a, b in pairwise(way)),
        "way_error": float(np.mean(np.abs(np.subtract(way, expected)))),
        # Rendering blurs the mask, so 100 % of it do not reach the reference.
        "distance_error": float(np.mean(np.abs(np.subtract(way, [d / distance[0] for d in distance])))),
        "rank": float(spearmanr(*zip(*means.values(), strict=True)).statistic),
        "treatments": {name: list(value) for name, value in means.items()},
    }


def measure_slopes(pieces: Sequence[Piece], model: Model) -> dict:
    """Return the rms of the gradient of `NeuralLoss` for source, half-way and reference takes."""
    loss = tonewood.NeuralLoss(model, RATE)
    slopes: dict[str, list[float]] = {}
    for piece in pieces:
        half = render_mask(piece, (mel_rows(piece.target) - mel_rows(piece.before)) / 2).samples
        sounds = {"source": piece.before, "half-way": mono(half, piece.rate), "reference": piece.target}
        for name, sound in sounds.items():
            wave = torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None, None].requires_grad_()
            loss(wave).backward()
            assert wave.grad is not None
            slopes.setdefault(name, []).append(float(wave.grad.square().mean().sqrt()))
    means = {name: float(np.mean(values)) for name, values in slopes.items()}
    return {"slopes": means, "slope_ratio": max(means.values()) / min(means.values())}


def measure_foreign(others: dict[str, Corpus], model: Model, seed: int) -> dict:
    """Return the share of foreign sounds that score as reference, and of those not recognised."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    frames = SETTINGS.spectrum.to_frames(FOREIGN_SECONDS)
    synthetic = [
        score_rows(synthetic_rows(frames, SETTINGS.scorer.bands, SETTINGS.spectrum, generator).numpy(), model)
        for _ in range(FOREIGN_SOUNDS)
    ]
    recorded = [
        (score.scorer, score.unlikeness)
        for other in others.values()
        for piece in other.test[:4]
        for score in (tonewood.score(piece.samples, piece.rate, model),)
    ]
    return {
        name: {
            "as_reference": float(np.mean([s < SCORES_AS_REFERENCE for s, _ in sounds])),
            "undetected": float(np.mean([s < SCORES_AS_REFERENCE and u <= 1 for s, u in sounds])),
        }
        for name, sounds in (("synthetic", synthetic), ("recorded", recorded))
        if sounds
    }


def score_rows(rows_db: Levels, model: Model) -> tuple[float, float]:
    """Return score and unlikeness of levels [row, frame] in dB."""
    series = ArrayTimeSeries(rows_db)
    return mean_score(model.scorer, series), model.folder_distances(series).nearer


# --- Masks


def measure_masks(pieces: Sequence[Piece], model: Model) -> dict:
    """Return what is closed in one pass and two, what is done to reference takes, and to takes half-way."""

    def enhanced(samples: Wave, rate: int, **changes: dict) -> Enhancement:
        return tonewood.enhance(samples, rate, model, settings=EnhanceSettings().replace(**changes))

    distance = Counter[str]()
    size = Counter[str]()
    verdicts: dict[str, Counter[str]] = {"source": Counter(), "reference": Counter(), "half-way": Counter()}
    for piece in pieces:
        target = read_recording(piece.target_path)
        half = render_mask(piece, 0.5 * (mel_rows(piece.target) - mel_rows(piece.before))).samples
        once = enhanced(piece.samples, piece.rate)
        outputs = {
            "untouched": piece.samples,
            "prior": enhanced(piece.samples, piece.rate, search={"steps": 0}).samples,
            "once": once.samples,
            "twice": enhanced(once.samples, piece.rate).samples,
        }
        distance.update({name: mel_distance(samples, piece) for name, samples in outputs.items()})
        of_reference = enhanced(target.samples, target.rate)
        distance["reference"] += mel_distance(of_reference.samples, piece, target.rate)
        of_half = enhanced(half, piece.rate)
        size.update({"once": once.certificate.rms_db, "half": of_half.certificate.rms_db})
        verdicts["source"][once.certificate.verdict] += 1
        verdicts["reference"][of_reference.certificate.verdict] += 1
        verdicts["half-way"][of_half.certificate.verdict] += 1
    whole = distance["untouched"]
    return {
        "closed": 1 - distance["once"] / whole,
        "prior": 1 - distance["prior"] / whole,
        "twice": 1 - distance["twice"] / whole,
        "reference_moved": distance["reference"] / whole,
        "half_size": size["half"] / size["once"],
        "verdicts": {name: dict(counts) for name, counts in verdicts.items()},
    }


def static_difference(model: Model) -> Levels:
    """Return the difference of the folders' mean spectra [row] in dB, that of the model's priors."""
    priors = model.priors
    return priors.reference.row_mean - priors.source.row_mean


def mel_distance(samples: Wave, piece: Piece, rate: int | None = None) -> float:
    """Return the mel log-spectral distance of a sound to a piece's target, dB."""
    wave, length = mono(samples, rate or piece.rate), len(piece.target)
    return measure_distances(np.pad(wave[:length], (0, max(0, length - len(wave)))), piece.target).mel


# --- Output


def table(results: dict[str, list[dict]]) -> str:
    """Return the figures as a Markdown table: mean ± standard deviation over seeds."""
    columns: dict[str, Callable[[dict], float]] = {
        "accuracy, %": lambda r: 100 * r["accuracy"],
        "error on the way": lambda r: r["way_error"],
        "error against the true distance": lambda r: r["distance_error"],
        "rank correlation": lambda r: r["rank"],
        "closed, %": lambda r: 100 * r["closed"],
        "prior, %": lambda r: 100 * r["prior"],
        "twice, %": lambda r: 100 * r["twice"],
        "reference moved, %": lambda r: 100 * r["reference_moved"],
        "half-way size, %": lambda r: 100 * r["half_size"],
        "refused, %": lambda r: 100 * r["verdicts"]["source"].get("refused", 0) / _count(r, "source"),
        "source good, %": lambda r: 100 * r["verdicts"]["source"].get("good", 0) / _count(r, "source"),
        "reference already there, %": lambda r: (
            100 * r["verdicts"]["reference"].get("unneeded", 0) / _count(r, "reference")
        ),
        "synthetic undetected, %": lambda r: 100 * r["synthetic"]["undetected"],
        "other recordings undetected, %": lambda r: 100 * r.get("recorded", {"undetected": 0})["undetected"],
    }
    columns["slopes, largest by smallest"] = lambda r: r["slope_ratio"]
    columns |= {
        f"synthesiser, {loss}: {measure}, {when}": lambda r, loss=loss, measure=measure, place=place: r[
            "synthesiser"
        ][loss][measure][place]
        for loss in ("loss", "score")
        for measure in ("loss", "spectrum", "frechet")
        for place, when in enumerate(("before", "after"))
    }
    head = "| | " + " | ".join(results) + " |\n|---|" + "---:|" * len(results)
    lines = [head]
    for name, value in columns.items():
        cells = []
        for runs in results.values():
            values = [value(run) for run in runs]
            digits = 1 if "%" in name else 2
            spread = f" ±{np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.{digits}f}{spread}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _count(result: dict, side: str) -> int:
    return sum(result["verdicts"][side].values())


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--model", help="measure this model instead of training one for each seed")
    parser.add_argument("--models", type=Path, help="folder of trained models: load those there, keep others")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/trust"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
