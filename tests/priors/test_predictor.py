"""The predictor: causal, independent of chunk borders, and distilled from masks."""

from itertools import pairwise
from typing import Unpack

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tonewood.dsp.features import frame_levels
from tonewood.priors.network_training import (
    DistillationExample,
    draw_initial_weights,
    prediction_error_db,
    train_predictor,
)
from tonewood.priors.predictor import Predictor, StreamState, predictor_shapes
from tonewood.setting_types import PredictorChanges
from tonewood.settings import PredictorSettings
from tonewood.utils.arrays import Levels

ROWS, FRAMES = 12, 150
ROW_HZ = np.geomspace(100, 6_000, ROWS)
SMALL = PredictorSettings(width=8, kernel=3, depth=3, lookahead=2)


def random_predictor(settings: PredictorSettings = SMALL, seed: int = 0) -> Predictor:
    """Return a predictor with random weights, whose output is not zero."""
    generator = torch.Generator().manual_seed(seed)
    predictor = untrained_predictor(settings, generator)
    shape = predictor.weights["last.weight"].shape
    predictor.weights["last.weight"] = torch.randn(shape, generator=generator).numpy()
    return predictor


def untrained_predictor(settings: PredictorSettings, generator: torch.Generator) -> Predictor:
    """Return a predictor with the weights from which the training starts."""
    weights = draw_initial_weights(predictor_shapes(ROWS, settings), generator)
    return Predictor(settings, 10.0, weights).as_arrays()


def masked(predictor: Predictor, rows_db: Levels) -> Levels:
    return predictor.predict(rows_db).mask_db


def rows(frames: int = FRAMES, seed: int = 1, level_db: float = -40.0) -> Levels:
    generator = torch.Generator().manual_seed(seed)
    return (level_db + 10 * torch.randn(ROWS, frames, generator=generator)).numpy()


def test_untrained_predictor_gives_static_mask() -> None:
    predictor = untrained_predictor(SMALL, torch.Generator())
    predictor.weights["static_db"] = np.arange(ROWS, dtype=np.float32)
    expected = np.repeat(np.arange(ROWS)[:, None], FRAMES, axis=1)
    assert np.array_equal(masked(predictor, rows()), expected)


@given(frame=st.integers(0, FRAMES - 1), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_prediction_ignores_frames_beyond_lookahead(frame: int, seed: int) -> None:
    predictor, levels_db = random_predictor(), rows()
    other = np.concatenate([levels_db[:, : frame + 1], rows(seed=seed + 2)[:, frame + 1 :]], axis=1)
    last = frame - SMALL.lookahead + 1
    mine, theirs = masked(predictor, levels_db), masked(predictor, other)
    assert np.array_equal(mine[:, : max(0, last)], theirs[:, : max(0, last)])


def test_prediction_uses_its_lookahead() -> None:
    predictor, levels_db = random_predictor(), rows()
    other = levels_db.copy()
    other[:, 100] += 6
    changed = np.abs(masked(predictor, levels_db) - masked(predictor, other)).max(axis=0) > 1e-3
    assert int(np.flatnonzero(changed)[0]) == 100 - SMALL.lookahead


@given(cuts=st.lists(st.integers(1, FRAMES - 1), unique=True, max_size=6))
@settings(max_examples=20, deadline=None)
def test_prediction_is_the_same_for_any_split(cuts: list[int]) -> None:
    predictor, levels_db = random_predictor(), rows()
    memory, pieces = predictor.initial_state(), []
    borders = [0, *sorted(cuts), FRAMES]
    for begin, end in pairwise(borders):
        mask, memory = predictor(levels_db[None, :, begin:end], memory)
        pieces.append(mask.mask_db[0])
    together, _ = predictor(levels_db[None], predictor.initial_state())
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), together.mask_db[0], atol=1e-4, rtol=1e-4)


def test_long_recordings_are_predicted_in_seamless_chunks() -> None:
    predictor, levels_db = random_predictor(), rows(5_000)
    together, _ = predictor(levels_db[None], predictor.initial_state())
    np.testing.assert_allclose(
        masked(predictor, levels_db)[:, : -SMALL.lookahead],
        together.mask_db[0][:, SMALL.lookahead :],
        atol=1e-3,
        rtol=1e-4,
    )


@pytest.mark.parametrize("size", [1, 2, 3, 149, 150, 999])
def test_chunks_of_any_size_give_the_same_prediction(size: int) -> None:
    predictor, levels_db = random_predictor(), rows()
    results = list(predictor.predict_chunks(levels_db[:, k : k + size] for k in range(0, FRAMES, size)))
    for part, whole in zip(zip(*results, strict=True), predictor.predict(levels_db), strict=True):
        np.testing.assert_allclose(np.concatenate(part, axis=1), whole, atol=1e-4, rtol=1e-4)
    assert list(predictor.predict_chunks([])) == []


def test_prediction_is_independent_of_level() -> None:
    predictor, levels_db = random_predictor(), rows()
    np.testing.assert_allclose(
        masked(predictor, levels_db), masked(predictor, levels_db - 30), atol=1e-3, rtol=0
    )


