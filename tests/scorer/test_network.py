import numpy as np
import pytest
import soxr
import torch
from torch import Tensor

from tonewood.dsp.features import band_levels, center_frequencies
from tonewood.dsp.stft import log_magnitude, stft
from tonewood.scorer.network import Scorer
from tonewood.scorer.training_loop import initial_scorer
from tonewood.settings import BandSettings, ScorerSettings, SpectrumSettings

PAPER = SpectrumSettings()
MEL = ScorerSettings(width=4)
LINEAR = ScorerSettings(width=4, bands=BandSettings(scale="linear"))


def varied_scorer(settings: ScorerSettings = MEL, seed: int = 0) -> Scorer:
    """Return an untrained scorer of tensors whose logits of `tones` have mean 0 and deviation 1."""
    scorer = initial_scorer(settings, PAPER, torch.Generator().manual_seed(seed)).as_tensors()
    scorer.weights["linear.weight"] /= scorer.logit(rows_of(tones(), settings)).std()
    scorer.weights["linear.bias"] -= scorer.logit(rows_of(tones(), settings)).mean()
    return scorer


def in_double(scorer: Scorer) -> Scorer:
    weights = {name: value.double() for name, value in scorer.weights.items()}
    return Scorer(scorer.settings, scorer.spectrum, weights)


def tones(count: int = 4, seconds: float = 1.0, rate: int = 16_000) -> Tensor:
    """Return noisy notes with partials and a crescendo [clip, sample]."""
    rng = np.random.default_rng(7)
    time = np.arange(round(seconds * 16_000)) / 16_000
    clips = []
    for fundamental in (110, 196, 294, 440)[:count]:
        wave = sum(
            rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * fundamental * k * time + k) for k in range(1, 12)
        )
        swell = np.sin(np.pi * (time + 0.1) / (seconds + 0.2)) ** 2
        clips.append(0.05 * wave * swell + 2e-3 * rng.standard_normal(time.size))
    if rate != 16_000:
        clips = [soxr.resample(clip, 16_000, rate, "VHQ") for clip in clips]
    return torch.from_numpy(np.stack(clips).astype(np.float32))


def rows_of(waves: Tensor, settings: ScorerSettings = MEL) -> Tensor:
    return band_levels(waves, 16_000, settings.bands, PAPER)


def test_score_is_the_sigmoid_of_the_logit_of_the_rows() -> None:
    scorer, waves = varied_scorer(), tones()
    magnitude = log_magnitude(stft(waves, PAPER), PAPER)
    score = scorer(magnitude)
    assert score.shape == (4,)
    assert ((score > 0) & (score < 1)).all()
    assert score.std() > 0.1
    assert torch.allclose(score, torch.sigmoid(scorer.logit(scorer.rows(magnitude))))
    assert torch.allclose(score, scorer.score(rows_of(waves)), atol=1e-6)


@pytest.mark.parametrize("settings", [MEL, LINEAR])
@pytest.mark.parametrize("gain_db", [-20, -6, 6, 20])
def test_score_is_independent_of_level(settings: ScorerSettings, gain_db: float) -> None:
    scorer, waves = varied_scorer(settings), tones()
    before = scorer.score(rows_of(waves, settings))
    after = scorer.score(rows_of(waves * 10 ** (gain_db / 20), settings))
    assert (before - after).abs().max() <= 0.01


def test_level_follows_the_gain_of_each_clip() -> None:
    scorer, rows = varied_scorer(), rows_of(tones())
    gains = torch.tensor([-12.0, 0.0, 3.0, 20.0])[:, None, None]
    assert torch.allclose(scorer.level(rows + gains), scorer.level(rows) + gains, atol=1e-4)


def test_level_equals_explicit_mean_power() -> None:
    scorer, rows = varied_scorer(), rows_of(tones(1))
    hz = center_frequencies(MEL.bands, PAPER)
    power = 10 ** (rows[0].double().numpy() / 10) * (hz**2 / (hz**2 + 60**2))[:, None]
    slow = 10 * np.log10(power.sum(axis=0).mean())
    assert scorer.level(rows).shape == (1, 1, 1)
    assert scorer.level(rows).item() == pytest.approx(slow, abs=1e-3)


