import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonewood.mask.search import StickyNoteGains, StickyNotes, render_sticky_notes, scatter_sticky_notes
from tonewood.settings import NoteSettings
from tonewood.utils.arrays import Levels, RandomDraws

ROW_HZ = np.arange(257, dtype=np.float32) * np.float32(31.25)
FRAME_S = np.arange(201, dtype=np.float32) * np.float32(0.01)


def note(
    seconds: float = 1.0,
    hz: float = 3_000.0,
    width_s: float = 0.4,
    height_hz: float = 800.0,
    gain_db: float = 5.0,
) -> StickyNotes:
    return StickyNotes(*(np.array([v], dtype=np.float32) for v in (seconds, hz, width_s, height_hz, gain_db)))


def joined(*notes: StickyNotes) -> StickyNotes:
    fields = ("seconds", "hz", "width_s", "height_hz", "gain_db")
    return StickyNotes(*(np.concatenate([getattr(one, name) for one in notes]) for name in fields))


def rendered(notes: StickyNotes, smooth_hz: float = 0.0, smooth_s: float = 0.0) -> Levels:
    mask = render_sticky_notes(notes.gain_db, *notes.profiles(ROW_HZ, FRAME_S, smooth_hz, smooth_s))
    assert mask.shape == (257, 201)
    return mask


@pytest.mark.parametrize(("smooth_hz", "smooth_s"), [(0.0, 0.0), (150.0, 0.09), (800.0, 0.4)])
def test_single_note_has_its_gain_at_centre_and_zero_outside(smooth_hz: float, smooth_s: float) -> None:
    mask = rendered(note(), smooth_hz, smooth_s)
    assert mask[96, 100].item() == pytest.approx(5.0, abs=1e-4)
    far_hz = np.abs(ROW_HZ - 3_000) > 400 + smooth_hz / 2 + 1
    far_s = np.abs(FRAME_S - 1) > 0.2 + smooth_s / 2 + 0.001
    assert (mask[far_hz] == 0).all()
    assert (mask[:, far_s] == 0).all()
    assert mask.max() <= 5 + 1e-5
    assert mask.min() >= 0


def test_unsmoothed_note_is_a_block() -> None:
    inside = (np.abs(ROW_HZ - 3_000) <= 400)[:, None] & (np.abs(FRAME_S - 1) <= 0.2001)
    mask = rendered(note(width_s=0.4002))
    assert np.array_equal(mask, 5.0 * inside)


@given(
    centre=st.floats(0, 2),
    width=st.floats(0.02, 1.0),
    span=st.floats(0.01, 0.8),
)
def test_smoothed_edges_are_the_averaged_block(centre: float, width: float, span: float) -> None:
    """Slow twin: the block on a grid of 0.1 ms, its mean over the span around each frame."""
    _, profile = note(seconds=centre, width_s=width).profiles(ROW_HZ, FRAME_S, 0.0, span)
    fine = np.arange(-1.5, 3.5, 1e-4)
    block = np.abs(fine - centre) <= width / 2
    total = np.concatenate([[0], np.cumsum(block)])
    low, high = (np.searchsorted(fine, FRAME_S.astype(float) + side * span / 2) for side in (-1, 1))
    slow = (total[high] - total[low]) / (high - low)
    assert profile[0] == pytest.approx(slow, abs=4e-4 / min(span, 0.02) + 1e-3)


@pytest.mark.parametrize("span", [0.05, 0.4, 0.9])
def test_smoothing_keeps_the_area(span: float) -> None:
    frames = np.arange(-2_000, 4_000, dtype=np.float32) * np.float32(0.001)
    _, profile = note().profiles(ROW_HZ, frames, 0.0, span)
    assert profile.sum().item() * 0.001 == pytest.approx(0.4, abs=2e-3)


