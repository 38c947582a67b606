"""Distance of recordings from a folder."""

import numpy as np
import pytest

from tonewood.dsp.chunking import ArrayTimeSeries
from tonewood.mask.certificate import OutOfDomainDetector, describe_windows, fit_detector
from tonewood.utils.arrays import Levels

ROWS, WINDOW = 10, 50


def take(seed: int, shift: float = 0.0, frames: int = 400) -> Levels:
    rng = np.random.default_rng(seed)
    tilt = shift * np.linspace(-1, 1, ROWS)[:, None]
    shape = rng.standard_normal((ROWS, 1))
    return (-20 + tilt + shape + 3 * rng.standard_normal((ROWS, frames))).astype(np.float32)


@pytest.fixture(scope="module")
def cloud() -> OutOfDomainDetector:
    return fit_detector([take(seed) for seed in range(12)], WINDOW)


def test_recordings_of_the_same_kind_are_within_the_limit(cloud: OutOfDomainDetector) -> None:
    assert all(cloud.distance(ArrayTimeSeries(take(seed))) < 1 for seed in range(100, 110))


def test_distance_grows_with_the_difference(
    cloud: OutOfDomainDetector,
) -> None:
    distances = [cloud.distance(ArrayTimeSeries(take(200, shift))) for shift in (0.0, 12.0, 24.0)]
    assert distances[0] < 1 < distances[1] < distances[2]


def test_distance_is_independent_of_level(cloud: OutOfDomainDetector) -> None:
    rows = take(7)
    as_it_is = cloud.distance(ArrayTimeSeries(rows))
    assert cloud.distance(ArrayTimeSeries(rows - 30)) == pytest.approx(as_it_is, rel=1e-3)


def test_distance_ignores_silence(cloud: OutOfDomainDetector) -> None:
    rows = take(8)
    broken = np.pad(rows, ((0, 0), (0, 300)), constant_values=-140)
    assert cloud.distance(ArrayTimeSeries(broken)) < 1


def test_distance_of_take_shorter_than_a_window(cloud: OutOfDomainDetector) -> None:
    assert 0 < cloud.distance(ArrayTimeSeries(take(9, frames=20))) < 2


def test_windows_are_described_by_mean_and_standard_deviation() -> None:
    rows = take(3, frames=WINDOW)
    [point] = describe_windows(ArrayTimeSeries(rows), WINDOW)
    relative = rows - 10 * np.log10(np.power(10.0, rows / 10).sum(axis=0).mean())
    np.testing.assert_allclose(point[:ROWS], relative.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(point[ROWS:], relative.std(axis=1), rtol=1e-4)


def test_detector_survives_storage(cloud: OutOfDomainDetector) -> None:
    again = OutOfDomainDetector.from_tensors(cloud.tensors())
    assert again.distance(ArrayTimeSeries(take(5))) == cloud.distance(ArrayTimeSeries(take(5)))


def test_identical_takes_give_a_finite_limit() -> None:
    flat = np.full((ROWS, 200), -20, np.float32)
    assert fit_detector([flat, flat], WINDOW).distance(ArrayTimeSeries(flat)) == pytest.approx(1, abs=1)
