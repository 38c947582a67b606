"""Streams: a pure delay without gains, else the same output as for a file."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tonewood
from tonewood.enhancement.streaming import StreamingEnhancer
from tonewood.errors import AudioError, CallError, ModelError, TonewoodError
from tonewood.model.model import Model
from tonewood.priors.predictor import Predictor, predictor_shapes
from tonewood.setting_types import RenderChanges
from tonewood.settings import PredictorSettings, RenderSettings, default_enhance_settings

Samples = NDArray[np.float32]
PLAIN = RenderSettings(match=False)
FORCED = default_enhance_settings("predicted").replace(render=dict(match=False), force=True)


def with_static_mask(model: Model, gain_db: float, lookahead: int = 1) -> Model:
    """Return a model that predicts one gain below 1 kHz and its negative above, at all times."""
    settings = PredictorSettings(width=4, lookahead=lookahead)
    weights = {name: np.zeros(shape, np.float32) for name, shape in predictor_shapes(48, settings).items()}
    weights["static_db"] = np.repeat(np.array([gain_db, -gain_db], dtype=np.float32), [20, 28])
    return replace(model, predictor=Predictor(settings, 10.0, weights))


def stream_whole(stream: StreamingEnhancer, samples: Samples, cuts: Any = ()) -> Samples:
    """Return a stream's output for a recording in blocks, without its delay."""
    output = [stream.process(block) for block in np.split(samples, sorted(cuts), axis=1)]
    return np.concatenate([*output, stream.flush()], axis=1)[:, stream.latency :]


def error_db(output: Samples, expected: Samples) -> float:
    """Return the energy of the difference, dB re that of the expected output."""
    return float(10 * np.log10(np.square(output - expected).mean() / np.square(expected).mean()))


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000, 96_000])
def test_stream_equals_enhanced_file(rate: int, play: Callable[..., Any], predicting: Model) -> None:
    samples = play(2.003, rate, 2, formant_hz=2_500.0, seed=5)
    stream = StreamingEnhancer(predicting, rate, 2, PLAIN)
    output = stream_whole(stream, samples, range(500, samples.shape[1], 700))
    expected = tonewood.enhance(samples, rate, predicting, settings=FORCED).samples
    assert output.shape == expected.shape
    assert error_db(expected, samples) > -20  # the input was changed
    assert error_db(output, expected) < -90
    for end in (slice(rate // 20), slice(-rate // 20, None)):
        assert error_db(output[:, end], expected[:, end]) < -80


@given(cuts=st.lists(st.integers(0, 12_000), max_size=40))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_block_sizes_do_not_change_the_output(
    cuts: list[int], play: Callable[..., Any], predicting: Model
) -> None:
    samples = play(0.75, 16_000, formant_hz=2_500.0, seed=6)
    stream = StreamingEnhancer(predicting, 16_000)
    at_once = stream_whole(stream, samples)
    stream.reset()
    assert np.array_equal(stream_whole(stream, samples, cuts), at_once)


@given(frame=st.integers(0, 7_999), level=st.floats(0.1, 1.0))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_output_does_not_depend_on_later_input(
    frame: int, level: float, play: Callable[..., Any], predicting: Model
) -> None:
    samples = play(0.5, 16_000, formant_hz=2_500.0, seed=7)
    other = samples.copy()
    other[:, frame:] = level * np.random.default_rng(frame).standard_normal(8_000 - frame)
    first, second = (StreamingEnhancer(predicting, 16_000).process(wave) for wave in (samples, other))
    assert np.array_equal(first[:, :frame], second[:, :frame])


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_zero_mask_is_a_delay_of_whole_samples(rate: int, lookahead: int, model: Model) -> None:
    stream = StreamingEnhancer(with_static_mask(model, 0.0, lookahead), rate)
    impulse = np.zeros((1, rate), dtype=np.float32)
    impulse[0, 1_234] = 1.7
    output = stream.process(impulse)
    assert np.flatnonzero(output) == [1_234 + stream.latency]
    assert output.max() == np.float32(1.7)
    frames = 3 + lookahead  # half a window twice, and the lookahead
    assert stream.latency == pytest.approx(frames * 0.01 * rate, abs=2)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 192_000])
def test_latency_is_at_most_40_ms(rate: int, predicting: Model) -> None:
    assert StreamingEnhancer(predicting, rate).latency <= 0.04 * rate


def test_amount_0_returns_the_input_bit_for_bit(play: Callable[..., Any], predicting: Model) -> None:
    samples = play(1, 16_000, 2, formant_hz=2_500.0, seed=8)
    assert np.abs(samples).max() > 10 ** (-20 / 20)  # beyond the ceiling
    stream = StreamingEnhancer(predicting, 16_000, 2, RenderSettings(amount=0, ceiling_dbtp=-20.0))
    assert np.array_equal(stream_whole(stream, samples), samples)


