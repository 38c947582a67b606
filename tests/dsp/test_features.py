"""Fine structure shows the positions of partials, independent of colour."""

import numpy as np
from scipy.signal import firwin2, lfilter

from tonewood.dsp.features import compute_features, fine_structure
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import Samples

RATE = 16_000


def harmonics(hz: float, seconds: float = 1.0) -> Samples:
    time = np.arange(round(seconds * RATE)) / RATE
    partials = [np.sin(2 * np.pi * k * hz * time + k) / k for k in range(1, 20) if k * hz < 7_500]
    wave: Samples = (0.1 * np.sum(partials, axis=0)).astype(np.float32)
    return wave


def test_a_partial_peaks_on_its_quarter_tone() -> None:
    for step in (24, 30, 47):
        hz = 55.0 * 2 ** (step / 24)
        fine = fine_structure(harmonics(hz), SpectrumSettings(), 100)
        assert int(fine[step - 6 : step + 7, 50].argmax()) == 6


def test_gain_does_not_change_fine_structure() -> None:
    wave, settings = harmonics(220.0), SpectrumSettings()
    loud, soft = fine_structure(wave, settings, 100), fine_structure(wave / np.float32(10), settings, 100)
    strong = loud > 0
    assert np.abs(loud - soft)[strong].max() < 0.01


def test_broad_filter_changes_fine_structure_less_than_rows() -> None:
    wave = harmonics(220.0)
    taps = firwin2(513, [0, 200, 1_000, 4_000, 8_000], [1, 1, 4, 0.5, 0.5], fs=RATE)
    coloured = lfilter(taps, 1, wave).astype(np.float32)
    before, after = (compute_features(w, BandSettings(), SpectrumSettings()) for w in (wave, coloured))
    strong = before.fine_db[:, 30:70] > 3
    change = np.abs(after.fine_db - before.fine_db)[:, 30:70][strong].mean()
    rows = np.abs(after.rows_db - before.rows_db)[:, 30:70].mean()
    assert change < rows / 3


def test_fine_structure_has_the_frames_of_the_rows() -> None:
    for samples in (4_000, 16_000, 16_081):
        features = compute_features(harmonics(110.0, 2.0)[:samples], BandSettings(), SpectrumSettings())
        assert features.fine_db.shape[1] == features.rows_db.shape[1]
        assert np.isfinite(features.fine_db).all()
