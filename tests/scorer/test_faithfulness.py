"""Deletion and insertion curves of functions with known answers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tonewood.scorer.saliency import DeletionBlock, Faithfulness, measure_faithfulness
from tonewood.utils.arrays import FloatArray, RandomDraws

BLOCK = DeletionBlock(2, 3)


def corner(clips: FloatArray) -> FloatArray:
    """Return the sum of one corner of 4 rows and 6 frames: four blocks of sixteen."""
    total: FloatArray = clips[:, :4, :6].sum(axis=(1, 2))
    return total


def measure(saliency: FloatArray, draws: int = 40) -> Faithfulness:
    clips = np.ones((2, 8, 12))
    return measure_faithfulness(
        corner,
        clips,
        np.zeros_like(clips),
        np.broadcast_to(saliency, (2, 8, 12)),
        RandomDraws(0),
        block=BLOCK,
        steps=16,
        draws=draws,
    )


def test_true_map_deletes_and_inserts_at_once() -> None:
    true_map = np.zeros((8, 12))
    true_map[:4, :6] = 1
    result = measure(true_map)
    # 24 cells in four of sixteen steps, then nothing: the area is that of a triangle.
    assert result.deletion.tolist() == [24, 18, 12, 6, *[0] * 13]
    assert result.insertion.tolist() == [0, 6, 12, 18, *[24] * 13]
    assert result.deletion_area == pytest.approx(0.25 * 24 / 2)
    assert result.insertion_area == pytest.approx(24 - 0.25 * 24 / 2)
    assert result.fraction_beaten == (1, 1)
    assert result.is_faithful
    assert "better than random" in result.line


def test_random_orders_average_to_the_diagonal() -> None:
    result = measure(np.zeros((8, 12)), draws=400)
    assert result.random_areas == pytest.approx((12, 12), rel=0.05)
    ends = result.random_deletion[:, [0, -1]]
    assert (ends == np.array([24.0, 0.0])).all()


def test_unfaithful_map_is_reported_in_words() -> None:
    wrong_map = np.ones((8, 12))
    wrong_map[:4, :6] = -1
    result = measure(wrong_map)
    assert not result.is_faithful
    assert result.fraction_beaten == (0, 0)
    assert "no better than random" in result.line


def test_random_map_is_not_faithful() -> None:
    generator = torch.Generator().manual_seed(3)
    maps = [torch.randn(2, 8, 12, generator=generator).numpy() for _ in range(60)]
    faithful = [measure(random_map).is_faithful for random_map in maps]
    assert sum(faithful) <= 8  # one in twenty, by chance


def test_generator_determines_the_random_orders() -> None:
    first, second = (measure(np.zeros((8, 12))).random_deletion for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize(("beaten", "holds"), [(18, False), (19, False), (20, True)])
def test_better_than_19_of_20_orders_may_be_chance(beaten: int, holds: bool) -> None:
    """A random map is better than all of 20 others with a probability of 1 / 21."""
    curve, share = np.array([1.0, 0.5]), np.array([0.0, 1.0])
    deletion = np.stack([curve + 1] * beaten + [curve - 1] * (20 - beaten))
    insertion = np.stack([curve - 1] * 20)
    result = Faithfulness(share, curve, curve, deletion, insertion)
    assert result.fraction_beaten == (beaten / 20, 1)
    assert result.is_faithful == holds


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(1, 400))
def test_random_orders_are_those_of_torch(seed: int, count: int) -> None:
    """Earlier versions drew them with torch."""
    draws, generator = RandomDraws(seed), torch.Generator().manual_seed(seed)
    for _ in range(2):
        expected = torch.randperm(count, generator=generator).numpy()
        np.testing.assert_array_equal(draws.permutation(count), expected)


def test_blocks_at_the_edge_are_smaller() -> None:
    clips = np.ones((1, 5, 7))
    result = measure_faithfulness(
        lambda x: x.sum(axis=(1, 2)), clips, np.zeros_like(clips), np.ones_like(clips),
        RandomDraws(0), block=BLOCK, steps=9, draws=2,
    )  # fmt: skip
    assert result.deletion[0] == result.insertion[-1] == 35
    assert result.deletion[-1] == result.insertion[0] == 0
    np.testing.assert_allclose(result.deletion + result.insertion, 35)
