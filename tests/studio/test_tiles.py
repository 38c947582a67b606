"""Tiles show frequencies, levels and times correctly at each zoom level."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tonewood.mask.mask import Mask
from tonewood.studio import tiles
from tonewood.studio.tiles import TILE_FLOOR_DB, FrequencyAxis, TileAddress

RATE = 44_100


@pytest.mark.parametrize("axis", ["log", "mel"])
@pytest.mark.parametrize("hz", [220.0, 1_000.0, 9_000.0])
@pytest.mark.parametrize("level", [0, 2, 5])
def test_sine_appears_at_its_frequency(
    tone: Callable[..., Any], axis: FrequencyAxis, hz: float, level: int
) -> None:
    wave = tone(6.0, RATE, frequency=hz, amplitude=0.5)
    tile = tiles.spectrogram_tile(wave, TileAddress(axis, RATE, level, 0))
    column = tile[:, int(2.0 / (tiles.FINEST_COLUMN_S * 2**level)) if level > 1 else 200]
    rows = tiles.row_frequencies(axis, RATE)
    assert rows[column.argmax()] == pytest.approx(hz, rel=0.06)
    assert column.max() / 2 + TILE_FLOOR_DB == pytest.approx(20 * np.log10(0.5), abs=2.5)


def test_doubled_amplitude_adds_six_decibels(tone: Callable[..., Any]) -> None:
    place = TileAddress("log", RATE, 2, 0)
    quiet, loud = (tiles.spectrogram_tile(tone(2.0, RATE, amplitude=a), place) for a in (0.1, 0.2))
    # Where only the window's far slopes are, rounding hides it.
    audible = quiet > 80
    assert np.abs(loud[audible].astype(int) - quiet[audible] - 12).max() <= 1


def test_click_appears_in_one_column_at_each_zoom_level() -> None:
    wave = np.zeros((1, 60 * RATE), np.float32)
    wave[0, 30 * RATE : 30 * RATE + 2_000] = 0.5
    for level in (2, 4, 6):
        span = tiles.FINEST_COLUMN_S * 2**level * tiles.TILE_COLUMNS
        number = int(30 // span)
        tile = tiles.spectrogram_tile(wave, TileAddress("log", RATE, level, number))
        column = int(np.argmax(tile.astype(int).sum(axis=0)))
        seconds = tiles.column_times(level, number)[column]
        assert seconds == pytest.approx(30.02, abs=0.05 + span / tiles.TILE_COLUMNS)


def test_tile_is_empty_after_the_recording(tone: Callable[..., Any]) -> None:
    tile = tiles.spectrogram_tile(tone(1.0, RATE), TileAddress("mel", RATE, 3, 0))
    assert not tile[:, 70:].any()
    mask = Mask(np.full((4, 101), 5.0, np.float32), np.geomspace(100, 4_000, 4), 0.01, 8_000.0)
    gains = tiles.gain_tile(mask, 0.0, 1.0, TileAddress("mel", RATE, 3, 0))
    assert (gains[:10, :49] == 128 + 20).all()
    assert (gains[:, 51:] == 128).all()


def test_average_eq_of_constant_mask_equals_the_mask() -> None:
    mask = Mask(np.full((4, 101), -3.0, np.float32), np.geomspace(100, 4_000, 4), 0.01, 22_050.0)
    curve = tiles.average_eq_curve(mask, "log", RATE)
    assert set(curve.mean) == set(curve.low) == set(curve.high) == {-3.0}


def test_waveform_peaks_equal_sample_maxima(rng: np.random.Generator) -> None:
    wave = rng.uniform(-0.2, 0.2, (2, 48_000)).astype(np.float32)
    wave[1, 24_010] = -0.9
    peaks = tiles.waveform_peaks(wave, 100)
    assert len(peaks) == 100
    assert int(np.argmax(peaks)) == 50
    assert peaks[50] == pytest.approx(0.9)
