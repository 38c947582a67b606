"""Streaming detectors give the same result for any block sizes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.dsp.test_artifact_detectors import count_clipped_peaks, dropout_ratio, measure_hum_db
from tonewood.dsp.artifact_detectors import (
    DIGITAL_SILENCE_DB,
    HOP_SECONDS,
    THIRD_OCTAVES_HZ,
    ClippedPeaks,
    FrameSplitter,
    HumDetector,
    SpectralDropouts,
)

RATE = 4_000
cuts = st.lists(st.integers(1, 2_500), min_size=1, max_size=12)


def cut(samples: NDArray[Any], sizes: list[int]) -> list[NDArray[Any]]:
    """Blocks (..., samples) of these sizes, repeated to the end."""
    ends = np.cumsum(np.resize(sizes, 2 + samples.shape[-1] // min(sizes)))
    return np.split(samples, ends[ends < samples.shape[-1]], axis=-1)


@given(cuts, st.integers(2, 50), st.integers(0, 400))
def test_frames_do_not_depend_on_the_blocks(sizes: list[int], window: int, length: int) -> None:
    hop = max(1, window // 3)
    wave = np.arange(length, dtype=np.float32)
    frames = FrameSplitter(window, hop)
    result = np.concatenate([frames.push(block) for block in cut(wave, sizes)])
    starts = range(0, length - window + 1, hop)
    assert result.shape == (len(starts), window)
    assert all(frame[0] == start for frame, start in zip(result, starts, strict=True))


@settings(deadline=None, max_examples=12)
@given(cuts, st.integers(0, 2**31))
def test_clipping_and_hum_do_not_depend_on_the_blocks(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    time = np.arange(5 * RATE) / RATE
    wave = 0.3 * np.sin(2 * np.pi * 50 * time) + 0.2 * rng.standard_normal((2, len(time)))
    samples = np.clip(wave, -0.3, 0.3).astype(np.float32)
    peaks = ClippedPeaks(np.abs(samples).max(axis=1))
    hum = HumDetector(RATE)
    for block in cut(samples, sizes):
        peaks.push(block)
        hum.push(block[0])
    assert peaks.count == count_clipped_peaks(samples) > 50
    lines = hum.second_pass()
    assert lines is not None
    for block in cut(samples, sizes):
        lines.push(block[0])
    whole = measure_hum_db(samples[0], RATE)
    assert whole is not None
    assert lines.tallest_line_db() == whole
    assert whole[0] > 10


@settings(deadline=None, max_examples=12)
@given(cuts, st.integers(0, 2**31))
def test_dropouts_do_not_depend_on_the_blocks(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    level = rng.normal(-60, 1, (len(THIRD_OCTAVES_HZ), round(6 / HOP_SECONDS)))
    for frame in rng.integers(20, 560, 12):
        level[rng.integers(18, 24), frame : frame + 2] -= 40
    power = 10 ** (level / 10)
    dropouts = SpectralDropouts(len(power))
    for block in cut(power, [1 + size // 20 for size in sizes]):
        dropouts.push(block)
    for cutoff in (24_000.0, 9_000.0):
        assert dropouts.ratio(cutoff) == dropout_ratio(power, cutoff)
    assert dropout_ratio(power, 24_000.0) > 0


def test_digital_silence_has_no_hum() -> None:
    time = np.arange(4 * RATE) / RATE
    for above_db, has_hum in ((0.3, True), (-0.3, False)):
        size = 10 ** ((DIGITAL_SILENCE_DB + above_db) / 20) * np.sqrt(2)
        hum = HumDetector(RATE)
        hum.push((size * np.sin(2 * np.pi * 50 * time)).astype(np.float32))
        assert (hum.second_pass() is not None) == has_hum


@pytest.mark.parametrize(
    ("wave", "count"),
    [
        ([0, 0.5, 0.9, 0.9, 0.9, 0.5, 0], 1),
        ([0, 0.5, 0.9, 0.9, 0.5, 0, 0], 0),  # two may be equal by chance
        ([0, -0.5, -0.9, -0.9, -0.9, -0.9, 0], 1),
        ([0, 0.5, 0.9, 0.9, 0.9, 0, -0.5, -0.9, -0.9, -0.9, 0], 2),
        ([0, 0.5, 0.7, 0.7, 0.7, 0.5, 0.9], 0),  # far from the peak
        ([0, 0.01, 0.03, 0.03, 0.03, 0.01, 0], 0),  # below the smallest peak examined
        ([0, 0.5, 0.9, 0.9, -0.9, 0.9, 0.9, 0, 0], 0),
    ],
)
def test_clipped_peak_is_three_equal_samples_at_the_peak(wave: list[float], count: int) -> None:
    assert count_clipped_peaks(np.array([wave], np.float32)) == count
