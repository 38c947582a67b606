import numpy as np
import pytest

from tonewood.explanation.note_statistics import PartSums, compute_part_weights, mean_intervals, sum_by_part

NAMES = ("steady", "vibrato", "quiet")


def recording(steady: float, vibrato: float, seconds: tuple[float, float] = (3.0, 1.0)) -> PartSums:
    """Evidence a second in two parts."""
    time = np.array([*seconds, 0.0])
    evidence = time * np.array([steady, vibrato, 0.0])
    return PartSums(time, evidence, np.abs(evidence))


def test_frames_are_summed_by_part() -> None:
    evidence = np.array([1.0, 2.0, np.nan, -4.0, 0.5])
    sums = sum_by_part(evidence, np.array([0, 1, 1, 1, -1], dtype=np.int8), 3, 0.01)
    assert sums.seconds.tolist() == pytest.approx([0.01, 0.02, 0.01])
    assert sums.evidence.tolist() == pytest.approx([0.01, -0.02, 0.005])
    assert sums.absolute.tolist() == pytest.approx([0.01, 0.06, 0.005])


def test_weight_is_evidence_per_second_relative_to_mean(rng: np.random.Generator) -> None:
    steady, vibrato = compute_part_weights(NAMES, [recording(1, 5)] * 3, rng, "steady")
    # (3 · 1 + 1 · 5) / 4 s = 2 on average.
    assert (steady.name, vibrato.name) == ("steady", "vibrato")
    assert steady.weight is not None
    assert vibrato.weight is not None
    assert steady.weight.mean == pytest.approx(0.5)
    assert vibrato.weight.mean == pytest.approx(2.5)
    assert vibrato.evidence.mean == pytest.approx(5)
    assert vibrato.seconds == pytest.approx(3)
    assert steady.beyond is None
    assert vibrato.beyond is not None
    assert vibrato.beyond.mean == pytest.approx(4)
    # Recordings that are all alike leave no doubt.
    assert vibrato.weight.low == pytest.approx(vibrato.weight.high) == pytest.approx(2.5)


def test_shares_times_weights_average_to_one(rng: np.random.Generator) -> None:
    tallies = [recording(rng.uniform(0, 3), 2, (rng.uniform(), rng.uniform())) for _ in range(9)]
    rows = compute_part_weights(NAMES, tallies, rng, "steady")
    total = sum(row.seconds for row in rows)
    for kind in ("weight", "absolute"):
        assert sum(row.seconds * getattr(row, kind).mean for row in rows) / total == (
            pytest.approx(1, abs=1e-3)
        )


def test_intervals_have_nominal_coverage() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        tallies = [recording(1 + 0.5 * rng.standard_normal(), 3 + rng.standard_normal())
                   for _ in range(20)]  # fmt: skip
        weight = compute_part_weights(NAMES, tallies, rng, "steady")[1].evidence
        assert weight.low is not None
        assert weight.high is not None
        hits += weight.low <= 3 <= weight.high
    assert 85 <= hits <= 100


def test_single_recording_has_no_interval(rng: np.random.Generator) -> None:
    row = compute_part_weights(NAMES, [recording(1, 5)], rng, "steady")[1]
    assert row.weight is not None
    assert (row.weight.low, row.weight.high) == (None, None)
    assert str(row.weight) == "2.50"


def test_evidence_against_the_class_has_no_weights(
    rng: np.random.Generator,
) -> None:
    steady, vibrato = compute_part_weights(NAMES, [recording(-1, -5), recording(-2, 0)], rng, "steady")
    assert steady.weight is None
    assert vibrato.weight is None
    assert vibrato.absolute.mean > 0
    assert steady.evidence.mean == pytest.approx(-1.5)


def test_mean_intervals_of_columns(rng: np.random.Generator) -> None:
    values = np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]])
    first, second = mean_intervals(values, rng)
    assert first.mean == pytest.approx(3)
    assert first.low is not None
    assert first.high is not None
    assert 1 <= first.low < 3 < first.high <= 5
    assert (second.mean, second.low, second.high) == (0, 0, 0)


def test_difference_is_paired_by_recording(rng: np.random.Generator) -> None:
    # Vibrato says 1 more than steady moments in each, however much the recordings differ.
    tallies = [recording(level, level + 1) for level in (0.0, 10.0, 20.0)]
    weight = compute_part_weights(NAMES, tallies, rng, "steady")[1]
    assert weight.beyond is not None
    assert (weight.beyond.mean, weight.beyond.low, weight.beyond.high) == pytest.approx((1, 1, 1))
    only = [PartSums(np.array([0.0, 1, 0]), np.array([0.0, 2, 0]), np.array([0.0, 2, 0]))] * 2
    assert compute_part_weights(NAMES, only, rng, "steady")[0].beyond is None
