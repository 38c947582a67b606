"""Zimtohrli: a perceptual distance that is independent of the training and of the certificate."""

import numpy as np

from tonewood.audio_io.recording import resample
from tonewood.evaluation.pairs import MEASURE_RATE
from tonewood.utils.arrays import Samples

_QUIET_RMS = 1e-8  # no gain matches the level of silence


def zimtohrli_distance(estimate: Samples, reference: Samples) -> float | None:
    """Return the Zimtohrli distance of simultaneous waveforms [sample] at 16 kHz; 0 for equal sounds.

    The estimate is brought to the rms level of the reference, as in the other distances. None if the
    extra `perceptual` is not installed. Source: https://github.com/google/zimtohrli
    """
    try:
        from zimtohrli import Pyohrli
    except ImportError:
        return None
    metric = Pyohrli()
    gain = _rms(reference) / max(_rms(estimate), _QUIET_RMS)
    signals = (
        resample(wave[None], MEASURE_RATE, metric.sample_rate)[0].astype(np.float32)
        for wave in (np.float32(gain) * estimate, reference)
    )
    return float(metric.distance(*signals))


def _rms(wave: Samples) -> float:
    return float(np.sqrt(np.square(wave, dtype=np.float64).mean()))
