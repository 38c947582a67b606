import numpy as np
import pytest
import torch

from tonewood.utils.arrays import sample_takes, weighted_mean


def test_takes_without_weights_are_equally_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen = torch.tensor(sample_takes([10, 1_000], 20_000, generator))
    assert chosen.float().mean().item() == pytest.approx(0.5, abs=0.02)
    again = torch.randint(3, (7,), generator=torch.Generator().manual_seed(1)).tolist()
    assert sample_takes([1, 2, 3], 7, torch.Generator().manual_seed(1)) == again


def test_takes_are_drawn_by_length_times_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen = torch.tensor(sample_takes([100, 300, 50], 40_000, generator, [2.0, 1.0, 4.0]))
    counts = torch.bincount(chosen, minlength=3) / 40_000
    assert counts.tolist() == pytest.approx([200 / 700, 300 / 700, 200 / 700], abs=0.01)


def test_weighted_mean_equals_the_mean_of_repeated_frames() -> None:
    rng = np.random.default_rng(0)
    takes = [rng.standard_normal((4, n)).astype(np.float32) for n in (5, 9)]
    slow = np.concatenate([takes[0], takes[0], takes[0], takes[1]], axis=1).mean(axis=1)
    np.testing.assert_allclose(weighted_mean(takes, [3.0, 1.0]), slow, atol=1e-6)
    plain = np.concatenate(takes, axis=1).mean(axis=1)
    np.testing.assert_allclose(weighted_mean(takes), plain, atol=1e-6)
    np.testing.assert_allclose(weighted_mean(takes, [0.5, 0.5]), plain, atol=1e-6)
