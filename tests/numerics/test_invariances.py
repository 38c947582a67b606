"""Invariances of a whole enhancement: level, polarity, order of channels, time shift."""

import numpy as np
from hypothesis import strategies as st

import tonewood
from campaigns.harness.numerics.law import SEEDS, law
from tests.numerics.sounds import (
    NAMES,
    Samples,
    bundled,
    decibels,
    enhanced,
    notes,
    recording,
    relative,
)
from tonewood.dsp.features import mel_to_hz
from tonewood.mask.mask import Mask
from tonewood.mask.render import render_through_mask
from tonewood.settings import RenderSettings, SpectrumSettings

EDGE_S = 1.4  # three steps of a search, each of which reaches as far as the guide's context


def quiet(seed: int, seconds: float, rate: int = 16_000, channels: int = 1) -> Samples:
    """Return notes that stay below the ceiling and above the gate of loudness at every gain of these laws."""
    wave = notes(seed, seconds, rate, channels)
    quiet_wave: Samples = wave * (np.float32(0.016) / np.abs(wave).max())
    return quiet_wave


def factor(gain_db: float) -> np.float32:
    return np.float32(10 ** (gain_db / 20))


@law(
    "Input ±20 dB: output ±20 dB, below the ceiling",
    within=-70,
    unit="dB re the output",
    examples=5,
    most=30,
    seed=SEEDS,
    gain_db=st.floats(-20, 20),
    model=NAMES,
)
def test_gain_staging(seed: int, gain_db: float, model: str) -> float:
    wave = quiet(seed, 0.8)
    louder = enhanced(wave * factor(gain_db), 16_000, model).samples
    return decibels(louder, enhanced(wave, 16_000, model).samples * factor(gain_db))


@law(
    "Input ±20 dB: the same mask, in each cell",
    within=0.1,
    unit="dB",
    examples=5,
    most=30,
    seed=SEEDS,
    gain_db=st.floats(-20, 20),
    model=NAMES,
)
def test_gain_leaves_the_mask(seed: int, gain_db: float, model: str) -> float:
    wave = quiet(seed, 0.8)
    louder = enhanced(wave * factor(gain_db), 16_000, model).mask.gain_db
    return float(np.abs(louder - enhanced(wave, 16_000, model).mask.gain_db).max())


@law(
    "Score of scorer and judge, input ±20 dB",
    within=0.01,
    unit="of 1",
    examples=15,
    seed=SEEDS,
    gain_db=st.floats(-20, 20),
    rate=st.sampled_from([16_000, 44_100]),
    model=NAMES,
)
def test_level_of_a_score(seed: int, gain_db: float, rate: int, model: str) -> float:
    return score_difference(notes(seed, 0.7, rate), factor(gain_db) * notes(seed, 0.7, rate), rate, model)


def score_difference(one: Samples, other: Samples, rate: int, model: str) -> float:
    """Return the larger of the differences of the scorer's and the judge's scores of two recordings."""
    a, b = (tonewood.score(item, rate, bundled(model)) for item in (one, other))
    assert a.judge is not None
    assert b.judge is not None
    return max(abs(a.scorer - b.scorer), abs(a.judge - b.judge))


@law(
    "Score of scorer and judge of the bundled recording, input ±20 dB",
    within=0.01,
    unit="of 1",
    examples=6,
    gain_db=st.floats(-20, 20),
    first=st.floats(0, 8),
    model=NAMES,
)
def test_level_of_a_recordings_score(gain_db: float, first: float, model: str) -> float:
    wave = recording(1.5, first=first)
    return score_difference(wave, factor(gain_db) * wave, 44_100, model)


@law(
    "Amount a: a times the dB of every cell of the mask that is applied",
    within=4e-6,
    unit="dB",
    examples=4,
    most=20,
    seed=SEEDS,
    amount=st.one_of(st.just(0.5), st.floats(0, 1)),
)
def test_amount_of_a_mask(seed: int, amount: float) -> float:
    wave = notes(seed, 0.6)
    whole, part = (enhanced(wave, 16_000, "cello", render=dict(amount=a)) for a in (1.0, amount))
    expected = amount * whole.applied.gain_db.astype(np.float64)
    return float(np.abs(part.applied.gain_db - expected).max())


