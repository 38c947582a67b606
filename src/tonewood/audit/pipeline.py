"""Audit two folders for confounds: differences that are not the instrument.

A scorer learns whatever separates the folders. If every reference was recorded in one room and
every source in another, it learns the room. The audit measures room, microphone, codec and export
of every recording and tests whether these alone separate the folders.

The unit of observation is a recording, not a frame: a property that one recording has throughout
counts once. All features are tested together at a family-wise error of at most 2 %.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.data.dataset import AuditFeatures
from tonewood.data.loading import DatasetSide, RecordingProgress, survey_sides
from tonewood.data.manifest import BadRecordings
from tonewood.dsp.artifact_detectors import THIRD_OCTAVES_HZ
from tonewood.model.card import (
    MIN_RECORDINGS,
    AuditFinding,
    AuditVerdict,
    ConfoundAudit,
    SessionAccuracy,
    format_accuracy,
)
from tonewood.settings import ModelSettings
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
_FLOOR_OCTAVES_HZ = (125, 250, 500, 1_000, 2_000, 4_000)
# Noise alone makes the largest of six harmonics stand out by this much: no hum is below it.
_HUM_FLOOR_DB = 8.0
_OFFSET_FLOOR_DB = -80.0  # smaller offsets do not matter
_ANALYSIS_LIMIT_HZ = 8_000.0  # half of the scorer's sample rate


# --- Confounds


class ConfoundFeature(NamedTuple):
    """One number measured on a recording; `extract` returns None if it is unknown.

    `label` ends in its unit. `min_difference` is the smallest one that matters, in this unit, or in octaves
    if `log_scale`. `log_offset` is added before the logarithm where values may be 0.
    """

    label: str
    min_difference: float
    extract: Callable[[AuditFeatures], float | None]
    log_scale: bool = False
    log_offset: float = 0.0


class Confound(NamedTuple):
    """Property that may separate two folders although it is not the instrument.

    `remedy` is advice. `inaudible_reason` says why the scorer cannot use the property; it is empty
    if the scorer can. A property with `upper_limit_hz`, the highest frequency in a recording,
    matters only if that is below the scorer's own limit. `fault` is 1 if larger values of the
    features are a fault, -1 if smaller ones are.
    """

    name: str
    features: tuple[ConfoundFeature, ...]
    remedy: str
    inaudible_reason: str = ""
    upper_limit_hz: Callable[[AuditFeatures], float] | None = None
    fault: int = 0

    @property
    def units(self) -> str:
        """Units of the features in their order, as in `s / %`; one if all are the same."""
        units = [feature.label.rpartition(", ")[2] for feature in self.features]
        return units[0] if len(set(units)) == 1 else " / ".join(units)


def _noise_floor(features: AuditFeatures) -> float | None:
    quality = features.traces
    # Relative to loudness: a gain change must not look like another room.
    return None if quality.floor_db is None else quality.floor_db - quality.loudness


def _noise_color(octave_hz: float) -> Callable[[AuditFeatures], float | None]:
    """Return a function for the noise level of one octave relative to the mean of all, in dB."""

    def extract(features: AuditFeatures) -> float | None:
        if features.traces.floor_db is None:
            return None
        bands_db = features.traces.floor_bands_db
        # Relative to the mean of the octaves, so that color does not repeat the noise floor.
        levels = [_octave_level(bands_db, hz) for hz in _FLOOR_OCTAVES_HZ]
        return _octave_level(bands_db, octave_hz) - float(np.mean(levels))

    return extract


def _octave_level(third_octaves_db: FloatArray, octave_hz: float) -> float:
    # The three third octaves of an octave have centres within 1/3 octave of its own.
    members = np.abs(np.log2(THIRD_OCTAVES_HZ / octave_hz)) < 0.4
    # 1e-16 keeps an empty octave finite, far below any recording's noise.
    return float(10 * np.log10(np.nansum(10 ** (third_octaves_db[members] / 10)) + 1e-16))


def _decay_time(band: int) -> Callable[[AuditFeatures], float | None]:
    return lambda f: f.traces.decay_s[band] if f.traces.decay_s else None


def _hum_level(series: int) -> Callable[[AuditFeatures], float | None]:
    return lambda f: max(_HUM_FLOOR_DB, f.traces.hum_db[series]) if f.traces.hum_db else None


CONFOUNDS = (
    Confound(
        "level",
        (ConfoundFeature("loudness, LUFS", 0.75, lambda f: f.traces.loudness),),
        "match the levels, or train with --fix level",
        inaudible_reason="it measures levels relative to the clip",
    ),
    Confound(
        "noise floor",
        (ConfoundFeature("noise floor relative to loudness, dB", 1.5, _noise_floor),),
        "record both with the same gain and microphone, or train with --fix noise",
        fault=1,
    ),
    Confound(
        "noise colour",
        tuple(
            ConfoundFeature(f"noise floor at {hz} Hz, dB", 2.0, _noise_color(hz)) for hz in _FLOOR_OCTAVES_HZ
        ),
        "record both in the same place, or train with --fix noise",
    ),
    Confound(
        "silence",
        (
            ConfoundFeature("silence before the first sound, s", 0.25, lambda f: f.traces.lead_s),
            ConfoundFeature("silence after the last sound, s", 0.25, lambda f: f.traces.tail_s),
            ConfoundFeature("silent frames, %", 5.0, lambda f: 100 * f.traces.silent),
            ConfoundFeature("frames of digital silence, %", 2.0, lambda f: 100 * f.traces.gated),
        ),
        "trim both sides in the same way, and switch noise gates off",
    ),
    Confound(
        "bandwidth",
        (ConfoundFeature("cut-off, Hz", 0.1, lambda f: f.traces.cutoff_hz, log_scale=True),),
        "export both from the originals, or train with --fix bandwidth",
        fault=-1,
        inaudible_reason="it analyses nothing above 8 kHz",
        upper_limit_hz=lambda f: f.traces.cutoff_hz,
    ),
    Confound(
        "codec",
        (
            ConfoundFeature(
                "spectral dropouts above 4 kHz, %", 1.0, lambda f: 100 * f.traces.holes, True, log_offset=0.05
            ),
        ),
        "use recordings without lossy compression and denoising",
        fault=1,
    ),
    Confound(
        "hum",
        (
            ConfoundFeature("50 Hz hum, dB", 2.0, _hum_level(0)),
            ConfoundFeature("60 Hz hum, dB", 2.0, _hum_level(1)),
        ),
        "record again without hum, or filter it out of both sides",
        fault=1,
    ),
    Confound(
        "offset",
        (ConfoundFeature("offset, dBFS", 6.0, lambda f: max(_OFFSET_FLOOR_DB, f.traces.offset_db)),),
        "remove the DC offset from both sides",
        inaudible_reason="it analyses nothing below 40 Hz",
    ),
    Confound(
        "clipping",
        (ConfoundFeature("clipped peaks, per min", 1.0, lambda f: f.traces.clips, True, log_offset=1.0),),
        "leave clipped recordings out, or record them again",
        fault=1,
    ),
    Confound(
        "reverberation",
        (
            ConfoundFeature("decay time, 500 Hz to 2 kHz, s", 0.1, _decay_time(0), log_scale=True),
            ConfoundFeature("decay time, 2 to 5 kHz, s", 0.1, _decay_time(1), log_scale=True),
        ),
        "record both in one room at one distance; if you did, the instruments themselves ring differently",
    ),
    Confound(
        "sample rate",
        (ConfoundFeature("sample rate, Hz", 0.05, lambda f: f.traces.rate, log_scale=True),),
        "export both at one rate",
        inaudible_reason="it analyses nothing above 8 kHz",
        upper_limit_hz=lambda f: f.traces.rate / 2,
    ),
    Confound(
        "stereo width",
        (ConfoundFeature("side relative to mid, dB", 2.0, lambda f: f.traces.width_db),),
        "record both with the same arrangement of microphones",
        inaudible_reason="it mixes the channels to one",
    ),
    Confound(
        "duration",
        (ConfoundFeature("duration, s", 0.25, lambda f: f.traces.seconds, log_scale=True),),
        "check that both folders were made in the same way",
        inaudible_reason="it analyses three seconds at a time",
    ),
    Confound(
        "file format",
        (
            ConfoundFeature("bits", 1.0, lambda f: f.bits),
            ConfoundFeature("lossy", 0.25, lambda f: float(f.lossy)),
        ),
        "export both in one lossless format from the originals",
        inaudible_reason="it reads samples, not the format",
    ),
)


# --- The audit


@dataclass(frozen=True, eq=False)
class AuditResult:
    """Audit of two folders, with the features that it rests on."""

    audit: ConfoundAudit
    folders: tuple[Path, Path]  # reference and source
    reference: list[AuditFeatures]
    source: list[AuditFeatures]


def audit_folders(
    reference: Path, source: Path, settings: ModelSettings, bad: BadRecordings | None = None
) -> Iterator[RecordingProgress | AuditResult]:
    """Audit two folders for a training; yield the progress and, last, the `AuditResult`.

    The recordings of the folders need not correspond. `bad` decides whether bad recordings are left out.

    FolderError or AudioError if a folder or a recording cannot be used; the message names it.
    """
    sides = yield from survey_sides([reference], source, settings, bad)
    rng = np.random.default_rng(settings.training.seed)
    audit = analyse_confounds(sides["reference"], sides["source"], rng)
    yield AuditResult(audit, (reference, source), sides["reference"], sides["source"])


def analyse_confounds(
    reference: Sequence[AuditFeatures], source: Sequence[AuditFeatures], rng: np.random.Generator
) -> ConfoundAudit:
    """Test every confound on the features of both folders."""
    recordings = [*reference, *source]
    is_source = np.arange(len(recordings)) >= len(reference)
    tables = [
        FeatureTable(
            confound.name,
            np.stack([_feature_column(feature, recordings) for feature in confound.features], axis=1),
            np.array([feature.min_difference for feature in confound.features]),
        )
        for confound in CONFOUNDS
    ]
    findings = run_audit_tests(tables, is_source, rng)
    spectra = [features.spectra for features in recordings]
    return ConfoundAudit(
        recordings=(len(reference), len(source)),
        findings=tuple(
            _complete_finding(finding, confound, reference, source)
            for finding, confound in zip(findings, CONFOUNDS, strict=True)
        ),
        spectrum=spectrum_baseline(spectra, is_source, rng),
        sessions=leave_one_session_out(spectra, is_source, [f.session for f in recordings]),
    )


def _complete_finding(
    finding: AuditFinding,
    confound: Confound,
    reference: Sequence[AuditFeatures],
    source: Sequence[AuditFeatures],
) -> AuditFinding:
    """Add the medians of both folders; a confound that the scorer does not hear is at most `beware`."""
    is_heard = _affects_scorer(confound, (reference, source))
    return finding.model_copy(
        update={
            "reference": tuple(_feature_median(feature, reference) for feature in confound.features),
            "source": tuple(_feature_median(feature, source) for feature in confound.features),
            "heard": is_heard,
            # What the scorer does not analyse cannot mislead it.
            "verdict": "beware" if finding.verdict == "confounded" and not is_heard else finding.verdict,
        }
    )


def _affects_scorer(confound: Confound, sides: Sequence[Sequence[AuditFeatures]]) -> bool:
    limit_hz = confound.upper_limit_hz
    if limit_hz is None:
        return not confound.inaudible_reason
    # Limits above the analysed range make no difference to the scorer.
    medians = [float(np.median([limit_hz(features) for features in side])) for side in sides]
    return min(medians) < _ANALYSIS_LIMIT_HZ


def feature_values(feature: ConfoundFeature, recordings: Sequence[AuditFeatures]) -> FloatArray:
    """Return a feature [recording] in its unit; NaN where it is unknown."""
    values = [feature.extract(features) for features in recordings]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _feature_median(feature: ConfoundFeature, recordings: Sequence[AuditFeatures]) -> float | None:
    values = feature_values(feature, recordings)
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


def _feature_column(feature: ConfoundFeature, recordings: Sequence[AuditFeatures]) -> FloatArray:
    values = feature_values(feature, recordings)
    # np.maximum keeps NaN, an unknown value, and makes the logarithm of 0 finite.
    return np.log2(np.maximum(values + feature.log_offset, 1e-9)) if feature.log_scale else values


# --- Tests


class FeatureTable(NamedTuple):
    """Features of one confound, for the recordings of both folders."""

    name: str
    values: FloatArray  # [recording, feature]: NaN where unknown
    steps: FloatArray  # [feature]: smallest differences that matter; noise of this size is added


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


# --- Text


def confound_warnings(audit: ConfoundAudit) -> list[str]:
    """Return one warning for each confounded finding, and one if the folders seem to be swapped."""
    warnings = [
        f"confounded: {finding.name} alone identifies the folder of {format_accuracy(finding.accuracy)} of "
        f"the recordings: {confound.remedy}"
        for finding, confound in zip(audit.findings, CONFOUNDS, strict=True)
        if finding.verdict == "confounded" and finding.accuracy is not None
    ]
    is_fault_of_reference = {
        finding.name: confound.fault * _median_difference(finding) > 0
        for finding, confound in zip(audit.findings, CONFOUNDS, strict=True)
        if confound.fault and finding.verdict != "fine"
    }
    if is_fault_of_reference and all(is_fault_of_reference.values()):
        warnings.append(
            f"the reference has the poorer recordings (see {', '.join(is_fault_of_reference)}): if they are "
            "the ordinary sound, exchange --reference and --source"
        )
    return warnings


def _median_difference(finding: AuditFinding) -> float:
    """Return the medians of the reference minus those of the source, summed over features; 0 if unknown."""
    pairs = zip(finding.reference, finding.source, strict=True)
    return sum(a - b for a, b in pairs if a is not None and b is not None)


def format_remedy(finding: AuditFinding, confound: Confound) -> str:
    """Return the advice on a finding, and the reason if the scorer is not affected by it."""
    if finding.heard:
        return confound.remedy
    return f"{confound.remedy} (the scorer does not hear it: {confound.inaudible_reason})"


def format_medians(finding: AuditFinding, side: DatasetSide) -> str:
    """Return the medians of a finding's features on one side as text."""
    return " / ".join(map(_format_feature_value, getattr(finding, side)))


def _format_feature_value(value: float | None) -> str:
    if value is None:
        return "-"
    # Adding 0.0 turns -0.0, which rounding may give, into 0.0.
    return f"{value:.0f}" if abs(value) >= 100 else f"{round(value, 2) + 0.0:.3g}"
