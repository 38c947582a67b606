"""Random draws: those of torch's CPU generator."""

import numpy as np
import pytest
import torch

from tonewood.utils.arrays import RandomDraws

SIZES = [0, 1, 2, 5, 15, 16, 17, 31, 32, 100, 1_000, 4_097]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", [0, 1, 7, 2**31])
@pytest.mark.parametrize("size", SIZES)
def test_draws_equal_those_of_torch(size: int, seed: int) -> None:
    uniform = RandomDraws(seed).uniform(size)
    assert np.array_equal(uniform, torch.rand(size, generator=generator(seed)).numpy())
    assert np.array_equal(
        RandomDraws(seed).permutation(size), torch.randperm(size, generator=generator(seed)).numpy()
    )
    # torch may compute logarithm and cosine with other instructions.
    normal = torch.randn(size, generator=generator(seed)).numpy()
    np.testing.assert_allclose(RandomDraws(seed).normal(size), normal, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 3])
def test_series_of_draws_equals_that_of_torch(seed: int) -> None:
    draws, twin = RandomDraws(seed), generator(seed)
    for size in (3, 20, 1, 16, 2, 5):
        normal = torch.randn(size, generator=twin).numpy()
        np.testing.assert_allclose(draws.normal(size), normal, rtol=1e-5, atol=1e-6)
        assert np.array_equal(draws.uniform(2, size), torch.rand(2, size, generator=twin).numpy())
        assert draws.integer(size) == torch.randint(size, (1,), generator=twin).item()
        order = torch.randperm(size, generator=twin).numpy()
        assert np.array_equal(draws.permutation(size), order)


def test_shape_is_as_asked() -> None:
    draws = RandomDraws(0)
    assert draws.uniform(2, 3).shape == draws.normal(2, 3).shape == (2, 3)
    assert draws.uniform(2).dtype == draws.normal(20).dtype == draws.normal(2).dtype == np.float32


@pytest.mark.parametrize("limit", [1, 2, 30, 1_000])
def test_integers_are_below_the_limit(limit: int) -> None:
    draws = RandomDraws(limit)
    numbers = [draws.integer(limit) for _ in range(100)]
    assert all(0 <= number < limit for number in numbers)
    assert len(set(numbers)) > min(limit, 50) / 2