def test_overlapping_notes_are_averaged() -> None:
    both = rendered(joined(note(gain_db=6.0), note(gain_db=-2.0)))
    assert both[96, 100].item() == pytest.approx(2.0)
    shifted = rendered(joined(note(gain_db=6.0), note(seconds=1.3, gain_db=-2.0)))
    assert shifted[96, 85].item() == pytest.approx(6.0)
    assert shifted[96, 115].item() == pytest.approx(2.0)
    assert shifted[96, 140].item() == pytest.approx(-2.0)
    assert shifted[96, 160].item() == 0


def test_identical_notes_equal_one_note() -> None:
    """The mask stays between the gains of overlapping notes."""
    pile = rendered(joined(*[note(gain_db=4.0)] * 9), 150.0, 0.09)
    assert pile[96, 100].item() == pytest.approx(4.0, abs=1e-4)
    assert pile.max() <= 4 + 1e-5


def test_smoothed_edges_fade_to_zero() -> None:
    edge = rendered(note(), 150.0, 0.1)[96, 100:]
    assert edge[20].item() == pytest.approx(2.5, abs=0.01)
    assert (np.diff(edge) <= 1e-6).all()
    assert np.abs(np.diff(edge)).max() == pytest.approx(5 * 0.01 / 0.1, abs=0.01)
    assert edge[26] == 0


def test_gradient_reaches_the_gains() -> None:
    notes = joined(note(), note(seconds=0.2))
    gains = StickyNoteGains(notes, ROW_HZ, FRAME_S, 150.0, 0.09)
    of_mask = np.zeros((257, 201), np.float32)
    of_mask[96, 100] = 1
    assert gains.gradient(of_mask) == pytest.approx([1.0, 0.0], abs=1e-5)


def test_gradient_of_the_gains_is_the_adjoint_of_rendering() -> None:
    """The mask is linear in the gains: ⟨mask, y⟩ = ⟨gains, gradient y⟩."""
    notes = scattered("rectangular", per_second=4)
    gains = StickyNoteGains(notes, ROW_HZ, FRAME_S, 150.0, 0.09)
    y = np.random.default_rng(0).standard_normal((257, 201)).astype(np.float32)
    expected = float((gains.mask() * y).sum(dtype=np.float64))
    assert float(gains.values @ gains.gradient(y)) == pytest.approx(expected, rel=1e-4)


def scattered(shape: str, seed: int = 0, **more: float) -> StickyNotes:
    settings = NoteSettings.model_validate({"shape": shape, **more})
    return scatter_sticky_notes(settings, 10.0, 8_000.0, RandomDraws(seed))


def test_scattered_notes_follow_the_settings() -> None:
    notes = scattered("rectangular")
    assert notes.seconds.shape == (200,)
    assert (notes.width_s == np.float32(0.3)).all()
    assert (notes.height_hz == 500).all()
    assert 0 <= notes.seconds.min() < 0.5
    assert 9.5 < notes.seconds.max() < 10
    assert 0 <= notes.hz.min() < 400
    assert 7_600 < notes.hz.max() < 8_000
    assert notes.gain_db.std().item() == pytest.approx(3.0, rel=0.2)
    assert abs(notes.gain_db.mean()) < 0.8


def test_square_notes_keep_the_area_with_equal_sides() -> None:
    notes = scattered("square")
    assert notes.width_s * notes.height_hz == pytest.approx(0.3 * 500, rel=1e-5)
    # On the paper's spectrogram: bins of 31.25 Hz, frames of 10 ms.
    assert notes.width_s / 0.010 == pytest.approx(notes.height_hz / 31.25)


def test_generator_determines_the_notes() -> None:
    first, again, other = (scattered("square", seed) for seed in (1, 1, 2))
    assert np.array_equal(first.seconds, again.seconds)
    assert np.array_equal(first.gain_db, again.gain_db)
    assert not np.array_equal(first.gain_db, other.gain_db)


def test_short_recording_has_one_note() -> None:
    settings = NoteSettings(per_second=0.1)
    assert scatter_sticky_notes(settings, 0.3, 8_000.0, RandomDraws(0)).gain_db.shape == (1,)