def test_rumble_does_not_affect_the_level() -> None:
    scorer, rows = varied_scorer(), torch.full((1, 48, 50), -60.0)
    rows[:, 20] = -20
    rumbling = rows.clone()
    rumbling[:, 0] = -25  # about 62 Hz: half of it counts
    assert scorer.level(rumbling).item() - scorer.level(rows).item() < 1


def test_levels_below_the_range_do_not_affect_the_score() -> None:
    scorer, rows = varied_scorer(), rows_of(tones(1))
    quiet = rows.clone()
    quiet[:, 40:] = scorer.level(rows).item() - MEL.range_db - 5
    quieter = quiet.clone()
    quieter[:, 40:] -= 30
    assert not torch.allclose(scorer.score(rows), scorer.score(quiet), atol=1e-6)
    assert torch.allclose(scorer.score(quiet), scorer.score(quieter), atol=1e-6)


@pytest.mark.parametrize("settings", [MEL, LINEAR])
def test_batch_equals_singles(settings: ScorerSettings) -> None:
    """A silent and a loud neighbour in the batch have no influence."""
    scorer = varied_scorer(settings)
    waves = tones()
    waves[1] *= 1e-3
    waves[2] = 0
    rows = rows_of(waves, settings)
    together = scorer.score(rows)
    alone = torch.cat([scorer.score(row[None]) for row in rows])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("settings", [MEL, LINEAR, ScorerSettings(depth=6, width=2)])
@pytest.mark.parametrize("seconds", [0.25, 0.26, 0.777, 3.0, 11.0])
def test_any_length_from_a_quarter_second_is_scored(settings: ScorerSettings, seconds: float) -> None:
    scorer = varied_scorer(settings)
    score = scorer.score(rows_of(tones(2, seconds), settings))
    assert score.shape == (2,)
    assert score.isfinite().all()


def test_stationary_sound_scores_the_same_at_any_length() -> None:
    """Pooling is a mean, and edges repeat."""
    rows = rows_of(tones(1))[:, :, 50:51]
    scorer = varied_scorer()
    scores = [scorer.score(rows.expand(-1, -1, n)).item() for n in (26, 101, 300)]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-4)


@pytest.mark.parametrize("settings", [MEL, LINEAR, ScorerSettings(depth=1), ScorerSettings(depth=5)])
def test_class_activation_map_is_the_logit(settings: ScorerSettings) -> None:
    scorer = in_double(varied_scorer(settings))
    rows = rows_of(tones(2), settings).double()
    features = scorer.activations(rows)
    weighted = torch.einsum("c,bcrf->brf", scorer.weights["linear.weight"][0], features)
    logit = weighted.mean(dim=(1, 2)) + scorer.weights["linear.bias"]
    assert torch.allclose(logit, scorer.logit(rows), atol=1e-6, rtol=0)


@pytest.mark.parametrize("settings", [MEL, LINEAR])
@pytest.mark.parametrize("level_db", [-120.0, -60.0, 0.0, 20.0])
def test_gradients_reach_the_rows(settings: ScorerSettings, level_db: float) -> None:
    """Silence (all rows at the floor) and full scale included: a search may start there."""
    count = 48 if settings is MEL else 257
    noise = torch.randn(2, count, 60, generator=torch.Generator().manual_seed(0))
    rows = (level_db + (0.0 if level_db == -120 else 3.0) * noise).requires_grad_()
    scorer = initial_scorer(settings, PAPER, torch.Generator()).as_tensors()
    scorer.score(rows).sum().backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    assert rows.grad.isfinite().all()
    assert (rows.grad.abs().amax(dim=(1, 2)) > 0).all()


def test_generator_determines_the_weights() -> None:
    states = [varied_scorer(seed=s).weights for s in (3, 3, 4)]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert not torch.equal(states[0]["linear.weight"], states[2]["linear.weight"])
    assert not torch.equal(states[0]["convolutions.0.weight"], states[2]["convolutions.0.weight"])


