"""Shapes of masks: smoothing, limits, and cuts or boosts alone."""

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonewood.dsp.features import center_frequencies
from tonewood.errors import CallError
from tonewood.mask.components import shape_gains, shape_mask
from tonewood.mask.mask import Mask
from tonewood.mask.render import effective_mask
from tonewood.setting_types import ShapeChanges
from tonewood.settings import BandSettings, RenderSettings, ShapeSettings, SpectrumSettings

SPECTRUM = SpectrumSettings()
HZ = center_frequencies(BandSettings(), SPECTRUM)
OCTAVES = np.log2(HZ)
FRAMES = 120


def random_mask(seed: int = 0, frames: int = FRAMES) -> Mask:
    gain = np.random.default_rng(seed).normal(0, 4, (len(HZ), frames)).astype(np.float32)
    return Mask(gain, HZ, 0.01, 8_000.0)


def shaped(mask: Mask, amount: float = 1.0, **shape: Any) -> np.ndarray:
    settings = RenderSettings.model_validate({"amount": amount, "shape": shape})
    return effective_mask(mask, settings, SPECTRUM).gain_db


def curvature(gain_db: np.ndarray, axis: int) -> float:
    return float(np.abs(np.diff(gain_db, n=2, axis=axis)).mean())


def test_default_shape_is_the_mask_itself() -> None:
    mask = random_mask()
    assert shape_mask(mask, ShapeSettings()) is mask


@pytest.mark.parametrize("width", [0.3, 1.0, 2.0, 4.0])
def test_smoothing_over_octaves_keeps_the_mean_and_reduces_curvature(width: float) -> None:
    mask = random_mask()
    smooth = shaped(mask, smooth_octaves=width)
    weight = np.gradient(OCTAVES)
    assert np.allclose(weight @ smooth, weight @ mask.gain_db, atol=2e-4)
    assert curvature(smooth, 0) < 0.6 * curvature(mask.gain_db, 0)


def test_smoothing_over_octaves_keeps_a_constant() -> None:
    mask = Mask(np.full((len(HZ), 3), 5.0, np.float32), HZ, 0.01, 8_000.0)
    assert np.allclose(shaped(mask, smooth_octaves=1.0), 5.0, atol=1e-5)


def test_smoothing_over_octaves_is_an_average_with_a_hann_window() -> None:
    gain = np.zeros((len(HZ), 1), np.float32)
    centre = len(HZ) // 2
    gain[centre] = 1.0
    smooth = shaped(Mask(gain, HZ, 0.01, 8_000.0), smooth_octaves=0.5)[:, 0]
    assert np.all(smooth[np.abs(OCTAVES - OCTAVES[centre]) > 0.51] == 0)
    near = np.abs(np.abs(OCTAVES - OCTAVES[centre]) - 0.25).argmin()
    assert smooth[near] / smooth[centre] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("seconds", [0.03, 0.1, 0.5, 60.0])
def test_smoothing_over_time_keeps_the_mean_and_reduces_curvature(seconds: float) -> None:
    mask = random_mask()
    smooth = shaped(mask, smooth_seconds=seconds)
    assert np.allclose(smooth.mean(axis=1), mask.gain_db.mean(axis=1), atol=0.2 if seconds == 60 else 1e-4)
    assert curvature(smooth, 1) < 0.6 * curvature(mask.gain_db, 1)


def test_smoothing_over_time_is_a_centred_average() -> None:
    mask = random_mask()
    smooth = shaped(mask, smooth_seconds=0.2)  # 21 frames
    assert np.allclose(smooth[:, 50], mask.gain_db[:, 40:61].mean(axis=1), atol=1e-5)
    mirrored = np.concatenate([mask.gain_db[:, 9::-1], mask.gain_db[:, :11]], axis=1)
    assert np.allclose(smooth[:, 0], mirrored.mean(axis=1), atol=1e-5)


