"""Deletion and insertion curves of functions with known answers."""

import pytest
import torch
from torch import Tensor

from tonewood.scorer.saliency import DeletionBlock, Faithfulness, measure_faithfulness

BLOCK = DeletionBlock(2, 3)


def corner(clips: Tensor) -> Tensor:
    """Return the mean of one corner of 4 rows and 6 frames: four blocks of sixteen."""
    return clips[:, :4, :6].sum(dim=(1, 2))


def tried(saliency: Tensor, draws: int = 40) -> Faithfulness:
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
    truth = torch.zeros(8, 12)
    truth[:4, :6] = 1
    found = tried(truth)
    # 24 cells in four of sixteen steps, then nothing: the area is that of a triangle.
    assert found.deletion.tolist() == [24, 18, 12, 6, *[0] * 13]
    assert found.insertion.tolist() == [0, 6, 12, 18, *[24] * 13]
    assert found.deletion_area == pytest.approx(0.25 * 24 / 2)
    assert found.insertion_area == pytest.approx(24 - 0.25 * 24 / 2)
    assert found.fraction_beaten == (1, 1)
    assert found.is_faithful
    assert "better than random" in found.line


def test_random_orders_average_to_the_diagonal() -> None:
    found = tried(torch.zeros(8, 12), draws=400)
    assert found.random_areas == pytest.approx((12, 12), rel=0.05)
    ends = found.random_deletion[:, [0, -1]]
    assert (ends == torch.tensor([24.0, 0.0])).all()


def test_unfaithful_map_is_reported_in_words() -> None:
    lie = torch.ones(8, 12)
    lie[:4, :6] = -1
    found = tried(lie)
    assert not found.is_faithful
    assert found.fraction_beaten == (0, 0)
    assert "no better than random" in found.line


def test_random_map_is_not_faithful() -> None:
    generator = torch.Generator().manual_seed(3)
    held = [tried(torch.randn(2, 8, 12, generator=generator)).is_faithful for _ in range(60)]
    assert sum(held) <= 8  # one in twenty, by chance


def test_generator_determines_the_random_orders() -> None:
    one, same = (tried(torch.zeros(8, 12)).random_deletion for _ in range(2))
    assert torch.equal(one, same)
    assert not torch.equal(one[0], one[1])


def test_blocks_at_the_edge_are_smaller() -> None:
    clips = torch.ones(1, 5, 7)
    found = measure_faithfulness(
        lambda it: it.sum(dim=(1, 2)), clips, torch.zeros_like(clips), torch.ones_like(clips),
        torch.Generator(), block=BLOCK, steps=9, draws=2,
    )  # fmt: skip
    assert found.deletion[0] == found.insertion[-1] == 35
    assert found.deletion[-1] == found.insertion[0] == 0
    torch.testing.assert_close(found.deletion + found.insertion, torch.full((10,), 35.0).double())
