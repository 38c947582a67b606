"""Test whether a measured feature alone separates two folders.

The unit of observation is a recording, not a frame: a property that one recording has throughout
counts once. All features are tested together at a family-wise error of at most 2 %.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.model.card import MIN_RECORDINGS, AuditFinding, AuditVerdict, SessionAccuracy
from tonewood.stats.classification import (
    Accuracy,
    balanced_accuracy,
    hotelling_t,
    lda_cross_validate,
    stratified_folds,
)
from tonewood.utils.arrays import FloatArray

ALPHA = 0.02  # family-wise error over all features
BEWARE_ACCURACY = 0.6  # smallest balanced accuracy that is reported
CONFOUNDED_ACCURACY = 0.8  # lower end of its interval from which the training data are confounded
_PERMUTATIONS = 999
_SPECTRUM_SHRINKAGE = 0.1  # neighbouring bands of a spectrum are strongly correlated


class FeatureTable(NamedTuple):
    """Features of one confound, for the recordings of both folders.

    Attributes
    ----------
    values : array [recording, feature]
        NaN where unknown.
    steps : array [feature]
        Smallest differences that matter; noise of this size is added.
    """

    name: str
    values: FloatArray
    steps: FloatArray


def run_audit_tests(
    tables: Sequence[FeatureTable], is_source: NDArray[np.bool_], rng: np.random.Generator
) -> list[AuditFinding]:
    """Return one finding per table, for recordings of which is_source [recording] names the folder.

    Accuracy is that of linear discriminant analysis on recordings held out in ten folds. The
    p-value is a permutation test of Hotelling's T² that controls the family-wise error over all
    tables: the largest standardised T² of any table is compared (Westfall & Young 1993).
    """
    is_reference = np.logical_not(is_source)
    counts = int(is_reference.sum()), int(is_source.sum())
    standardized = [_standardize(table, rng) for table in tables]

    # One permutation for all tables keeps their dependence; row 0 is the true labelling.
    shuffles = np.stack(
        [np.arange(len(is_source))] + [rng.permutation(len(is_source)) for _ in range(_PERMUTATIONS)]
    )
    # The same folds for every table: differences in accuracy come from the features.
    folds = stratified_folds(is_source, rng)
    z = np.zeros((len(tables), len(shuffles)))
    for k, values in enumerate(standardized):
        if values.shape[1] and min(counts) > 1:
            t = hotelling_t(values, shuffles, counts[0])
            # T² grows with the number of features; standardizing makes tables comparable.
            z[k] = (t - t.mean()) / max(float(t.std()), 1e-12)
    highest = z.max(axis=0)  # [shuffle]

    findings = []
    for k, (table, values) in enumerate(zip(tables, standardized, strict=True)):
        known = np.isfinite(table.values).sum(axis=1) > 0
        if min(np.sum(known & is_source), np.sum(known & is_reference)) < MIN_RECORDINGS:
            findings.append(AuditFinding(name=table.name, verdict="untested"))
            continue
        # The tolerance lets equal groupings count as equal in spite of rounding.
        p = float(np.mean(highest >= z[k, 0] - 1e-9)) if values.shape[1] else 1.0
        accuracy = balanced_accuracy(lda_cross_validate(values, is_source, folds), is_source)
        verdict = decide_verdict(accuracy, p)
        findings.append(AuditFinding(name=table.name, verdict=verdict, accuracy=accuracy, p_value=p))
    return findings


def decide_verdict(accuracy: Accuracy, p_value: float) -> AuditVerdict:
    """Return `confounded` if the features separate most recordings, `beware` if they separate many."""
    if p_value > ALPHA or accuracy.mean < BEWARE_ACCURACY:
        return "fine"
    # "Confounded" needs certainty, so it looks at the lower end of the interval.
    return "confounded" if accuracy.low >= CONFOUNDED_ACCURACY else "beware"


def spectrum_baseline(
    spectra: Sequence[FloatArray], is_source: NDArray[np.bool_], rng: np.random.Generator
) -> Accuracy | None:
    """Return the accuracy of a linear classifier on long-term spectra [window, row] per recording."""
    if min(is_source.sum(), (~is_source).sum()) < MIN_RECORDINGS:
        return None
    # Windows of one recording stay in one fold; otherwise it would be recognized by its neighbours.
    owner = np.repeat(np.arange(len(spectra)), [len(windows) for windows in spectra])
    folds = stratified_folds(is_source, rng)[owner]
    correct = lda_cross_validate(np.concatenate(spectra), is_source[owner], folds, _SPECTRUM_SHRINKAGE)
    return balanced_accuracy(np.bincount(owner, correct) / np.bincount(owner), is_source)


def leave_one_session_out(
    spectra: Sequence[FloatArray], is_source: NDArray[np.bool_], names: Sequence[str]
) -> tuple[SessionAccuracy, ...]:
    """Return the spectrum baseline on each session held out; empty if a side has only one session."""
    groups = [(bool(side), name) for side, name in zip(is_source, names, strict=True)]
    sessions = sorted(set(groups))  # equal names on both sides are different sessions
    if min(sum(side == label for side, _ in sessions) for label in (False, True)) < 2:
        return ()
    owner = np.repeat(np.arange(len(spectra)), [len(windows) for windows in spectra])
    fold = np.array([sessions.index(group) for group in groups])[owner]
    correct = lda_cross_validate(np.concatenate(spectra), is_source[owner], fold, _SPECTRUM_SHRINKAGE)
    return tuple(
        SessionAccuracy(
            side="source" if side else "reference",
            name=name,
            windows=int((fold == k).sum()),
            accuracy=float(correct[fold == k].mean()),
        )
        for k, (side, name) in enumerate(sessions)
    )


def _standardize(table: FeatureTable, rng: np.random.Generator) -> FloatArray:
    """Return values [recording, feature] for the classifier, regardless of the labels."""
    # Features that few recordings have, or that hardly vary, carry no information.
    values, steps = table.values, table.steps
    usual = np.isfinite(values).mean(axis=0) >= 0.5
    values, steps = values[:, usual], steps[usual]
    values = np.where(np.isfinite(values), values, np.nanmedian(values, axis=0))
    differs = np.ptp(values, axis=0) >= steps
    values, steps = values[:, differs], steps[differs]
    # Tukey's fences: one outlier must not hide a difference between the folders.
    low, high = np.percentile(values, [25, 75], axis=0)
    reach = 1.5 * np.maximum(high - low, steps)
    values = np.clip(values, low - reach, high + reach)
    # Noise as wide as the step hides differences that do not matter.
    noisy = values + steps * rng.standard_normal(values.shape)
    scaled: FloatArray = (noisy - noisy.mean(axis=0)) / np.maximum(noisy.std(axis=0), 1e-12)
    return scaled