@given(low=st.floats(60, 1_000), ratio=st.floats(1.2, 8))
def test_limits_change_nothing_inside_and_remove_everything_outside(low: float, ratio: float) -> None:
    mask, high = random_mask(frames=2), low * ratio
    gain = shaped(mask, low_hz=low, high_hz=high)
    inside = (low <= HZ) & (high >= HZ)
    outside = (low / 2**0.5 > HZ) | (high * 2**0.5 < HZ)
    assert np.array_equal(gain[inside], mask.gain_db[inside])
    assert np.all(gain[outside] == 0)
    assert np.all(np.abs(gain) <= np.abs(mask.gain_db))


def test_smoothing_spreads_nothing_beyond_the_limits() -> None:
    gain = shaped(random_mask(), smooth_octaves=2.0, high_hz=500.0)
    assert np.all(gain[HZ > 500 * 2**0.5] == 0)


@given(amount=st.floats(-1, 2), smooth=st.floats(0, 2), only=st.sampled_from(["all", "tilt", "bands"]))
def test_cut_only_never_raises_and_boost_only_never_lowers(amount: float, smooth: float, only: str) -> None:
    for direction, sign in (("cut", -1), ("boost", 1)):
        shape = {"direction": direction, "smooth_octaves": smooth}
        settings = RenderSettings.model_validate({"amount": amount, "aspect": {"only": only}, "shape": shape})
        applied = effective_mask(random_mask(), settings, SPECTRUM).gain_db
        assert np.all(sign * applied >= 0)


def test_cuts_and_boosts_add_up_to_the_mask() -> None:
    mask = random_mask()
    total = shaped(mask, direction="cut") + shaped(mask, direction="boost")
    assert np.array_equal(total, mask.gain_db)


@given(amount=st.floats(-1, 2))
def test_amount_scales_decibels_linearly(amount: float) -> None:
    mask = random_mask()
    assert np.allclose(shaped(mask, amount), amount * mask.gain_db, atol=1e-5)


@pytest.mark.parametrize("shape", [{"smooth_octaves": 1.0}, {"smooth_seconds": 0.3, "direction": "cut"}])
def test_slices_of_a_shaped_mask_equal_the_whole(shape: dict[str, Any]) -> None:
    mask = shape_mask(random_mask(), ShapeSettings.model_validate(shape))
    whole = mask.gain_db
    for first, last in ((0, 1), (0, 40), (17, 90), (FRAMES - 1, FRAMES)):
        assert np.allclose(mask.gains.read(first, last), whole[:, first:last], atol=1e-5)


def test_shape_of_single_frames_is_that_of_the_mask() -> None:
    shape = ShapeSettings(smooth_octaves=0.5, low_hz=200.0, direction="boost")
    mask = random_mask()
    assert np.allclose(
        shape_gains(mask.gain_db[:, 3:4], HZ, shape)[:, 0], shape_mask(mask, shape).gain_db[:, 3], atol=1e-5
    )


def test_rows_of_a_spectrogram_can_be_smoothed() -> None:
    hz = np.arange(257) * 31.25
    gain = np.random.default_rng(1).normal(0, 4, (257, 5)).astype(np.float32)
    smooth = shaped(Mask(gain, hz, 0.01, 8_000.0), smooth_octaves=1.0)
    assert np.isfinite(smooth).all()
    assert curvature(smooth, 0) < 0.1 * curvature(gain, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"smooth_octaves": -1}, "smooth_octaves is -1"),
        ({"smooth_seconds": 61}, "smooth_seconds is 61"),
        ({"low_hz": 0}, "low_hz is 0"),
        ({"low_hz": 500, "high_hz": 400}, "limits from 500 Hz to 400 Hz are empty"),
        ({"direction": "up"}, "direction is 'up'"),
    ],
)
def test_wrong_shapes_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(CallError, match=message):
        RenderSettings().replace(shape=cast("ShapeChanges", wrong))