def test_construction_keeps_global_random_state() -> None:
    before = torch.get_rng_state()
    varied_scorer()
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_needs_a_generator() -> None:
    scorer, rows = varied_scorer(), rows_of(tones())
    assert torch.equal(scorer.logit(rows), scorer.logit(rows))

    def dropped(seed: int, one: Scorer = scorer) -> Tensor:
        return one.logit(rows, torch.Generator().manual_seed(seed))

    assert not torch.allclose(dropped(0), scorer.logit(rows))
    assert torch.equal(dropped(0), dropped(0))
    assert not torch.equal(dropped(0), dropped(1))
    without = varied_scorer(MEL.replace(dropout=0.0))
    assert torch.equal(dropped(0, without), without.logit(rows))


def test_dropout_keeps_the_mean() -> None:
    scorer, generator = varied_scorer(), torch.Generator().manual_seed(0)
    rows = rows_of(tones(1))[:, :, :30]
    dropped_out = scorer.logit(rows.expand(4_000, -1, -1)[:, :, ::4], generator)
    complete = scorer.logit(rows[:, :, ::4])
    error = dropped_out.std() / 4_000**0.5
    assert (dropped_out.mean() - complete).abs() < 4 * error


@pytest.mark.parametrize("settings", [MEL, LINEAR, ScorerSettings()])
def test_parameter_count_is_correct_and_small(settings: ScorerSettings) -> None:
    scorer = initial_scorer(settings, PAPER, torch.Generator())
    width, total, inputs = settings.width, 0, 1
    for layer in range(settings.depth):
        outputs = width if layer == 0 else 2 * width
        total += outputs * (inputs * (25 if layer == 0 else 9) + 1)
        inputs = outputs
    assert scorer.parameter_count == total + inputs + 1
    assert scorer.parameter_count <= 100_000


def test_crop_length_follows_the_settings() -> None:
    assert varied_scorer().crop_frames == 300
    assert varied_scorer(MEL.replace(crop_seconds=0.5)).crop_frames == 50


def test_statistics_are_weights_that_training_keeps() -> None:
    scorer = varied_scorer()
    assert {"row_mean", "loud_row"} <= set(scorer.weights)
    assert not any(weight is scorer.weights["row_mean"] for weight in scorer.trained_weights())


# --- Arrays


@pytest.mark.parametrize("settings", [MEL, LINEAR, ScorerSettings(depth=1), ScorerSettings(depth=5)])
@pytest.mark.parametrize("seconds", [0.25, 0.777, 3.0])
def test_arrays_and_tensors_score_alike(settings: ScorerSettings, seconds: float) -> None:
    scorer = varied_scorer(settings)
    magnitude = log_magnitude(stft(tones(4, seconds), PAPER), PAPER)
    scores = scorer.as_arrays()(magnitude.numpy())
    assert isinstance(scores, np.ndarray)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, scorer(magnitude).numpy(), atol=1e-5)


def test_arrays_stay_in_double_precision() -> None:
    scorer, rows = in_double(varied_scorer()), rows_of(tones()).double()
    logits = scorer.as_arrays().logit(rows.numpy())
    assert logits.dtype == np.float64
    np.testing.assert_allclose(logits, scorer.logit(rows).numpy(), rtol=0, atol=1e-12)


def test_copies_of_a_scorer_do_not_share_weights() -> None:
    arrays = initial_scorer(MEL, PAPER, torch.Generator())
    before = arrays.weights["linear.weight"].copy()
    tensors = arrays.as_tensors()
    tensors.weights["linear.weight"] += 1
    np.testing.assert_array_equal(arrays.weights["linear.weight"], before)


def test_weights_of_another_shape_or_name_are_rejected() -> None:
    weights = initial_scorer(MEL, PAPER, torch.Generator()).weights
    with pytest.raises(
        ValueError, match=r"convolutions.0.weight has shape \(4, 1, 5, 5\), not \(5, 1, 5, 5\)"
    ):
        Scorer(MEL.replace(width=5), PAPER, weights)
    with pytest.raises(KeyError, match=r"convolutions\.3\.weight"):
        Scorer(MEL.replace(depth=4), PAPER, weights)
    with pytest.raises(KeyError, match=r"convolutions\.2\.bias"):
        Scorer(MEL.replace(depth=2), PAPER, weights | {"linear.weight": weights["linear.weight"]})
