import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tonewood.dsp.features import mel_to_hz
from tonewood.errors import CallError
from tonewood.mask.components import (
    dynamic_component,
    fit_tilt,
    limit_to_aspect,
    limit_to_band,
    limit_to_span,
    select_component,
    static_component,
    tilt_component,
)
from tonewood.mask.mask import Mask
from tonewood.mask.render import effective_mask, render_through_mask
from tonewood.setting_types import apply_assignments
from tonewood.settings import AspectSettings, RenderSettings, SpectrumSettings

PAPER = SpectrumSettings()
HZ = mel_to_hz(np.linspace(60, 2_800, 48))
REACH = 0.015


def random_mask(seed: int = 0, frames: int = 201, rows: int = 48) -> Mask:
    rng = np.random.default_rng(seed)
    gain = np.cumsum(rng.standard_normal((rows, frames)), axis=1)
    return Mask(np.clip(gain, -20, 20).astype(np.float32), HZ[:rows], 0.01, 8_000.0)


def noise(seconds: float = 2.0, rate: int = 44_100, channels: int = 2) -> NDArray[np.float32]:
    wave = 0.2 * np.random.default_rng(1).standard_normal((channels, round(seconds * rate)))
    return wave.astype(np.float32)


# --- Aspects


@given(seed=st.integers(0, 50), frames=st.integers(1, 40))
def test_static_and_dynamic_component_sum_to_mask(seed: int, frames: int) -> None:
    mask = random_mask(seed, frames)
    total = static_component(mask).gain_db + dynamic_component(mask).gain_db
    assert np.allclose(total, mask.gain_db, atol=1e-5)
    assert np.allclose(dynamic_component(mask).gain_db.mean(axis=1), 0, atol=1e-4)
    assert np.ptp(static_component(mask).gain_db, axis=1).max() == 0


