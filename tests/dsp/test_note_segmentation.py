"""Note segmentation of synthetic sounds."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tonewood.dsp import note_segmentation
from tonewood.dsp.note_segmentation import (
    PITCH_SAMPLE_RATE,
    QUIET_LABEL,
    SEGMENT_NAMES,
    detect_note_changes,
    detect_onsets,
    detect_vibrato,
    segment_notes,
)
from tonewood.errors import MissingExtraError

Floats = npt.NDArray[np.float64]
STEP = 0.02  # s, of the rules


def tone(semitones: Floats) -> npt.NDArray[np.float32]:
    """A tone of ten partials whose pitch, above 220 Hz, follows semitones [sample]."""
    phase = 2 * np.pi * np.cumsum(220 * 2 ** (semitones / 12)) / PITCH_SAMPLE_RATE
    number = np.arange(1, 11)
    wave = (1 / number) @ np.sin(number[:, None] * phase)
    return (0.1 * wave).astype(np.float32)


def straight(seconds: float) -> Floats:
    return np.zeros(round(seconds * PITCH_SAMPLE_RATE))


def swinging(seconds: float, hz: float = 5.5, cents: float = 35) -> Floats:
    time = np.arange(round(seconds * PITCH_SAMPLE_RATE)) / PITCH_SAMPLE_RATE
    return cents / 100 * np.sin(2 * np.pi * hz * time)


def named(labels: npt.NDArray[np.int8], begin: float, end: float) -> set[str]:
    """Labels of all frames from begin to end, s."""
    inside = labels[round(100 * begin) : round(100 * end)]
    return {"quiet" if label == QUIET_LABEL else SEGMENT_NAMES[label] for label in inside.tolist()}


@pytest.fixture(scope="module")
def phrase() -> Any:
    """Silence, a straight note that gets vibrato, a slur to another, silence, noise."""
    rng = np.random.default_rng(0)
    silence = np.zeros(PITCH_SAMPLE_RATE // 2, dtype=np.float32)
    note = tone(np.concatenate([straight(1.0), swinging(1.0), straight(0.5) + 4]))
    noise = (0.05 * rng.standard_normal(PITCH_SAMPLE_RATE // 2)).astype(np.float32)
    wave = np.concatenate([silence, note, silence, noise])
    return segment_notes(wave + 1e-6 * rng.standard_normal(len(wave)).astype(np.float32), 401, 100.0)


@pytest.mark.parametrize(
    ("begin", "end", "name"),
    [
        (0.1, 0.45, "quiet"),
        (0.51, 0.6, "attack"),
        (0.7, 1.3, "steady"),
        (1.75, 2.3, "vibrato"),
        (2.45, 2.55, "transition"),
        (2.65, 2.9, "steady"),
        (3.1, 3.4, "quiet"),
        (3.52, 3.6, "attack"),
        (3.7, 3.9, "noise-like"),
    ],
)
def test_segments_are_labelled(phrase: Any, begin: float, end: float, name: str) -> None:
    assert named(phrase.labels, begin, end) == {name}


def test_pitch_is_that_of_the_notes(phrase: Any) -> None:
    assert np.allclose(phrase.hz[70:130], 220, rtol=0.01)
    assert np.allclose(phrase.hz[270:290], 220 * 2 ** (4 / 12), rtol=0.01)
    assert np.isnan(phrase.hz[10:40]).all()


@pytest.mark.parametrize("hz", [4.5, 5.5, 7.0])
def test_vibrato_is_a_swing_of_4_to_8_hz(hz: float) -> None:
    time = STEP * np.arange(100)
    swing = np.sin(2 * np.pi * hz * time)
    assert detect_vibrato(0.3 * swing)[25:75].all()
    assert not detect_vibrato(0.02 * swing).any()  # two cents are not a vibrato
    assert not detect_vibrato(0.3 * np.sin(2 * np.pi * hz / 6 * time)).any()
    assert not detect_vibrato(0.3 * np.sin(2 * np.pi * 14 * time)).any()
    assert not detect_vibrato(3 * time).any()  # a glide
    assert not detect_vibrato(np.where(np.arange(100) % 20 == 0, np.nan, 0.3 * swing)).any()  # too short


def test_new_note_is_a_change_and_vibrato_is_not() -> None:
    time = STEP * np.arange(100)
    swing = 0.4 * np.sin(2 * np.pi * 5.5 * time)
    assert not detect_note_changes(swing).any()
    shifted = swing + np.where(time < 1, 0, 2)
    assert np.abs(time[detect_note_changes(shifted)] - 1).max() < 0.07
    lost = shifted.copy()
    lost[48:52] = np.nan
    assert detect_note_changes(lost).any()
    lost[40:60] = np.nan  # a longer gap is a rest, and the next note an attack
    assert not detect_note_changes(lost).any()
    assert not detect_note_changes(np.full(100, np.nan)).any()


def test_long_rise_is_one_onset() -> None:
    level = np.interp(np.arange(100), [0, 40, 44, 100], [-60.0, -60, -20, -20])
    (step,) = np.flatnonzero(detect_onsets(level))
    assert 40 < step <= 44
    assert not detect_onsets(np.full(100, -30.0))[1:].any()


@pytest.mark.parametrize("gain", [1e-3, 1.0, 5.0])
def test_gain_does_not_change_labels(gain: float) -> None:
    wave = tone(np.concatenate([straight(0.5), swinging(0.5)]))
    one, other = (segment_notes(item.astype(np.float32), 101, 100.0) for item in (wave, gain * wave))
    assert (one.labels == other.labels).mean() > 0.98


@pytest.mark.parametrize("samples", [1, 320, 4_000])
def test_short_and_silent_recordings_are_labelled(samples: int) -> None:
    result = segment_notes(np.zeros(samples, dtype=np.float32), 26, 100.0)
    assert result.labels.shape == result.hz.shape == (26,)
    assert np.isnan(result.hz).all()


def test_pitch_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = tone(np.concatenate([straight(1.5), swinging(1.5)]))
    whole = note_segmentation.track_pitch(wave)
    monkeypatch.setattr(note_segmentation, "_BLOCK_SECONDS", 1.0)
    in_blocks = note_segmentation.track_pitch(wave)
    assert whole.shape == in_blocks.shape == (len(wave) // 320 + 1,)
    both = np.isfinite(whole) & np.isfinite(in_blocks)
    assert both.mean() > 0.95
    assert np.abs(12 * np.log2(whole[both] / in_blocks[both])).max() < 0.2


def test_missing_librosa_is_one_line_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(MissingExtraError, match=r"needs librosa: pip install '\.\[pitch\]'"):
        segment_notes(np.zeros(1_000, dtype=np.float32), 10, 100.0)
