"""Deletion and insertion curves of functions with known answers."""

import pytest
import torch
from torch import Tensor

from tonewood.scorer.saliency import DeletionBlock, Faithfulness, measure_faithfulness

BLOCK = DeletionBlock(2, 3)


def corner(clips: Tensor) -> Tensor:
    """Return the mean of one corner of 4 rows and 6 frames: four blocks of sixteen."""
    return clips[:, :4, :6].sum(dim=(1, 2))


def measure(saliency: Tensor, draws: int = 40) -> Faithfulness:
    clips = torch.ones(2, 8, 12)
    return measure_faithfulness(
        corner,
        clips,
        torch.zeros_like(clips),
        saliency.expand(2, 8, 12),
        torch.Generator().manual_seed(0),
        block=BLOCK,
        steps=16,
        draws=draws,
    )


def test_true_map_deletes_and_inserts_at_once() -> None:
    true_map = torch.zeros(8, 12)
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
    result = measure(torch.zeros(8, 12), draws=400)
    assert result.random_areas == pytest.approx((12, 12), rel=0.05)
    ends = result.random_deletion[:, [0, -1]]
    assert (ends == torch.tensor([24.0, 0.0])).all()


def test_unfaithful_map_is_reported_in_words() -> None:
    wrong_map = torch.ones(8, 12)
    wrong_map[:4, :6] = -1
    result = measure(wrong_map)
    assert not result.is_faithful
    assert result.fraction_beaten == (0, 0)
    assert "no better than random" in result.line


def test_random_map_is_not_faithful() -> None:
    generator = torch.Generator().manual_seed(3)
    faithful = [measure(torch.randn(2, 8, 12, generator=generator)).is_faithful for _ in range(60)]
    assert sum(faithful) <= 8  # one in twenty, by chance


def test_generator_determines_the_random_orders() -> None:
    first, second = (measure(torch.zeros(8, 12)).random_deletion for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_blocks_at_the_edge_are_smaller() -> None:
    clips = torch.ones(1, 5, 7)
    result = measure_faithfulness(
        lambda it: it.sum(dim=(1, 2)), clips, torch.zeros_like(clips), torch.ones_like(clips),
        torch.Generator(), block=BLOCK, steps=9, draws=2,
    )  # fmt: skip
    assert result.deletion[0] == result.insertion[-1] == 35
    assert result.deletion[-1] == result.insertion[0] == 0
    torch.testing.assert_close(result.deletion + result.insertion, torch.full((10,), 35.0).double())