def test_running_level_equals_explicit_leaky_mean() -> None:
    predictor, levels_db = random_predictor(), rows(60)
    relative, _ = predictor.relative_levels(levels_db[None], predictor.initial_state().sums)
    power = [10 ** (x / 10) for x in frame_levels(levels_db.astype(np.float64)).tolist()]
    for now in (0, 1, 30, 59):
        leak = [np.exp((past - now) * 0.01 / SMALL.level_seconds) for past in range(now + 1)]
        above = sum(w * p * p for w, p in zip(leak, power, strict=False))
        below = sum(w * p for w, p in zip(leak, power, strict=False))
        level = 10 * np.log10(above / below)
        assert float(levels_db[0, now] - relative[0, 0, now]) == pytest.approx(level, abs=1e-3)


def test_pause_gets_static_mask_and_keeps_the_level() -> None:
    predictor = random_predictor()
    predictor.weights["static_db"] = np.full(ROWS, 2, np.float32)
    music, pause = rows(100), rows(200, level_db=-110.0)
    mask = masked(predictor, np.concatenate([music, pause, music], axis=1))
    assert (mask[:, 110:290] == 2).all()
    relative, sums = predictor.relative_levels(
        np.concatenate([music, pause], axis=1)[None], predictor.initial_state().sums
    )
    again, _ = predictor.relative_levels(music[None], sums)
    assert float((relative[0, :, 99] - music[:, 99]).mean()) == pytest.approx(
        float((again[0, :, 0] - music[:, 0]).mean()), abs=0.5
    )


def test_batch_equals_singles() -> None:
    predictor = random_predictor()
    takes = np.stack([rows(seed=seed) for seed in range(3)])
    together, _ = predictor(takes, StreamState(np.zeros((3, 2)), predictor.initial_past(3)))
    for one, take in zip(together.mask_db, takes, strict=True):
        alone, _ = predictor(take[None], predictor.initial_state())
        np.testing.assert_allclose(one, alone.mask_db[0], atol=1e-4, rtol=1e-4)


def test_predictor_survives_storage() -> None:
    predictor = random_predictor()
    back = Predictor.from_tensors(predictor.tensors(), SMALL, 10.0)
    np.testing.assert_allclose(masked(back, rows()), masked(predictor, rows()), atol=0.1, rtol=1e-2)
    assert all(np.array_equal(v, predictor.tensors()[k]) for k, v in back.tensors().items())


# --- Distillation


def examples(count: int, seed: int, lookahead: int = 0) -> list[DistillationExample]:
    """Return takes whose mask is minus half of each row's level, some frames ahead."""
    results = []
    for take in range(count):
        levels_db = rows(FRAMES, seed=seed + take)
        rule = -(levels_db + 40) / 2
        results.append(DistillationExample(levels_db, np.roll(rule, -lookahead, axis=1), levels_db + 40))
    return results


def train(takes: list[DistillationExample], **changes: Unpack[PredictorChanges]) -> Predictor:
    training_settings = PredictorSettings(width=32, kernel=2, depth=2, steps=150, dropout=0.0, level_db=0.0)
    generator = torch.Generator().manual_seed(3)
    return train_predictor(
        takes, np.zeros(ROWS, np.float32), None, ROW_HZ, training_settings.replace(**changes), 10.0, generator
    )


def test_predictor_learns_a_common_rule() -> None:
    predictor = train(examples(6, 20))
    held_out = examples(2, 90)
    assert prediction_error_db(predictor, held_out) < 0.5 * prediction_error_db(
        untrained_predictor(predictor.settings, torch.Generator()), held_out
    )


def test_lookahead_is_needed_for_masks_that_depend_on_the_next_frame() -> None:
    takes, held_out = examples(6, 20, lookahead=1), examples(2, 90, lookahead=1)
    ahead, blind = (train(takes, lookahead=n) for n in (1, 0))
    assert prediction_error_db(ahead, held_out) < 0.7 * prediction_error_db(blind, held_out)


def test_inaudible_frames_do_not_affect_distillation() -> None:
    [take] = examples(1, 20)
    levels_db = take.rows_db.copy()
    levels_db[:, 1:] -= 80
    alone = train([DistillationExample(levels_db, take.mask_db, take.departure_db)], steps=20)
    other = train(
        [
            DistillationExample(
                levels_db,
                np.concatenate([take.mask_db[:, :1], 9 + 0 * take.mask_db[:, 1:]], axis=1),
                take.departure_db,
            )
        ],
        steps=20,
    )
    assert all(np.array_equal(alone.weights[k], v) for k, v in other.weights.items())


def test_guide_affects_distillation() -> None:
    takes = examples(3, 20)

    def high_is_odd(rows_db: Tensor) -> Tensor:
        return rows_db[:, ROWS // 2 :].clamp_min(-60).sum(dim=(1, 2))

    generator = torch.Generator().manual_seed(3)
    training_settings = PredictorSettings(width=16, kernel=2, depth=2, steps=60, guide=3.0)
    guided = train_predictor(
        takes, np.zeros(ROWS, np.float32), high_is_odd, ROW_HZ, training_settings, 10.0, generator
    )
    unguided = train(takes, width=16, steps=60)
    high = slice(ROWS // 2, None)
    assert masked(guided, takes[0].rows_db)[high].mean() < masked(unguided, takes[0].rows_db)[high].mean() - 1


def test_same_seed_gives_same_predictor_and_keeps_global_random_state() -> None:
    state = torch.random.get_rng_state()
    one, two = (train(examples(2, 4), steps=20, dropout=0.1, level_db=2.0) for _ in range(2))
    assert all(np.array_equal(v, two.weights[k]) for k, v in one.weights.items())
    assert torch.equal(state, torch.random.get_rng_state())
