"""Can a trace alone tell two folders apart? Small classifiers, intervals and a verdict.

Recordings count, not moments: what one take has throughout is one observation. All questions are
asked together, and chance is allowed one false alarm in fifty over all of them.
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

ALPHA = 0.02  # false alarms over all questions together
BEWARE_ACCURACY = 0.6  # least balanced accuracy that is worth a word
CONFOUNDED_ACCURACY = 0.8  # least lower end of its interval that makes all else doubtful
_PERMUTATIONS = 999
_SPECTRUM_SHRINKAGE = 0.1  # of spectra, whose bands are many and alike


class FeatureTable(NamedTuple):
    """One trace of every recording, both folders' one after the other.

    Parameters
    ----------
    values : array [recording, feature]
        NaN where unknown.
    steps : array [feature]
        Smallest differences of consequence: seen through an error as wide as this.
    """

    name: str
    values: FloatArray
    steps: FloatArray


def run_audit_tests(
    tables: Sequence[FeatureTable], is_source: NDArray[np.bool_], rng: np.random.Generator
) -> list[AuditFinding]:
    """Findings of all questions together, for recordings labelled [recording].

    Accuracy is that of linear discriminant analysis on recordings left out, in ten folds. Whether
    it is more than chance is asked of Hotelling's T²: recordings change places between the
    folders, all traces of one together, and the largest standardised T² of any question is what
    chance can do (Westfall & Young 1993). The family-wise error is at most `ALPHA`.
    """
    is_reference = np.logical_not(is_source)
    counts = int(is_reference.sum()), int(is_source.sum())
    seen = [_standardize(question, rng) for question in tables]
    shuffles = np.stack(
        [np.arange(len(is_source))] + [rng.permutation(len(is_source)) for _ in range(_PERMUTATIONS)]
    )
    folds = stratified_folds(is_source, rng)
    z = np.zeros((len(tables), len(shuffles)))
    for k, values in enumerate(seen):
        if values.shape[1] and min(counts) > 1:
            t = hotelling_t(values, shuffles, counts[0])
            z[k] = (t - t.mean()) / max(float(t.std()), 1e-12)
    highest = z.max(axis=0)  # [shuffle]
    findings = []
    for k, (question, values) in enumerate(zip(tables, seen, strict=True)):
        known = np.isfinite(question.values).sum(axis=1) > 0
        if min(np.sum(known & is_source), np.sum(known & is_reference)) < MIN_RECORDINGS:
            findings.append(AuditFinding(name=question.name, verdict="untested"))
            continue
        # A relative hair's breadth: equal groupings may differ in the last bits.
        p_value = float(np.mean(highest >= z[k, 0] - 1e-9)) if values.shape[1] else 1.0
        accuracy = balanced_accuracy(lda_cross_validate(values, is_source, folds), is_source)
        findings.append(
            AuditFinding(
                name=question.name,
                verdict=decide_verdict(accuracy, p_value),
                accuracy=accuracy,
                p_value=p_value,
            )
        )
    return findings


def decide_verdict(accuracy: Accuracy, p_value: float) -> AuditVerdict:
    """`beware` where chance is excluded and enough are told apart, `confounded` where most are."""
    if p_value > ALPHA or accuracy.mean < BEWARE_ACCURACY:
        return "fine"
    return "confounded" if accuracy.low >= CONFOUNDED_ACCURACY else "beware"


def spectrum_baseline(
    spectra: Sequence[FloatArray], is_source: NDArray[np.bool_], rng: np.random.Generator
) -> Accuracy | None:
    """How well long-term spectra [window, row] of each recording tell it, left out whole."""
    if min(is_source.sum(), (~is_source).sum()) < MIN_RECORDINGS:
        return None
    owner = np.repeat(np.arange(len(spectra)), [len(one) for one in spectra])
    folds = stratified_folds(is_source, rng)[owner]
    told = lda_cross_validate(np.concatenate(spectra), is_source[owner], folds, _SPECTRUM_SHRINKAGE)
    share = np.bincount(owner, told) / np.bincount(owner)
    return balanced_accuracy(share, is_source)


def leave_one_session_out(
    spectra: Sequence[FloatArray], is_source: NDArray[np.bool_], names: Sequence[str]
) -> tuple[SessionAccuracy, ...]:
    """The baseline on each session, left out whole; none where a side has but one."""
    groups = [(bool(side), name) for side, name in zip(is_source, names, strict=True)]
    known = sorted(set(groups))
    if min(sum(side == wanted for side, _ in known) for wanted in (False, True)) < 2:
        return ()
    owner = np.repeat(np.arange(len(spectra)), [len(one) for one in spectra])
    fold = np.array([known.index(group) for group in groups])[owner]
    told = lda_cross_validate(np.concatenate(spectra), is_source[owner], fold, _SPECTRUM_SHRINKAGE)
    return tuple(
        SessionAccuracy(
            side="source" if side else "reference",
            name=name,
            windows=int((fold == k).sum()),
            accuracy=float(told[fold == k].mean()),
        )
        for k, (side, name) in enumerate(known)
    )


def _standardize(table: FeatureTable, rng: np.random.Generator) -> FloatArray:
    """Values [recording, feature] as the classifier sees them, whatever the labels are.

    Unknown values become the median of all; features that few recordings have, or that are alike
    throughout, are left out. The others are drawn in to Tukey's fences, so that one odd recording
    hides no habit, and get an error as wide as their step, so that what is of no consequence
    tells nothing.
    """
    values, steps = table.values, table.steps
    usual = np.isfinite(values).mean(axis=0) >= 0.5
    values, steps = values[:, usual], steps[usual]
    values = np.where(np.isfinite(values), values, np.nanmedian(values, axis=0))
    differs = np.ptp(values, axis=0) >= steps
    values, steps = values[:, differs], steps[differs]
    low, high = np.percentile(values, [25, 75], axis=0)
    reach = 1.5 * np.maximum(high - low, steps)
    values = np.clip(values, low - reach, high + reach)
    noisy = values + steps * rng.standard_normal(values.shape)
    scaled: FloatArray = (noisy - noisy.mean(axis=0)) / np.maximum(noisy.std(axis=0), 1e-12)
    return scaled
