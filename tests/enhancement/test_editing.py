"""Edits of a mask: effect of notes and regions, ranges, and searches around pinned notes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tonewood.dsp.stft import filter_recording
from tonewood.enhancement.editing import (
    Edit,
    EditRegion,
    Note,
    compose_mask,
    compose_mask_range,
    render_edit,
    render_range,
    shape_for_edit,
)
from tonewood.enhancement.pinned_search import search_around_pins
from tonewood.enhancement.pipeline import Enhancement, enhance_array
from tonewood.export.formats import thin_curve
from tonewood.mask.mask import Mask
from tonewood.mask.render import effective_mask
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.setting_types import GainDirection
from tonewood.settings import CurveSettings, EnhanceSettings, RenderSettings, ShapeSettings

RATE = 16_000
NOTE = Note(id="n", seconds=2.0, hz=1_000.0, width_s=1.0, height_hz=800.0, gain_db=6.0)


@pytest.fixture
def found_mask(rng: np.random.Generator) -> Mask:
    """Return a mask of random gains, four seconds long."""
    hz = 700 * (10 ** (np.linspace(80, 2_800, 24) / 2595) - 1)
    gain = rng.normal(0, 6, (24, 401)).astype(np.float32)
    return Mask(gain, hz, 0.01, 8_000.0).quantize()


def compose(mask: Mask, edit: Edit, max_gain_db: float) -> Mask:
    return compose_mask(shape_for_edit(mask, edit), edit, max_gain_db)


def at(mask: Mask, hz: float, seconds: float) -> float:
    return float(mask.gain_at(np.array([hz]), np.array([seconds]))[0, 0])


def flat(mask: Mask) -> Mask:
    return Mask(np.zeros_like(mask.gain_db), mask.hz, mask.hop_seconds, mask.top_hz)


def test_edit_without_notes_and_regions_returns_found_mask(found_mask: Mask) -> None:
    muted = NOTE.model_copy(update={"muted": True})
    assert compose(found_mask, Edit(amount=0.3, notes=(muted,)), 30) is found_mask


def test_finer_rows_keep_the_found_mask(found_mask: Mask) -> None:
    whole = compose(found_mask, Edit(areas=(EditRegion(id="a", amount=1.0),)), 30)
    hz, seconds = np.linspace(0, 16_000, 400), np.linspace(0, 5, 200)
    below = hz <= found_mask.hz[-1]
    expected = found_mask.gain_at(hz, seconds)
    np.testing.assert_allclose(whole.gain_at(hz[below], seconds), expected[below], atol=0.015)
    # The fade above is straight in octaves, and between the finer rows in mel.
    np.testing.assert_allclose(whole.gain_at(hz, seconds), expected, rtol=0.02, atol=0.1)


def test_note_adds_its_gain_at_its_centre_only(found_mask: Mask) -> None:
    whole = compose(found_mask, Edit(notes=(NOTE,)), 60)
    assert at(whole, 1_000, 2.0) - at(found_mask, 1_000, 2.0) == pytest.approx(6, abs=0.02)
    for hz, seconds in ((1_000, 1.2), (1_000, 2.8), (300, 2.0), (2_000, 2.0)):
        assert at(whole, hz, seconds) == pytest.approx(at(found_mask, hz, seconds), abs=0.06)


@given(
    seconds=st.floats(0.2, 3.8), hz=st.floats(150, 6_000), width=st.floats(0.05, 1),
    share=st.floats(0.2, 1), gain=st.floats(-25, 25),
)  # fmt: skip
def test_note_of_any_shape_reaches_and_never_exceeds_its_gain(
    seconds: float, hz: float, width: float, share: float, gain: float
) -> None:
    # Rows are a few dozen hertz apart or more: a note narrower than that may lie between two.
    note = Note(id="n", seconds=seconds, hz=hz, width_s=width, height_hz=max(200, share * hz),
                gain_db=gain)  # fmt: skip
    mel = np.linspace(80, 2_800, 48)
    mask = Mask(np.zeros((48, 401), np.float32), 700 * (10 ** (mel / 2595) - 1), 0.01, 8_000.0)
    whole = compose(mask, Edit(notes=(note,)), 30)
    assert whole.largest_db <= abs(gain) + 0.01
    assert abs(at(whole, hz, seconds)) >= 0.9 * abs(gain) - 0.02


def test_overlapping_notes_are_averaged(found_mask: Mask) -> None:
    other = NOTE.model_copy(update={"id": "m", "gain_db": 2.0})
    whole = compose(flat(found_mask), Edit(notes=(NOTE, other)), 30)
    assert at(whole, 1_000, 2.0) == pytest.approx(4, abs=0.02)


def test_region_scales_found_mask_but_not_notes(found_mask: Mask) -> None:
    area = EditRegion(id="a", start_s=1.0, end_s=3.0, low_hz=500, high_hz=2_000, amount=0.5)
    whole = compose(found_mask, Edit(areas=(area,), notes=(NOTE,)), 60)
    assert at(whole, 700, 1.3) == pytest.approx(at(found_mask, 700, 1.3) / 2, abs=0.05)
    assert at(whole, 5_000, 1.3) == pytest.approx(at(found_mask, 5_000, 1.3), abs=0.05)
    assert at(whole, 1_000, 2.0) == pytest.approx(at(found_mask, 1_000, 2.0) / 2 + 6, abs=0.05)


def test_gains_stay_within_the_limit(found_mask: Mask) -> None:
    loud = NOTE.model_copy(update={"gain_db": 30.0})
    assert compose(found_mask, Edit(notes=(loud,)), 12).largest_db <= 12.001


def test_note_changes_a_tone_by_its_gain(model: Model, tone: Callable[..., Any]) -> None:
    wave = tone(4.0, RATE, frequency=1_000.0, amplitude=0.1)
    mask = Mask(np.zeros((48, 401), np.float32), np.geomspace(80, 7_600, 48), 0.01, 8_000.0)
    whole = compose(mask, Edit(notes=(NOTE,)), 30)
    output = filter_recording(wave, RATE, whole.gain_at, model.settings.spectrum)[0]
    inside, outside = output[int(1.8 * RATE) : int(2.2 * RATE)], output[: int(1.2 * RATE)]
    assert 20 * np.log10(np.abs(inside).max() / 0.1) == pytest.approx(6, abs=0.2)
    assert np.abs(outside).max() == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("span", [range(0, 700), range(20_001, 29_000), range(60_000, 64_000)])
@pytest.mark.parametrize("rate", [RATE, 22_050])
def test_rendered_range_equals_that_range_of_the_whole(
    model: Model, play: Callable[..., Any], found_mask: Mask, span: range, rate: int
) -> None:
    wave = play(4, rate, 2)
    span = range(span.start, min(span.stop, wave.shape[1]))
    edit = Edit(amount=0.7, notes=(NOTE,), areas=(EditRegion(id="a", high_hz=900, amount=0.2),))
    whole = compose(found_mask, edit, 30).scale(edit.amount)
    expected = filter_recording(wave, rate, whole.gain_at, model.settings.spectrum)[:, span.start : span.stop]
    part = compose_mask_range(shape_for_edit(found_mask, edit), edit, 30, wave.shape[1], rate, model, span)
    assert part.gain_db.shape[1] < found_mask.gain_db.shape[1] or rate == RATE
    output = render_range(wave, rate, [part], model, span.start, span.stop)
    np.testing.assert_allclose(output, expected, atol=5e-5)  # a step of 0.01 dB may round otherwise


@pytest.fixture(scope="module")
def enhanced(model: Model, play: Callable[..., Any]) -> tuple[Any, Enhancement]:
    wave = play(4, RATE)
    settings = EnhanceSettings().replace(force=True, search=dict(steps=2))
    *_, last = enhance_array(wave, RATE, model, settings)
    assert isinstance(last, Enhancement)
    return wave, last


def test_empty_edit_equals_the_enhancement(model: Model, enhanced: tuple[Any, Enhancement]) -> None:
    wave, last = enhanced
    same = render_edit(wave, RATE, model, [last.mask], Edit(), last.settings, last.certificate)
    np.testing.assert_allclose(same.rendered.samples, last.samples, atol=1e-6)
    expected_fields, edited_fields = (item.model_dump() for item in (last.certificate, same.certificate))
    assert edited_fields.pop("verdict") == expected_fields.pop("verdict")
    assert edited_fields.pop("reasons") == expected_fields.pop("reasons")
    for name, value in expected_fields.items():
        assert edited_fields[name] == pytest.approx(value, abs=1e-3), name


def test_new_search_keeps_pinned_notes_and_takes_them_into_account(
    model: Model, enhanced: tuple[Any, Enhancement]
) -> None:
    wave, last = enhanced
    pinned = NOTE.model_copy(update={"pinned": True, "width_s": 2.0})
    events = list(
        search_around_pins(wave, RATE, model, [last.mask], (pinned,), last.settings, last.certificate)
    )
    assert [event.number for event in events if isinstance(event, SearchStep)] == [0, 1, 2]
    new = events[-1]
    assert isinstance(new, Enhancement)
    for hz in (850, 1_000, 1_150):
        assert at(new.mask, hz, 2.0) == pytest.approx(at(last.mask, hz, 2.0), abs=0.1)
    whole = compose(new.mask, Edit(notes=(pinned,)), 30)
    assert at(whole, 1_000, 2.0) - at(last.mask, 1_000, 2.0) == pytest.approx(6, abs=0.15)
    first = events[0]
    assert isinstance(first, SearchStep)
    difference = first.mask_db[:, 200].max() - last.mask.gain_db[:, 200].max()
    assert difference != 0  # the search includes the note


def test_new_search_gives_a_silent_component_0_db_on_its_own_rows(
    model: Model, enhanced: tuple[Any, Enhancement], found_mask: Mask
) -> None:
    """The side of equal channels; the masks before have the rows of another search."""
    wave, last = enhanced
    settings = last.settings.replace(search=dict(steps=0), render=dict(link="mid-side"))
    *_, new = search_around_pins(
        np.repeat(wave, 2, axis=0), RATE, model, [found_mask, found_mask], (), settings, last.certificate
    )
    assert isinstance(new, Enhancement)
    (side,) = new.others
    assert not side.gain_db.any()
    assert (side.frames, side.top_hz) == (new.mask.frames, new.mask.top_hz)
    np.testing.assert_array_equal(side.hz, new.mask.hz)
    assert len(side.hz) != len(found_mask.hz)


@pytest.mark.parametrize("direction", ["cut", "boost"])
@pytest.mark.parametrize("amount", [-0.5, 1.5])
@pytest.mark.parametrize("replaces_static", [False, True])
def test_curve_and_shape_of_an_edit_are_those_of_the_enhancement(
    found_mask: Mask, model: Model, amount: float, direction: GainDirection, replaces_static: bool
) -> None:
    shape = ShapeSettings(smooth_octaves=0.5, smooth_seconds=0.1, low_hz=300.0, direction=direction)
    curve = CurveSettings(points=((50.0, 6.0), (12_000.0, -3.0)), replaces_static=replaces_static)
    edit = Edit(amount=amount, shape=shape, curve=curve)
    edited = compose(found_mask, edit, 30).scale(amount)
    render = RenderSettings(amount=amount, shape=shape, curve=curve)
    applied = effective_mask(found_mask, render, model.settings.spectrum)
    np.testing.assert_allclose(edited.gain_db, applied.gain_db, atol=0.002)


def test_notes_keep_their_gain_in_a_shaped_edit(found_mask: Mask) -> None:
    edit = Edit(shape=ShapeSettings(direction="cut", high_hz=200.0), notes=(NOTE,))
    whole = compose(found_mask, edit, 30)
    assert at(whole, 1_000, 2.0) == pytest.approx(6, abs=0.01)
    assert at(whole, 3_000, 1.0) == 0


def test_note_beside_a_curve_changes_nothing_elsewhere(found_mask: Mask) -> None:
    curve = CurveSettings(points=((20.0, 9.0), (90.0, -9.0), (500.0, 0.0), (15_000.0, 6.0)))
    plain, noted = (compose(found_mask, Edit(curve=curve, notes=notes), 60) for notes in ((), (NOTE,)))
    hz, seconds = np.geomspace(20, 19_000, 300), np.array([0.5, 3.5])
    np.testing.assert_allclose(noted.gain_at(hz, seconds), plain.gain_at(hz, seconds), atol=0.015)
    assert at(noted, 1_000, 2.0) - at(plain, 1_000, 2.0) == pytest.approx(6, abs=0.02)


def test_long_curve_is_thinned_for_an_edit() -> None:
    points = tuple((20.0 * 1.001**n, 3 * np.sin(n / 500)) for n in range(5_000))
    with pytest.raises(ValidationError, match="5000 points; 500 are possible"):
        Edit(curve=CurveSettings(points=points))
    thin = np.array(Edit(curve=CurveSettings(points=thin_curve(points, 500))).curve.points)
    at_hz, at_db = np.array(points).T
    np.testing.assert_allclose(np.interp(thin[:, 0], at_hz, at_db), thin[:, 1], atol=0.001)
    assert thin_curve(points[:500], 500) == points[:500]


def test_half_an_edit_gets_the_verdict_of_the_whole(model: Model, enhanced: tuple[Any, Enhancement]) -> None:
    wave, last = enhanced
    half = render_edit(wave, RATE, model, [last.mask], Edit(amount=0.5), last.settings, last.certificate)
    assert half.certificate.verdict == last.certificate.verdict
    assert half.certificate.share == "50 %"
    assert half.certificate.whole is not None
    assert half.certificate.whole.scorer.after == pytest.approx(last.certificate.scorer.after, abs=1e-3)
