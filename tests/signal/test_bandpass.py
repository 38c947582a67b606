import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonewood.signal.bandpass import band_alone, fade_hz, reach_seconds

RATE = 16_000


def noise(count: int, seed: int, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((channels, count)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 3_000), min_size=1, max_size=7))
def test_blocks_of_any_length_give_the_whole(lengths: list[int]) -> None:
    before, made = noise(sum(lengths), 0), noise(sum(lengths), 1)
    edges = np.cumsum([0, *lengths])
    pairs = [(before[:, a:b], made[:, a:b]) for a, b in itertools.pairwise(edges)]
    out = np.concatenate(list(band_alone(pairs, RATE, 300, 2_000)), axis=1)
    whole = np.concatenate(list(band_alone([(before, made)], RATE, 300, 2_000)), axis=1)
    assert out.shape == before.shape
    assert out.dtype == np.float32
    assert np.abs(out - whole).max() < 1e-5


@pytest.mark.parametrize("hz", [150.0, 3_500.0])
def test_a_change_outside_is_none(hz: float) -> None:
    before = noise(RATE, 0)
    made = before + np.sin(2 * np.pi * hz * np.arange(RATE) / RATE).astype(np.float32)
    out = np.concatenate(list(band_alone([(before, made)], RATE, 400, 2_500)), axis=1)
    reach = round(reach_seconds(400, 2_500) * RATE)
    assert np.abs(out - before)[:, reach:-reach].max() < 10 ** (-90 / 20)


def test_a_change_inside_stays_in_time() -> None:
    before = noise(RATE, 0)
    made = before + np.sin(2 * np.pi * 1_000 * np.arange(RATE) / RATE).astype(np.float32)
    out = np.concatenate(list(band_alone([(before, made)], RATE, 400, 2_500)), axis=1)
    assert np.abs(out - made)[:, 2_000:-2_000].max() < 1e-4


@pytest.mark.parametrize(("low", "high"), [(9_000.0, 12_000.0), (100.0, 20_000.0)])
def test_bands_beyond_the_rate(low: float, high: float) -> None:
    before, made = noise(4_000, 0), noise(4_000, 1)
    out = np.concatenate(list(band_alone([(before, made)], RATE, low, high)), axis=1)
    assert np.array_equal(out, before) == (low > RATE / 2)


def test_fades_are_a_third_of_an_octave_but_40_hz_at_least() -> None:
    assert fade_hz(1_000, 8_000) == pytest.approx(260, abs=1)
    assert fade_hz(50, 8_000) == 40
    assert fade_hz(1_000, 1_100) == 50
    assert reach_seconds(50, 8_000) == pytest.approx(0.08, abs=0.001)