def test_short_and_empty_streams_keep_their_length(predicting: Model) -> None:
    for length in (0, 1, 2, 100, 241, 600):
        stream = StreamingEnhancer(predicting, 16_000)
        wave = (np.sin(np.arange(length))[None] / 2).astype(np.float32)
        output = stream_whole(stream, wave)
        assert output.shape == (1, length)
        assert np.isfinite(output).all()


def high_pass_db(wave: Samples, rate: int, hz: float) -> float:
    """Largest short-time level above a frequency, dB re that of all."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 256)[::32] * np.hanning(256)
    spectra = np.square(np.abs(np.fft.rfft(frames, axis=1)))
    first = round(hz * 256 / rate)
    return float(10 * np.log10(spectra[:, first:].sum(axis=1).max() / spectra.sum(axis=1).max()))


def test_change_of_amount_causes_no_click(model: Model) -> None:
    rate = 16_000
    tone = (0.3 * np.sin(2 * np.pi * 220 * np.arange(rate) / rate)).astype(np.float32)[None]
    stream = StreamingEnhancer(with_static_mask(model, 12.0), rate, settings=PLAIN)
    stream.amount = 0.0
    output = [stream.process(tone[:, :8_040])]
    stream.amount = 1.0
    output.append(stream.process(tone[:, 8_040:]))
    wave = np.concatenate(output, axis=1)[0, 2_000:]
    before, after = (np.abs(part).max() for part in (wave[:4_000], wave[-4_000:]))
    assert after > 2 * before
    switched = np.where(np.arange(len(wave)) < 7_040, before / after, 1.0) * tone[0, 2_000:]
    assert high_pass_db(wave, rate, 2_000) < -60
    assert high_pass_db(switched.astype(np.float32), rate, 2_000) > -45  # a click


def test_level_is_matched_over_time_and_kept_in_pauses(model: Model) -> None:
    rate = 16_000
    tone = (0.02 * np.sin(2 * np.pi * 440 * np.arange(12 * rate) / rate)).astype(np.float32)[None]
    stream = StreamingEnhancer(with_static_mask(model, 12.0), rate)
    output = stream.process(tone)
    rms = [float(np.sqrt(np.square(output[:, k * rate : (k + 1) * rate]).mean())) for k in range(12)]
    input_rms = float(np.sqrt(np.square(tone).mean()))
    assert rms[1] > 1.3 * input_rms  # not followed yet: the model's start value is 0 dB
    assert rms[11] == pytest.approx(input_rms, rel=0.15)
    stream.process(np.zeros((1, 5 * rate), dtype=np.float32))
    again = stream.process(tone[:, :rate])[:, rate // 2 :]
    assert float(np.sqrt(np.square(again).mean())) == pytest.approx(rms[11], rel=0.1)


def test_learnt_loudness_is_compensated_from_the_first_note(model: Model) -> None:
    known = with_static_mask(model, 12.0)
    assert known.predictor is not None
    known.predictor.weights["loudness_db"] = np.array([6.0, 12.0], dtype=np.float32)
    tone = (0.1 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 16_000)).astype(np.float32)[None]
    output = StreamingEnhancer(known, 16_000).process(tone)[:, 4_000:]
    assert np.abs(output).max() == pytest.approx(0.1, rel=0.05)


def test_output_stays_under_the_ceiling(model: Model) -> None:
    rng = np.random.default_rng(9)
    loud = (0.3 * rng.standard_normal((2, 32_000))).clip(-0.8, 0.8).astype(np.float32)
    output = StreamingEnhancer(with_static_mask(model, 20.0), 16_000, 2).process(loud)
    limit = 10 ** (-1 / 20)
    assert limit * 0.99 < np.abs(output).max() <= limit * (1 + 1e-6)


def test_reset_forgets_input_but_keeps_the_amount(play: Callable[..., Any], predicting: Model) -> None:
    samples = play(1, 16_000, formant_hz=2_500.0, seed=3)
    stream = StreamingEnhancer(predicting, 16_000)
    stream.amount = 0.5
    first = stream_whole(stream, samples)
    stream.reset()
    assert stream.amount == 0.5
    assert np.array_equal(stream_whole(stream, samples), first)


def test_silence_stays_silence(predicting: Model) -> None:
    output = stream_whole(StreamingEnhancer(predicting, 16_000, 2), np.zeros((2, 20_000), dtype=np.float32))
    assert not output.any()


def test_invalid_block_is_refused_and_the_stream_continues(
    play: Callable[..., Any], predicting: Model
) -> None:
    samples = play(1, 16_000, formant_hz=2_500.0, seed=3)
    bad = samples[:, :100].copy()
    bad[0, 50] = np.nan
    stream = StreamingEnhancer(predicting, 16_000)
    output = [stream.process(samples[:, :777])]
    with pytest.raises(AudioError, match="the block has NaN or infinite values: repair it"):
        stream.push(bad)
    bad[0, 50] = 1e20
    with pytest.raises(AudioError, match=r"samples of 1e\+20; full scale is 1 and the limit 1000"):
        stream.push(bad)
    output += [stream.process(samples[:, 777:]), stream.flush()]
    other = StreamingEnhancer(predicting, 16_000)
    assert np.array_equal(
        np.concatenate(output, axis=1),
        np.concatenate([other.process(samples), other.flush()], axis=1),
    )


def test_pull_returns_at_most_what_is_available(predicting: Model) -> None:
    stream = StreamingEnhancer(predicting, 16_000)
    stream.push(np.zeros((1, 500), dtype=np.float32))
    assert stream.pull(200).shape == (1, 200)
    with pytest.raises(CallError, match="count is 301; 300 samples are available: push more"):
        stream.pull(301)
    assert stream.pull().shape == (1, 300)
    assert stream.flush().shape == (1, stream.latency)
    assert stream.flush().shape == (1, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8_000, 1), r"the stream's rate is 8000 Hz; it goes from 16000 to 768000 Hz"),
        ((48_000, 0), r"the stream has 0 channels; 1 to 8 are possible"),
        ((48_000, 9), r"the stream has 9 channels"),
    ],
)
def test_invalid_rate_or_channels_are_refused(
    arguments: tuple[int, int], message: str, predicting: Model
) -> None:
    with pytest.raises(CallError, match=message):
        StreamingEnhancer(predicting, *arguments)


def test_settings_that_a_stream_would_ignore_are_refused(predicting: Model) -> None:
    changes: tuple[RenderChanges, ...] = (
        {"aspect": {"only": "tilt"}}, {"aspect": {"start_s": 2}}, {"gain_db": 3},
    )  # fmt: skip
    for change in changes:
        with pytest.raises(CallError, match="do not apply to a stream"):
            StreamingEnhancer(predicting, 48_000, 1, RenderSettings().replace(**change))


def test_wrong_calls_are_refused(predicting: Model, model: Model) -> None:
    stream = StreamingEnhancer(predicting, 16_000, 2)
    uses: list[tuple[type[TonewoodError], str, Callable[[], object]]] = [
        (
            CallError,
            r"the block has shape \(1, 5\); this stream needs \(2, samples\)",
            lambda: stream.push(np.zeros((1, 5), dtype=np.float32)),
        ),
        (
            CallError,
            r"the block has shape \(5,\)",
            lambda: stream.push(np.zeros(5, dtype=np.float32)),
        ),
        (
            CallError,
            r"amount is 2\.5: input should be less",
            lambda: setattr(stream, "amount", 2.5),
        ),
        (ModelError, "has no predictor", lambda: StreamingEnhancer(model, 16_000)),
        (
            CallError,
            "smooth_seconds needs later audio",
            lambda: StreamingEnhancer(
                predicting, 16_000, settings=PLAIN.replace(shape={"smooth_seconds": 1})
            ),
        ),
    ]
    for kind, message, use in uses:
        with pytest.raises(kind, match=message):
            use()
    stream.flush()
    with pytest.raises(CallError, match="the stream was flushed: call reset"):
        stream.push(np.zeros((2, 5), dtype=np.float32))


@pytest.mark.parametrize("amount", [-1.0, 0.5, 2.0])
def test_shaped_stream_equals_enhanced_file(
    amount: float, play: Callable[..., Any], predicting: Model
) -> None:
    samples = play(1.003, 16_000, formant_hz=2_500.0, seed=5)
    changes: RenderChanges = {
        "amount": amount,
        "shape": {"smooth_octaves": 0.5, "low_hz": 300.0, "direction": "cut"},
    }
    output = stream_whole(StreamingEnhancer(predicting, 16_000, 1, PLAIN.replace(**changes)), samples)
    expected = tonewood.enhance(samples, 16_000, predicting, settings=FORCED.replace(render=changes)).samples
    assert error_db(expected, samples) > -30
    assert error_db(output, expected) < -90


def test_delta_and_input_add_up_to_the_output(play: Callable[..., Any], predicting: Model) -> None:
    samples = play(1.0, 16_000, formant_hz=2_500.0, seed=5)
    streams = [StreamingEnhancer(predicting, 16_000) for _ in range(2)]
    streams[1].plays_delta = True
    output, delta = (stream_whole(stream, samples) for stream in streams)
    assert np.abs(delta).max() > 0.01
    assert np.allclose(samples + delta, output, atol=1e-6)


def test_frozen_stream_holds_its_mask(play: Callable[..., Any], predicting: Model) -> None:
    stream = StreamingEnhancer(predicting, 16_000, settings=PLAIN)
    first, second = play(0.5, 16_000, seed=5), play(0.5, 16_000, formant_hz=2_500.0, seed=6)
    stream.push(first)
    stream.frozen = True
    held = stream._mask.copy()
    stream.push(second)
    assert np.array_equal(stream._mask, held)
    stream.frozen = False
    stream.push(second)
    assert not np.array_equal(stream._mask, held)


def test_public_stream_accepts_a_model_path(predicting_file: Any) -> None:
    assert tonewood.Stream(predicting_file, 48_000, 2).latency == 1_919
