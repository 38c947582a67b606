import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonewood.stats.classification import bootstrap_interval


def test_bootstrap_intervals_cover_the_mean() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        result = bootstrap_interval(rng.normal(1.0, 2.0, size=12), rng, draws=1_000)
        assert result.low is not None
        assert result.high is not None
        covered += result.low <= 1.0 <= result.high
    assert 0.88 < covered / 300 < 0.98


def test_one_value_has_no_interval() -> None:
    assert bootstrap_interval(np.array([3.0]), np.random.default_rng(0)) == (3.0, None, None)


@settings(max_examples=20, deadline=None)
@given(shift=st.floats(-50, 50), scale=st.floats(0.1, 10))
def test_bootstrap_intervals_are_equivariant(shift: float, scale: float) -> None:
    values = np.array([0.0, 1.0, 4.0, 2.0])
    plain = np.array(bootstrap_interval(values, np.random.default_rng(1)))
    shifted = np.array(bootstrap_interval(scale * values + shift, np.random.default_rng(1)))
    assert shifted == pytest.approx(scale * plain + shift, abs=1e-6)


def test_paired_differences_have_narrower_intervals() -> None:
    rng = np.random.default_rng(2)
    piece = rng.normal(10, 3, size=12)
    better = piece - 1 + rng.normal(0, 0.1, size=12)
    low, high = bootstrap_interval(piece - better, rng)[1:]
    wide = bootstrap_interval(piece, rng)
    assert low is not None
    assert high is not None
    assert 0.8 < low < high < 1.2
    assert wide.high is not None
    assert wide.high - wide.mean > 1
