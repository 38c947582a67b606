"""Alignment of performances with known correspondence."""

import itertools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tonewood.dsp.features import band_levels
from tonewood.errors import MissingExtraError
from tonewood.evaluation.alignment import (
    HOP_S,
    Anchor,
    _mel_levels,
    align_recordings,
    extract_alignment_features,
    find_coarse_path,
    min_cost_path,
)
from tonewood.evaluation.metrics import mel_distance
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import Samples

Floats = NDArray[np.float64]
RATE = 16_000
SECONDS = 8.0


class Tempo(NamedTuple):
    """Times of a performance, and of the score at each."""

    played_s: Floats
    score_s: Floats

    def inverse(self, score_s: Floats) -> Floats:
        return np.interp(score_s, self.score_s, self.played_s)


def tempo(speed: float, rubato: float = 0.0, seed: int = 0) -> Tempo:
    """Return a performance of the score at a mean speed, which varies by the share `rubato`."""
    rng = np.random.default_rng(seed)
    score = np.arange(0, SECONDS + 0.001, 0.001)
    sway = sum(np.sin(2 * np.pi * (score / period + rng.uniform())) for period in (1.7, 3.1, 5.3))
    pace = 1 / (speed * (1 + rubato) ** (np.asarray(sway) / 1.8))
    return Tempo(np.concatenate([[0.0], np.cumsum(pace[:-1]) * 0.001]), score)


def performed(performance: Tempo, formant_hz: float, seed: int = 1) -> Samples:
    """Return notes with envelopes in score time and partials in clock time.

    So a slower performance has the same sound, and its true alignment is known exactly.
    """
    rng = np.random.default_rng(seed)
    clock = np.arange(round(performance.played_s[-1] * RATE)) / RATE
    score = np.interp(clock, performance.played_s, performance.score_s)
    wave, start = np.zeros(len(clock)), 0.05
    while start < SECONDS - 0.3:
        length = rng.choice([0.25, 0.4, 0.7])
        hz = 110 * 2 ** (rng.integers(0, 24) / 12) * np.arange(1, 40)
        hz = hz[hz < 7_000]
        inside = np.clip(np.minimum(score - start, start + length - score), 0, None)
        shape = np.minimum(1, inside / 0.03) * np.exp(-1.5 * (score - start).clip(0))
        body = (1 / (1 + ((hz - formant_hz) / 400) ** 2) + 0.03) / np.sqrt(np.arange(len(hz)) + 1)
        used = np.flatnonzero(shape)
        partials = np.sin(2 * np.pi * hz[:, None] * clock[used] + rng.uniform(0, 6, (len(hz), 1)))
        wave[used] += shape[used] * (body @ partials)
        start += length * 0.98
    wave = 0.2 * wave / np.abs(wave).max() + 1e-5 * rng.standard_normal(len(wave))
    return np.asarray(wave, np.float32)


STEADY = tempo(1.0)


@pytest.fixture(scope="module")
def source() -> Samples:
    return performed(STEADY, 2_500.0)


@pytest.mark.parametrize(("speed", "rubato"), [(1.15, 0.0), (0.87, 0.0), (1.0, 0.15), (0.9, 0.2)], ids=str)
def test_other_tempo_is_aligned(source: Samples, speed: float, rubato: float) -> None:
    performance = tempo(speed, rubato, seed=3)
    reference = performed(performance, 600.0)
    result = align_recordings(source, reference)
    assert result.quality.problem is None
    assert not result.exact
    times = np.arange(0.1, SECONDS - 0.5, 0.01)
    error = np.abs(result.to_reference(times) - performance.inverse(times))
    assert np.nanmedian(error) < 0.020
    assert np.nanquantile(error, 0.9) < 0.060
    assert np.isfinite(error).mean() > 0.95
    unwarped = mel_distance(source, performed(STEADY, 600.0))
    assert mel_distance(source, reference, result.to_reference) == pytest.approx(unwarped, rel=0.05)


def test_simultaneous_takes_are_exact(source: Samples) -> None:
    reference = performed(STEADY, 600.0)
    result = align_recordings(source, reference)
    assert result.exact
    times = np.array([0.0, 0.123, 7.5])
    assert result.to_reference(times).tolist() == times.tolist()
    assert result.quality.problem is None
    assert (result.quality.slowest, result.quality.fastest, result.quality.stuck) == (1, 1, 0)


def test_lead_in_is_a_constant_lag(source: Samples) -> None:
    late = np.pad(source, (RATE, 0))
    result = align_recordings(source, late)
    times = np.arange(0.2, 7.0, 0.1)
    assert not result.exact
    assert np.abs(result.to_reference(times) - times - 1).max() < 0.03
    assert np.isnan(result.to_reference(np.array([SECONDS + 1]))).all()
    assert mel_distance(source, late, result.to_reference) < 0.5


def test_other_piece_has_low_similarity(source: Samples) -> None:
    result = align_recordings(source, performed(STEADY, 600.0, seed=2))
    assert result.quality.problem is not None
    assert "check that both play the same piece" in result.quality.problem
    assert f"agree by {result.quality.similarity:.2f}" in result.quality.problem