@law(
    "Amount a of a static mask: a times its dB at the frequency of a sine",
    within=0.02,
    unit="dB",
    examples=15,
    amount=st.floats(0, 1),
    hz=st.floats(150, 7_500),
    slope=st.floats(-12, 12),
    rate=st.sampled_from([16_000, 44_100, 48_000]),
)
def test_amount_of_a_transfer(amount: float, hz: float, slope: float, rate: int) -> float:
    rows = mel_to_hz(np.linspace(60, 2_800, 48))
    gain = np.repeat(slope * np.sin(np.linspace(0, 4, 48))[:, None], 61, axis=1)
    mask = Mask(gain.astype(np.float32), rows, 0.01, 8_000.0)
    wave = np.sin(2 * np.pi * hz * np.arange(round(0.6 * rate)) / rate)[None].astype(np.float32)
    settings = RenderSettings(amount=amount, match=False)
    output = render_through_mask(0.1 * wave, rate, mask, settings, SpectrumSettings()).samples[0]
    inner = slice(rate // 10, -rate // 10)
    change = 20 * np.log10(np.std(output[inner].astype(float)) / np.std(0.1 * wave[0, inner]))
    expected = amount * float(mask.gain_at(np.array([hz]), np.array([0.3]))[0, 0])
    return abs(float(change) - expected)


@law(
    "Channels swapped: output swapped",
    within=1e-6,
    unit="of the largest",
    examples=3,
    most=20,
    seed=SEEDS,
    rate=st.sampled_from([16_000, 44_100]),
    model=NAMES,
)
def test_swapped_channels(seed: int, rate: int, model: str) -> float:
    wave = notes(seed, 0.5, rate, channels=2)
    swapped = enhanced(wave[::-1], rate, model).samples
    return relative(swapped[::-1], enhanced(wave, rate, model).samples)


@law(
    "Three to eight channels in another order: output in that order",
    within=-75,
    unit="dB re the output",
    examples=3,
    most=20,
    seed=SEEDS,
    channels=st.integers(3, 8),
)
def test_channels_in_any_order(seed: int, channels: int) -> float:
    wave = notes(seed, 0.5, channels=channels)
    order = np.random.default_rng(seed).permutation(channels)
    return decibels(enhanced(wave[order], 16_000).samples, enhanced(wave, 16_000).samples[order])


@law(
    "The same in both channels: mono's output in both",
    within=1e-6,
    unit="of the largest",
    examples=3,
    most=20,
    seed=SEEDS,
    rate=st.sampled_from([16_000, 44_100]),
    model=NAMES,
)
def test_mono_in_both_channels(seed: int, rate: int, model: str) -> float:
    wave = quiet(seed, 0.5, rate)
    both = enhanced(np.repeat(wave, 2, axis=0), rate, model).samples
    mono = enhanced(wave, rate, model).samples
    assert np.array_equal(both[0], both[1])
    return relative(both[:1], mono)


@law(
    "Polarity: −x gives −y",
    within=0,
    examples=3,
    most=20,
    seed=SEEDS,
    rate=st.sampled_from([16_000, 44_100]),
    model=NAMES,
)
def test_polarity(seed: int, rate: int, model: str) -> float:
    wave = notes(seed, 0.5, rate, channels=2)
    return relative(-enhanced(-wave, rate, model).samples, enhanced(wave, rate, model).samples)


def placed(seed: int, rate: int, lead: float) -> Samples:
    """Return half a second of notes that fade in and out, after `lead` seconds of silence."""
    wave = notes(seed, 0.5, rate)
    fade = np.minimum(1, np.linspace(0, 20, wave.shape[1]))
    output = np.zeros((1, round((2 * EDGE_S + 1.4) * rate)), np.float32)
    first = round(lead * rate)
    output[:, first : first + wave.shape[1]] = wave * (fade * fade[::-1]).astype(np.float32)
    return output


def shift(seed: int, rate: int, by: float, model: str) -> float:
    """Return the difference between the output of a delayed input and the delayed output, dB."""
    unshifted, shifted = (enhanced(placed(seed, rate, EDGE_S + item), rate, model) for item in (0.0, by))
    return decibels(shifted.samples, np.roll(unshifted.samples, round(by * rate), axis=1))


@law(
    "Moved by multiples of 300 ms, away from the ends: output moved likewise",
    within=-90,
    unit="dB re the output",
    examples=3,
    most=30,
    seed=SEEDS,
    times=st.integers(1, 3),
    rate=st.sampled_from([16_000, 44_100, 48_000]),
    model=NAMES,
)
def test_time_shift(seed: int, times: int, rate: int, model: str) -> float:
    """300 ms are whole hops of 10, long hops of 20, pools of the guide of 30, loudness steps of 100."""
    return shift(seed, rate, 0.3 * times, model)


@law(
    "Moved by multiples of 20 ms: the prior's mask moved likewise, in each cell",
    within=0.0021,
    unit="dB",
    examples=2,
    most=30,
    seed=SEEDS,
    times=st.integers(1, 45),
    model=NAMES,
)
def test_time_shift_of_a_prior(seed: int, times: int, model: str) -> float:
    """The mask is rounded to steps of 0.002 dB."""
    unshifted, shifted = (
        enhanced(placed(seed, 16_000, EDGE_S + item), 16_000, model, search=dict(steps=0)).mask.gain_db
        for item in (0.0, times / 50)
    )
    return float(np.abs(shifted[:, 2 * times :] - unshifted[:, : -2 * times]).max())


@law(
    "Moved by any number of hops of 10 ms, away from the ends: output moved likewise",
    within=-18,
    unit="dB re the output",
    examples=3,
    most=60,
    seed=SEEDS,
    hops=st.integers(1, 90),
    rate=st.sampled_from([16_000, 44_100, 48_000]),
    model=NAMES,
)
def test_time_shift_by_hops(seed: int, hops: int, rate: int, model: str) -> float:
    return shift(seed, rate, hops / 100, model)


@law(
    "Moved by a sample: scores of scorer and judge",
    within=0.1,
    unit="of 1",
    examples=8,
    seed=SEEDS,
    rate=st.sampled_from([16_000, 44_100]),
    model=NAMES,
)
def test_a_sample_later(seed: int, rate: int, model: str) -> float:
    wave = notes(seed, 0.8, rate)
    return score_difference(wave[:, :-1], wave[:, 1:], rate, model)


@law(
    "A sample longer, from 0.25 s on: scores of scorer and judge",
    within=0.1,
    unit="of 1",
    examples=8,
    seed=SEEDS,
    samples=st.integers(4_001, 16_000),
    model=NAMES,
)
def test_a_sample_longer(seed: int, samples: int, model: str) -> float:
    wave = notes(seed, 1.1)[:, :samples]
    return score_difference(wave[:, :-1], wave, 16_000, model)
