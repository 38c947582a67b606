"""Compare losses at other sample rates: equal windows, or resampling by a windowed sinc.

    python benchmarks/resampling.py

Prints the figures of `docs/losses.md`: the mean difference of rows within 60 dB of the loudest, and
of scores, from those of the same recording resampled by soxr, as files are read.
"""

from importlib.resources import files

import numpy as np
import soundfile
import soxr
import torch

import tonewood
from tonewood.dsp.features import band_levels

RATES = (8_000, 22_050, 44_100, 48_000, 96_000)
EDGE = 2  # frames at both ends, which look past them


def main() -> None:
    scorer = tonewood.load("cello").scorer
    bands, spectrum = scorer.settings.bands, scorer.spectrum
    with (files("tonewood.bundled") / "example.flac").open("rb") as file:
        samples, own_rate = soundfile.read(file, dtype="float64", always_2d=True)
    print("rate     equal windows     sinc     score")
    for rate in RATES:
        wave = soxr.resample(samples.mean(axis=1), own_rate, rate, "VHQ")
        resampled = soxr.resample(wave, rate, spectrum.rate, "HQ").astype(np.float32)
        expected = band_levels(resampled[None], spectrum.rate, bands, spectrum)
        single = wave.astype(np.float32)[None]
        sinc_rows = tonewood.NeuralLoss("cello", rate).rows(torch.from_numpy(single)[:, None]).numpy()
        variants = [sinc_rows]
        if rate >= spectrum.rate:
            variants.insert(0, band_levels(single, rate, bands, spectrum))
        errors = []
        for rows in variants:
            inside = slice(EDGE, min(rows.shape[-1], expected.shape[-1]) - EDGE)
            actual, reference = rows[..., inside], expected[..., inside]
            errors.append(np.abs(actual - reference)[reference > expected.max() - 60].mean())
        score_difference = abs(scorer.score(sinc_rows) - scorer.score(expected)).item()
        equal_windows = f"{errors[0]:.3f} dB" if len(errors) == 2 else "-"
        print(f"{rate:6}   {equal_windows:>13}   {errors[-1]:.3f} dB   {score_difference:.4f}")


if __name__ == "__main__":
    main()
