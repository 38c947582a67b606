"""Distance of recordings from a folder."""

import pytest
import torch

from tonewood.dsp.chunking import TensorTimeSeries
from tonewood.mask.certificate import OutOfDomainDetector, describe_windows, fit_detector

ROWS, WINDOW = 10, 50


def take(seed: int, shift: float = 0.0, frames: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tilt = shift * torch.linspace(-1, 1, ROWS)[:, None]
    shape = torch.randn(ROWS, 1, generator=generator)
    return -20 + tilt + shape + 3 * torch.randn(ROWS, frames, generator=generator)


@pytest.fixture(scope="module")
def cloud() -> OutOfDomainDetector:
    return fit_detector([take(seed) for seed in range(12)], WINDOW)


def test_recordings_of_the_same_kind_are_within_the_limit(cloud: OutOfDomainDetector) -> None:
    assert all(cloud.distance(TensorTimeSeries(take(seed))) < 1 for seed in range(100, 110))


def test_distance_grows_with_the_difference(
    cloud: OutOfDomainDetector,
) -> None:
    distances = [cloud.distance(TensorTimeSeries(take(200, shift))) for shift in (0.0, 12.0, 24.0)]
    assert distances[0] < 1 < distances[1] < distances[2]


def test_distance_is_independent_of_level(cloud: OutOfDomainDetector) -> None:
    rows = take(7)
    as_it_is = cloud.distance(TensorTimeSeries(rows))
    assert cloud.distance(TensorTimeSeries(rows - 30)) == pytest.approx(as_it_is, rel=1e-3)


def test_distance_ignores_silence(cloud: OutOfDomainDetector) -> None:
    rows = take(8)
    broken = torch.cat([rows, torch.full((ROWS, 300), -140.0)], dim=1)
    assert cloud.distance(TensorTimeSeries(broken)) < 1


def test_distance_of_take_shorter_than_a_window(cloud: OutOfDomainDetector) -> None:
    assert 0 < cloud.distance(TensorTimeSeries(take(9, frames=20))) < 2


def test_windows_are_described_by_mean_and_standard_deviation() -> None:
    rows = take(3, frames=WINDOW)
    [point] = describe_windows(TensorTimeSeries(rows), WINDOW)
    relative = rows - 10 * torch.log10(torch.pow(10, rows / 10).sum(dim=0).mean())
    torch.testing.assert_close(point[:ROWS], relative.mean(dim=1))
    torch.testing.assert_close(point[ROWS:], relative.std(dim=1, correction=0))


def test_detector_survives_storage(cloud: OutOfDomainDetector) -> None:
    again = OutOfDomainDetector.from_tensors(cloud.tensors())
    assert again.distance(TensorTimeSeries(take(5))) == cloud.distance(TensorTimeSeries(take(5)))


def test_identical_takes_give_a_finite_limit() -> None:
    flat = torch.full((ROWS, 200), -20.0)
    assert fit_detector([flat, flat], WINDOW).distance(TensorTimeSeries(flat)) == pytest.approx(1, abs=1)