@given(
    height=st.floats(-10, 10),
    slope=st.floats(-6, 6),
    frames=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_tilt_of_a_straight_line_is_the_line(height: float, slope: float, frames: int, seed: int) -> None:
    octaves = np.log2(HZ / 1000)
    factor = 1 + 0.5 * np.sin(np.arange(frames) + seed)
    line = (height + slope * octaves[:, None]) * factor
    mask = Mask(line.astype(np.float32), HZ, 0.01, 8_000.0)
    assert np.allclose(tilt_component(mask).gain_db, mask.gain_db, atol=1e-4)
    line_fit, _ = fit_tilt(mask)
    assert line_fit[1] == pytest.approx(slope * factor, abs=1e-4)


def test_mask_minus_its_tilt_has_no_tilt() -> None:
    mask = random_mask()
    rest = Mask(mask.gain_db - tilt_component(mask).gain_db, HZ, 0.01, 8_000.0)
    assert np.abs(tilt_component(rest).gain_db).max() < 1e-4
    assert np.abs(rest.gain_db).max() > 1


def test_tilt_ignores_row_at_zero_hertz() -> None:
    hz = np.arange(257) * 31.25
    gain = np.zeros((257, 2), dtype=np.float32)
    gain[0] = 60.0
    assert np.abs(tilt_component(Mask(gain, hz, 0.01, 8_000.0)).gain_db).max() < 1e-6
    one = Mask(np.full((1, 3), 2.0, dtype=np.float32), HZ[:1], 0.01, 8_000.0)
    assert np.allclose(tilt_component(one).gain_db, 2)


def test_component_all_returns_the_mask() -> None:
    mask = random_mask()
    assert select_component(mask, "all") is mask
    assert limit_to_aspect(mask, AspectSettings(), REACH) is mask
    aspect = AspectSettings(only="tilt", between=(200, 4_000), start_s=0.5)
    output = limit_to_aspect(select_component(mask, aspect.only), aspect, REACH)
    slow = limit_to_span(limit_to_band(tilt_component(mask), 200, 4_000), 0.5, None, REACH)
    assert np.array_equal(output.gain_db, slow.gain_db)
    force = effective_mask(mask, RenderSettings(amount=0.5), PAPER)
    assert np.array_equal(force.load().gain_db, mask.scale(0.5).gain_db)


# --- One band


@settings(max_examples=30, deadline=None)
@given(low=st.floats(30, 5_000), octaves=st.floats(0.2, 6), seed=st.integers(0, 9))
def test_band_keeps_mask_inside_and_zero_outside(low: float, octaves: float, seed: int) -> None:
    mask, high = random_mask(seed, 5), low * 2**octaves
    output = limit_to_band(mask, low, high)
    times = np.arange(5) * 0.01
    outside = np.array([low * 0.5, low * 0.99, low, high, high * 1.01, high * 2])
    assert np.abs(output.gain_at(outside, times)).max() < 1e-4
    fade = min(1 / 3, octaves / 2)
    inside = np.geomspace(low * 2 ** (fade * 1.001), high * 2 ** (-fade * 1.001), 9)
    if octaves > 0.7:
        assert np.allclose(output.gain_at(inside, times), mask.gain_at(inside, times), atol=2e-3)
    everywhere = np.geomspace(20, 16_000, 200)
    assert (np.abs(output.gain_at(everywhere, times)) <= np.abs(mask.gain_at(everywhere, times)) + 0.05).all()


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("between", [(200.0, 4_000.0), (50.0, 150.0), (3_000.0, 20_000.0)])
def test_output_equals_input_outside_the_band(rate: int, between: tuple[float, float]) -> None:
    wave = noise(rate=rate)
    settings = RenderSettings(aspect=AspectSettings(between=between))
    output = render_through_mask(wave, rate, random_mask(), settings, PAPER)
    assert output.gain_db == 0
    window = np.hanning(wave.shape[1])
    hz = np.fft.rfftfreq(wave.shape[1], 1 / rate)
    before, change = (
        np.abs(np.fft.rfft(x * window)).astype(np.float64) ** 2 for x in (wave, output.samples - wave)
    )
    for outside in (hz < between[0] - 2, hz > between[1] + 2):
        if outside.any():
            ratio = change[:, outside].sum() / before[:, outside].sum()
            assert 10 * np.log10(ratio + 1e-30) < -90
    inside = (hz > between[0]) & (hz < between[1])
    assert 10 * np.log10(change[:, inside].sum() / before[:, inside].sum()) > -15


# --- One span


@settings(max_examples=30, deadline=None)
@given(start=st.floats(0, 1), length=st.floats(0.01, 0.95))
def test_span_keeps_mask_inside_and_zero_outside(start: float, length: float) -> None:
    mask, end = random_mask(), start + length
    output = limit_to_span(mask, start, end, REACH)
    hz = np.geomspace(50, 8_000, 7)
    outside = np.array([start - 0.02, start, end, end + 0.02, end + 1])
    assert np.abs(output.gain_at(hz, np.maximum(outside, 0)[outside >= 0])).max() < 1e-6
    inside = np.arange(start + 0.14, end - 0.14, 0.01)
    if len(inside):
        assert np.allclose(output.gain_at(hz, inside), mask.gain_at(hz, inside), atol=1e-4)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
@pytest.mark.parametrize("between", [None, (300.0, 3_000.0)])
def test_output_equals_input_outside_the_span(rate: int, between: tuple[float, float] | None) -> None:
    wave = noise(rate=rate)
    aspect = AspectSettings(start_s=0.6, end_s=1.4, between=between)
    output = render_through_mask(wave, rate, random_mask(), RenderSettings(aspect=aspect), PAPER).samples
    change = np.abs(output - wave).max(axis=0)
    first, last = round(0.6 * rate), round(1.4 * rate)
    assert max(change[:first].max(), change[last:].max()) < 0.2 * 10 ** (-90 / 20)
    assert change[first:last].max() > 0.05


def test_open_end_has_no_fade() -> None:
    mask = random_mask()
    late = limit_to_span(mask, 0.5, None, REACH)
    assert np.array_equal(late.gain_db[:, 70:], mask.gain_db[:, 70:])
    early = limit_to_span(mask, None, 0.5, REACH)
    assert np.array_equal(early.gain_db[:, :35], mask.gain_db[:, :35])
    assert np.abs(early.gain_db[:, 50:]).max() == 0


def test_span_limits_single_frame_mask() -> None:
    mask = Mask(np.full((48, 1), 6.0, dtype=np.float32), HZ, 0.01, 8_000.0)
    hz, times = np.array([1_000.0]), np.array([0.0, 0.9, 1.5, 2.1, 9.0])
    assert limit_to_span(mask, 1.0, 2.0, REACH).gain_at(hz, times)[0] == pytest.approx([0, 0, 6, 0, 0])
    assert limit_to_span(mask, 1.0, None, REACH).gain_at(hz, times)[0] == pytest.approx([0, 0, 6, 6, 6])


# --- Settings


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("aspect.between=[4000,200]", "a band from 4000 Hz to 200 Hz is empty: give LOW:HIGH"),
        ("aspect.between=[0,200]", "is empty"),
        ('aspect.only="bass"', "aspect.only is 'bass'"),
        ("aspect.start_s=-1", "aspect.start_s is -1"),
    ],
)
def test_invalid_aspect_settings_are_rejected(assignment: str, reason: str) -> None:
    with pytest.raises(CallError, match=reason.replace("[", r"\[")):
        apply_assignments(RenderSettings(), [assignment])


