"""Tests of the audit's statistics on data whose answer is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tonewood.audit.pipeline import (
    ALPHA,
    FeatureTable,
    decide_verdict,
    leave_one_session_out,
    run_audit_tests,
    spectrum_baseline,
)
from tonewood.dsp.chunking import ArrayTimeSeries
from tonewood.dsp.features import long_term_spectra
from tonewood.model.card import worst_verdict
from tonewood.stats.classification import Accuracy

Floats = NDArray[np.float64]


def labels(reference: int, source: int) -> NDArray[np.bool_]:
    return np.arange(reference + source) >= reference


def feature_table(name: str, values: Floats, step: float = 1e-3) -> FeatureTable:
    return FeatureTable(name, values.reshape(len(values), -1), np.full(values[0].size, step))


def test_false_alarms_are_rare(rng: np.random.Generator) -> None:
    alarms = 0
    for _ in range(60):
        tables = [feature_table(str(k), rng.standard_normal((16, 1 + k % 3))) for k in range(10)]
        tables.append(feature_table("alike", np.ones(16)))
        tables.append(feature_table("two kinds", rng.integers(0, 2, 16).astype(float)))
        alarms += any(f.verdict != "fine" for f in run_audit_tests(tables, labels(8, 8), rng))
    assert alarms <= 5  # at most 2 % each: six or more of 60 come once in 600


@pytest.mark.parametrize("each", [5, 8, 30])
def test_only_planted_difference_is_found(each: int, rng: np.random.Generator) -> None:
    is_source = labels(each, each)
    tables = [feature_table(str(k), rng.standard_normal(2 * each)) for k in range(8)]
    tables[3] = feature_table("planted", rng.standard_normal(2 * each) + 20.0 * is_source)
    findings = {finding.name: finding for finding in run_audit_tests(tables, is_source, rng)}
    planted = findings.pop("planted")
    assert planted.verdict == ("confounded" if each == 30 else "beware")
    assert planted.accuracy is not None
    assert planted.accuracy.mean == 1
    assert all(finding.verdict == "fine" for finding in findings.values())


def test_outlier_does_not_hide_a_difference(rng: np.random.Generator) -> None:
    is_source = labels(12, 12)
    values = rng.standard_normal(24) + 8.0 * is_source
    values[3] = 1e4
    assert run_audit_tests([feature_table("level", values)], is_source, rng)[0].verdict != "fine"


def test_difference_below_step_is_ignored(rng: np.random.Generator) -> None:
    is_source = labels(20, 20)
    level = -23 + 0.01 * is_source + 1e-4 * rng.standard_normal(40)
    for step, verdict in ((1.0, "fine"), (0.1, "fine"), (1e-4, "confounded")):
        assert run_audit_tests([feature_table("level", level, step)], is_source, rng)[0].verdict == verdict


def test_few_or_unknown_recordings_are_untested(rng: np.random.Generator) -> None:
    apart = np.arange(8) * 1.0 + 100 * labels(4, 4)
    assert [f.verdict for f in run_audit_tests([feature_table("x", apart)], labels(4, 4), rng)] == [
        "untested"
    ]
    assert spectrum_baseline([np.ones((2, 4))] * 8, labels(4, 4), rng) is None
    values = np.where(labels(10, 10), np.nan, 1.0)
    values[:10] += np.arange(10)
    assert run_audit_tests([feature_table("x", values)], labels(10, 10), rng)[0].verdict == "untested"
    one = run_audit_tests([feature_table("x", np.array([1.0, 2.0]))], labels(1, 1), rng)
    assert one[0].verdict == "untested"


def test_same_generator_gives_same_findings() -> None:
    values = np.random.default_rng(1).standard_normal((20, 2))
    first, again = (
        run_audit_tests([feature_table("x", values)], labels(10, 10), np.random.default_rng(3))
        for _ in range(2)
    )
    assert first == again


def test_verdicts_at_their_thresholds() -> None:
    def accuracy(mean: float, low: float) -> Accuracy:
        return Accuracy(mean=mean, low=low, high=1.0)

    assert decide_verdict(accuracy(1.0, 0.95), 2 * ALPHA) == "fine"
    assert decide_verdict(accuracy(0.59, 0.5), ALPHA) == "fine"
    assert decide_verdict(accuracy(0.6, 0.5), ALPHA) == "beware"
    assert decide_verdict(accuracy(0.95, 0.79), ALPHA) == "beware"
    assert decide_verdict(accuracy(0.95, 0.8), ALPHA) == "confounded"
    assert worst_verdict(["fine", "untested"]) == "fine"
    assert worst_verdict(["untested"]) == "untested"
    assert worst_verdict(["fine", "confounded", "beware"]) == "confounded"


def test_long_term_spectra_ignore_level() -> None:
    rng = np.random.default_rng(0)
    rows = (np.linspace(-60, -20, 8)[:, None] + 3 * rng.random((8, 250))).astype(np.float32)
    spectra = long_term_spectra(ArrayTimeSeries(rows), 100)
    assert spectra.shape == (3, 8)
    assert np.allclose(spectra.mean(axis=1), 0)
    assert np.allclose(long_term_spectra(ArrayTimeSeries(rows + 17), 100), spectra, atol=1e-4)


def test_long_term_spectra_are_means_of_power() -> None:
    rows_db = np.random.default_rng(0).normal(-30, 10, (6, 40)).astype(np.float32)
    (spectrum,) = long_term_spectra(ArrayTimeSeries(rows_db), 40)
    level = 10 * np.log10((10 ** (rows_db.astype(np.float64) / 10)).mean(axis=1))
    np.testing.assert_allclose(spectrum, level - level.mean(), atol=1e-9)


def test_baseline_on_sessions_held_out(rng: np.random.Generator) -> None:
    is_source = labels(6, 6)
    colour = np.linspace(0, 1, 5)

    def spectra(tilts: list[float]) -> list[Floats]:
        return [t * colour + 0.1 * rng.standard_normal((4, 5)) for t in tilts]

    names = ["a", "a", "b", "b", "c", "c"] * 2
    honest = spectra([0.0] * 6 + [3.0] * 6)
    accuracy = spectrum_baseline(honest, is_source, rng)
    assert accuracy is not None
    assert accuracy.mean == 1
    sessions = leave_one_session_out(honest, is_source, names)
    assert [(s.side, s.name, s.windows) for s in sessions] == [
        (side, name, 8) for side in ("reference", "source") for name in "abc"
    ]
    assert all(session.accuracy == 1 for session in sessions)
    # The third day of the source sounds like the reference: only that session shows it.
    odd = spectra([0.0] * 6 + [3.0] * 4 + [0.0] * 2)
    accuracies = {(s.side, s.name): s.accuracy for s in leave_one_session_out(odd, is_source, names)}
    assert accuracies["source", "c"] < 0.5 < accuracies["source", "a"]
    assert leave_one_session_out(honest, is_source, ["."] * 12) == ()