def test_missing_passage_has_no_counterpart(source: Samples) -> None:
    cut = np.concatenate([source[: 2 * RATE], source[4 * RATE :]])
    result = align_recordings(source, cut, [Anchor(1.9, 1.9), Anchor(4.1, 2.1)])
    assert np.isnan(result.to_reference(np.array([3.0]))).all()
    assert result.to_reference(np.array([1.0, 6.0])) == pytest.approx([1.0, 4.0], abs=0.04)
    assert 0.1 < result.quality.stuck < 0.4


@pytest.mark.parametrize(("lag_s", "range_s"), [(3.0, (1.8, 2.8)), (0.0, (0.2, 0.9))])
def test_anchors_resolve_repetitions(source: Samples, lag_s: float, range_s: tuple[float, float]) -> None:
    """The reference is the phrase played twice; an anchor decides between first and second."""
    phrase = source[: 3 * RATE]
    result = align_recordings(phrase, np.concatenate([phrase, phrase]), [Anchor(1.5, 1.5 + lag_s)])
    times = np.arange(*range_s, 0.05)
    assert np.abs(result.to_reference(times) - times - lag_s).max() < 0.05


def test_path_passes_through_anchors(source: Samples) -> None:
    reference = extract_alignment_features(performed(tempo(0.87), 600.0))
    path = find_coarse_path(extract_alignment_features(source), reference, [(200, 232), (500, 572)])
    assert path[[0, 200, 500, -1]] == pytest.approx([0, 232, 572, len(reference.audible) - 1], abs=5)
    assert (np.diff(path) >= 0).all()


@pytest.mark.parametrize("seconds", [0.25, 0.7, 1.3])
def test_short_takes_are_aligned(source: Samples, seconds: float) -> None:
    short = source[: round(seconds * RATE)]
    result = align_recordings(short, np.concatenate([short, 1e-3 * short]))
    times = np.arange(0.1, seconds - 0.1, 0.01)
    assert np.nanmax(np.abs(result.to_reference(times) - times)) < 0.06


def test_single_note_is_aligned_by_its_ends(tone: Callable[..., Any]) -> None:
    notes = [tone(s, RATE, frequency=220.0)[0] for s in (2.0, 2.3)]
    quiet = np.zeros(RATE // 2, np.float32)
    short, long = (np.concatenate([quiet, note, quiet]) for note in notes)
    result = align_recordings(short, long)
    assert result.quality.problem is None
    assert result.quality.chance > 0.5  # all frames are alike, which the quality reports
    assert result.to_reference(np.array([0.6, 2.4])) == pytest.approx([0.6, 2.7], abs=0.1)


def test_missing_synctoolbox_is_one_line_with_a_remedy(
    source: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "synctoolbox.dtw.mrmsdtw", None)
    with pytest.raises(MissingExtraError, match=r"^.*: pip install '\.\[align\]'$"):
        align_recordings(source, source)


def min_cost_by_enumeration(costs: NDArray[np.float32], price: float) -> float:
    """Least cost of all paths, by enumeration."""
    count, width = costs.shape
    totals = [
        sum(costs[frame, state] for frame, state in enumerate(path))
        + price * sum(abs(a - b) for a, b in itertools.pairwise(path))
        for path in itertools.product(range(width), repeat=count)
        if all(abs(a - b) <= 1 for a, b in itertools.pairwise(path))
    ]
    return float(min(totals))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), price=st.floats(0, 2))
def test_min_cost_path_is_the_cheapest(seed: int, price: float) -> None:
    costs = np.random.default_rng(seed).random((5, 5)).astype(np.float32)
    path = min_cost_path(costs, price)
    steps = np.abs(np.diff(path))
    assert steps.max() <= 1
    cost = sum(float(costs[i, k + 2]) for i, k in enumerate(path)) + price * float(steps.sum())
    assert cost == pytest.approx(min_cost_by_enumeration(costs, price), rel=1e-5)


def test_alignment_features_do_not_depend_on_level(source: Samples) -> None:
    loud, soft = extract_alignment_features(source), extract_alignment_features(0.1 * source)
    for name in ("fine", "chroma", "attack"):
        assert np.abs(getattr(loud, name) - getattr(soft, name)).max() < 0.02, name
    assert (loud.audible == soft.audible).all()


def test_chroma_counts_semitones_from_a(tone: Callable[..., Any]) -> None:
    for semitone in (0, 1, 7):
        wave = tone(0.5, RATE, frequency=220 * 2 ** (semitone / 12))[0]
        assert extract_alignment_features(wave).chroma[10:40].mean(axis=0).argmax() == semitone


def test_attack_strength_peaks_at_the_attack(tone: Callable[..., Any]) -> None:
    wave = np.concatenate([np.zeros(RATE // 2), tone(0.5, RATE)[0]]).astype(np.float32)
    strength = np.linalg.norm(extract_alignment_features(wave).attack, axis=1)
    assert abs(strength.argmax() * HOP_S - 0.5) <= 0.02
    assert strength[:45].max() == 0


def test_mel_levels_do_not_depend_on_blocks(rng: np.random.Generator) -> None:
    wave = rng.standard_normal(RATE * 62).astype(np.float32)
    whole = band_levels(wave, RATE, BandSettings(), SpectrumSettings())
    assert _mel_levels(wave) == pytest.approx(whole, abs=1e-3)
