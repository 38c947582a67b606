"""The mask, its rendering and the objective against their float64 twins."""

import numpy as np
from hypothesis import strategies as st

from campaigns.harness.numerics.law import SEEDS, law
from tests.numerics import references
from tests.numerics.sounds import bundled, decibels, noise, notes
from tests.numerics.test_scoring_twins import network
from tonewood.dsp.features import mel_to_hz
from tonewood.dsp.stft import filter_fft_length, scale_to_rate
from tonewood.enhancement.pipeline import scorer_input
from tonewood.mask.mask import Mask, moving_average
from tonewood.mask.render import render_through_mask
from tonewood.mask.search import (
    FreeMask,
    SearchProblem,
    StickyNotes,
    render_sticky_notes,
    search_mask,
)
from tonewood.scorer.network import WindowScore
from tonewood.settings import RenderSettings, SearchSettings, SpectrumSettings
from tonewood.utils.arrays import RandomDraws

PAPER = SpectrumSettings()


def random_mask(seed: int, rows: int, frames: int, top: float = 8_000.0) -> Mask:
    """Return a mask of random gains on rows that are equally spaced in mel."""
    hz = mel_to_hz(np.linspace(60, 2_800, rows + 1))[1:]
    return Mask(8 * noise(seed, (rows, frames), 1.0), hz, 0.01, top)


def grid(mask: Mask, amount: float = 1.0) -> references.Grid:
    return references.Grid(
        amount * mask.gain_db.astype(np.float64),
        np.asarray(mask.hz, np.float64),
        mask.hop_seconds,
        mask.top_hz,
    )


@law(
    "Gain of a mask at any frequency and time: interpolation in mel and in time, the fade on top",
    within=1e-5,
    unit="dB",
    examples=15,
    seed=SEEDS,
    rows=st.integers(1, 48),
    frames=st.integers(1, 40),
    top=st.floats(3_000, 8_000),
)
def test_gain_of_a_mask(seed: int, rows: int, frames: int, top: float) -> float:
    mask = random_mask(seed, rows, frames, top)
    rng = np.random.default_rng(seed)
    hz, seconds = rng.uniform(0, 20_000, 12), rng.uniform(-0.1, 0.6, 8)
    slow = [[references.gain_at(grid(mask), f, t) for t in seconds] for f in hz]
    return float(np.abs(mask.gain_at(hz, seconds) - np.array(slow)).max())


@law(
    "Rendering: exp(amount × M) on every frame's spectrum, overlap-add; at any rate and amount",
    within=-120,
    unit="dB re the output",
    examples=8,
    seed=SEEDS,
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050]),
    amount=st.floats(0.05, 1),
)
def test_rendering(seed: int, rate: int, amount: float) -> float:
    mask, wave = random_mask(seed, 12, 20), notes(seed, 0.17, rate)
    window, hop, _ = scale_to_rate(PAPER, rate)
    settings = RenderSettings(amount=amount, match=False)
    output = render_through_mask(wave, rate, mask, settings, PAPER).samples[0]
    slow = references.filtered(
        wave[0].astype(np.float64), rate, window, hop, filter_fft_length(window), grid(mask, amount)
    )
    return decibels(output, slow)


@law(
    "Averaging of a mask: the mean of the nearest cells",
    within=1e-5,
    unit="dB",
    examples=10,
    seed=SEEDS,
    frames=st.integers(1, 16),
    rows=st.integers(1, 5),
)
def test_averaging(seed: int, frames: int, rows: int) -> float:
    gain = 8 * noise(seed, (7, 12), 1.0)
    slow = references.smoothed(gain.astype(np.float64), frames, rows)
    return float(np.abs(moving_average(gain, frames, rows) - slow).max())


@law(
    "Roughness: the total variation along time, of a cell",
    within=2e-6,
    unit="dB",
    examples=10,
    seed=SEEDS,
    frames=st.integers(2, 60),
)
def test_roughness(seed: int, frames: int) -> float:
    mask = random_mask(seed, 9, frames)
    return abs(mask.roughness_db - references.roughness(mask.gain_db.astype(np.float64)))


@law(
    "Sticky notes: shares counted point by point, the mean gain where they overlap",
    within=1e-3,
    unit="dB",
    examples=6,
    seed=SEEDS,
    count=st.integers(1, 6),
    smooth_hz=st.sampled_from([0.0, 150.0]),
    smooth_s=st.sampled_from([0.0, 0.09]),
)
def test_sticky_notes(seed: int, count: int, smooth_hz: float, smooth_s: float) -> float:
    rng = np.random.default_rng(seed)
    placed = [
        (
            rng.uniform(0, 1),
            rng.uniform(0, 8_000),
            rng.uniform(0.1, 0.5),
            rng.uniform(200, 3_000),
            rng.normal(0, 5),
        )
        for _ in range(count)
    ]
    # Points near the edges of the notes, where shares are between 0 and 1.
    edges = [(c + side * h / 2, s + side * w / 2) for s, c, w, h, _ in placed for side in (-1, 1)]
    hz, seconds = np.array(edges).T + rng.uniform(-1, 1, (2, 1)) * [[60.0], [0.03]]
    sticky_notes = StickyNotes(*(np.array(field, np.float32) for field in zip(*placed, strict=True)))
    profiles = sticky_notes.profiles(hz.astype(np.float32), seconds.astype(np.float32), smooth_hz, smooth_s)
    output = render_sticky_notes(sticky_notes.gain_db, *profiles)
    return float(np.abs(output - references.notes(placed, hz, seconds, smooth_hz, smooth_s)).max())


@law(
    "Objective at the start of a search, scorer and windows included",
    within=1e-6,
    unit="of 1",
    examples=5,
    seed=SEEDS,
    score=st.floats(0, 2),
    guide=st.floats(0, 1),
    alpha=st.floats(0, 0.05),
    beta=st.floats(0, 0.05),
)
def test_objective(seed: int, score: float, guide: float, alpha: float, beta: float) -> float:
    model = bundled("cello")
    rows = scorer_input(notes(seed, 0.8)[0], model)
    mask, anchor = (3 * noise(seed + k, rows.shape, 1.0) for k in (1, 2))
    settings = SearchSettings(score=score, guide=guide, alpha=alpha, beta=beta, steps=0)
    problem = SearchProblem(
        WindowScore(model.scorer),
        rows,
        anchor,
        settings,
        window_frames=rows.shape[1],
        max_gain_db=60.0,
        guide_energy=lambda masked: (float(np.square(masked, dtype=np.float64).sum() / 1e4), masked / 5e3),
    )
    (step,) = search_mask(problem, FreeMask(mask), RandomDraws(0))
    masked = (rows + mask).astype(np.float64)
    slow = references.objective(
        references.score(network(model.scorer), masked),
        float(np.square(masked).sum() / 1e4),
        mask.astype(np.float64),
        anchor.astype(np.float64),
        (score, guide, alpha, beta),
    )
    return abs(step.objective.total - slow) / max(1.0, abs(slow))
