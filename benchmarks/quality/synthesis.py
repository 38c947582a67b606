"""Does a synthesiser that follows a loss get nearer to the reference, by measures that it did not see?"""

import runpy
from pathlib import Path

import numpy as np
import torch
from torch import nn

import tonewood
from quality import outside
from quality.bench import Bench
from quality.corpus import RATE, mel_rows, take
from tonewood.audio_io.recording import find_audio_files
from tonewood.dsp.features import cut_windows
from tonewood.evaluation.metrics import Gaussian, fit_gaussian, frechet_distance
from tonewood.model.losses import ScorerLoss
from tonewood.model.model import Model
from tonewood.utils.arrays import Samples

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_a_synthesiser.py"
STEPS, CLIPS = 200, 12
_PITCH_TAKES, _WINDOW, _HOP = 12, 2_048, 1_600
_LOWEST_HZ, _HIGHEST_HZ = 60, 1_000
_MIN_PERIODICITY = 0.8
_FRAMES = 200


def measure_synthesiser(bench: Bench, model: Model) -> dict:
    """Return [before, after] of loss, long-term spectrum (dB) and Fréchet distance, for each loss."""
    example = runpy.run_path(str(EXAMPLE))
    folder = [take(path) for path in find_audio_files(bench.corpus.reference)]
    judge, spectrum = outside.train(bench), _long_term_spectrum(folder)
    features, pitch_hz = _fit_features(judge.net, folder), _find_pitches(folder[:_PITCH_TAKES])
    figures = {}
    losses: dict[str, nn.Module] = {
        "loss": tonewood.NeuralLoss(model, RATE),
        "score": ScorerLoss(model.scorer, RATE),
    }
    for name, loss in losses.items():
        result = example["train"](loss, STEPS, pitch_hz, CLIPS)
        sounds = [[wave.numpy() for wave in side[:, 0]] for side in (result.before, result.after)]
        figures[name] = {
            "loss": [result.losses[0], result.losses[-1]],
            "spectrum": [_rms(_long_term_spectrum(waves) - spectrum) for waves in sounds],
            "frechet": [frechet_distance(_fit_features(judge.net, waves), features) for waves in sounds],
        }
    return {"synthesiser": figures}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _long_term_spectrum(waves: list[Samples]) -> np.ndarray:
    """Return the mean over waves of the level of each mel row's mean power [row], mean removed, dB."""
    levels = [10 * np.log10((10 ** (mel_rows(wave).astype(np.float64) / 10)).mean(axis=1)) for wave in waves]
    return np.mean([level - level.mean() for level in levels], axis=0)


def _fit_features(net: outside.Net, waves: list[Samples]) -> Gaussian:
    """Fit a Gaussian to the judge's pooled features of all windows."""
    points = []
    with torch.no_grad():
        for wave in waves:
            windows = torch.from_numpy(cut_windows(outside.bins(wave), _FRAMES))
            points.append(net.features(windows).double().numpy())
    return fit_gaussian(np.concatenate(points))


def _find_pitches(waves: list[Samples]) -> list[float]:
    """Return the pitch in Hz every 100 ms where there is one, from peaks of the autocorrelation."""
    first, last = RATE // _HIGHEST_HZ, RATE // _LOWEST_HZ
    pitches = []
    for wave in waves:
        for start in range(0, len(wave) - _WINDOW, _HOP):
            spectrum = np.fft.rfft(wave[start : start + _WINDOW], 2 * _WINDOW)
            correlation = np.fft.irfft(np.square(np.abs(spectrum)))[: last + 1]
            # Fewer products overlap at longer lags.
            lags = correlation / (1 - np.arange(last + 1) / _WINDOW) / max(correlation[0], 1e-12)
            inner = lags[first:last]
            is_peak = (inner >= lags[first - 1 : last - 1]) & (inner >= lags[first + 1 : last + 1])
            largest = inner[is_peak].max(initial=0)
            if largest > _MIN_PERIODICITY:
                # The first peak near the largest is the period; later ones are its multiples.
                pitches.append(RATE / (first + int(np.argmax(is_peak & (inner > 0.9 * largest)))))
    return pitches