def test_span_that_ends_before_its_start_is_rejected() -> None:
    with pytest.raises(CallError, match="a span from 3 s to 2 s is empty"):
        RenderSettings().replace(aspect=dict(start_s=3, end_s=2))


def test_fixed_gain_applies_without_matching() -> None:
    wave, mask = noise(0.6), random_mask()
    unscaled, louder = (
        render_through_mask(wave, 44_100, mask, RenderSettings(match=False, gain_db=gain), PAPER)
        for gain in (0.0, 6.0)
    )
    assert np.allclose(louder.samples, unscaled.samples * 10 ** (6 / 20), rtol=1e-5, atol=1e-6)
    assert louder.gain_db == 6
    assert louder.loudness_after == pytest.approx(unscaled.loudness_after + 6, abs=1e-3)


@pytest.mark.parametrize("only", ["all", "tilt", "bands", "dynamics-of-bands"])
def test_components_of_slices_equal_those_of_the_whole(only: str) -> None:
    mask = random_mask()
    aspect = AspectSettings.model_validate(
        {"only": only, "between": (300, 3_000), "start_s": 0.4, "end_s": 1.6}
    )
    whole = limit_to_aspect(select_component(mask, aspect.only), aspect, REACH)
    component = select_component(mask, aspect.only)
    parts = [
        limit_to_aspect(component.slice_frames(a, b), aspect, REACH, first_frame=a).gain_db
        for a, b in ((1, 70), (70, 201))
    ]
    assert np.allclose(np.concatenate(parts, axis=1), whole.gain_db[:, 1:], atol=1e-5)


@pytest.mark.parametrize("only", ["all", "tilt", "bands", "dynamics-of-bands"])
def test_effective_mask_is_the_same_in_slices(only: str) -> None:
    mask = random_mask()
    chosen = RenderSettings.model_validate({"amount": 0.5, "aspect": {"only": only}})
    force = effective_mask(mask, chosen, PAPER)
    whole = select_component(mask, chosen.aspect.only).scale(0.5).gain_db
    for first, last in ((0, 1), (3, 80), (150, 201)):
        part = force.gains.read(first, last)
        assert np.allclose(part, whole[:, first:last], atol=1e-5)
