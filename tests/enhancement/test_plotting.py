"""The picture of an enhancement shows levels and frequencies correctly on its logarithmic axis."""

import numpy as np
import pytest

from tonewood.dsp.chunking import ArrayTimeSeries
from tonewood.enhancement.plotting import _log_levels

EDGES_HZ = np.geomspace(40.0, 8_000.0, 321)


@pytest.mark.parametrize("hz", [110.0, 440.0, 3_000.0])
def test_sine_has_its_own_level_at_its_frequency(hz: float) -> None:
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000).astype(np.float32)
    levels_db = _log_levels(ArrayTimeSeries(wave), np.array([0.3, 0.5]), EDGES_HZ, 16_000)
    row = levels_db[:, 1].argmax()
    assert EDGES_HZ[row] * 0.98 <= hz <= EDGES_HZ[row + 1] * 1.02
    assert levels_db[row] == pytest.approx(20 * np.log10(0.5), abs=1.0)
    louder_db = _log_levels(ArrayTimeSeries(2 * wave), np.array([0.3, 0.5]), EDGES_HZ, 16_000)
    np.testing.assert_allclose((louder_db - levels_db)[row], 6.02, atol=0.01)


def test_silence_and_times_outside_of_a_recording_are_drawn() -> None:
    silence = ArrayTimeSeries(np.zeros(160, np.float32))
    assert np.isfinite(_log_levels(silence, np.array([0.0, 1.0]), EDGES_HZ, 16_000)).all()
