"""Two folders → what tells them apart besides the instrument (paper IV: the room was learnt).

The confounds that an audit asks about: where each shows, what matters, what to do about it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tonewood.audit.classifiers import (
    FeatureTable,
    leave_one_session_out,
    run_audit_tests,
    spectrum_baseline,
)
from tonewood.data.dataset import AuditFeatures
from tonewood.data.loading import AuditProgress, DatasetSide, survey_sides
from tonewood.dsp.artifact_detectors import THIRD_OCTAVES_HZ
from tonewood.model.card import AuditFinding, ConfoundAudit, format_accuracy
from tonewood.settings import ModelSettings
from tonewood.utils.arrays import FloatArray

_FLOOR_OCTAVES_HZ = (125, 250, 500, 1_000, 2_000, 4_000)
_HUM_FLOOR_DB = 8.0  # what the tallest of six multiples stands out by where there is only noise
_OFFSET_FLOOR_DB = -80.0
_ANALYSIS_LIMIT_HZ = 8_000.0


class ConfoundFeature(NamedTuple):
    """One number of a recording.

    Parameters
    ----------
    label : str
        With its unit.
    min_difference : float
        Smallest difference of consequence, in the unit, or in octaves if `log_scale`.
    extract : callable
        The number, in the unit, or None where unknown.
    log_scale : bool
        Compared by ratio.
    """

    label: str
    min_difference: float
    extract: Callable[[AuditFeatures], float | None]
    log_scale: bool = False


class Confound(NamedTuple):
    """What may tell two folders apart although it is not the instrument.

    Parameters
    ----------
    remedy : str
        What to do about it, as a clause.
    inaudible_reason : str
        Why the scorer does not hear it; empty if it may.
    fix : str
        What `train --fix` calls its cure; empty if there is none.
    """

    name: str
    features: tuple[ConfoundFeature, ...]
    remedy: str
    inaudible_reason: str = ""
    fix: str = ""


def _noise_color(octave: float) -> Callable[[AuditFeatures], float | None]:
    """Level of one octave of the floor against the mean of all octaves compared, dB."""

    def of(it: AuditFeatures) -> float | None:
        if it.traces.floor_db is None:
            return None
        levels = [_octave_level(it.traces.floor_bands_db, hz) for hz in _FLOOR_OCTAVES_HZ]
        return _octave_level(it.traces.floor_bands_db, octave) - float(np.mean(levels))

    return of


def _octave_level(bands_db: FloatArray, octave: float) -> float:
    third = np.abs(np.log2(THIRD_OCTAVES_HZ / octave)) < 0.4
    return float(10 * np.log10(np.nansum(10 ** (bands_db[third] / 10)) + 1e-16))


def _decay_time(number: int) -> Callable[[AuditFeatures], float | None]:
    return lambda it: it.traces.decay_s[number] if it.traces.decay_s else None


def _hum_level(number: int) -> Callable[[AuditFeatures], float | None]:
    return lambda it: max(_HUM_FLOOR_DB, it.traces.hum_db[number]) if it.traces.hum_db else None


CONFOUNDS = (
    Confound(
        "level",
        (ConfoundFeature("loudness, LUFS", 0.75, lambda it: it.traces.loudness),),
        "match the levels, or train with --fix level",
        inaudible_reason="levels count relative to the clip's own",
        fix="level",
    ),
    Confound(
        "noise floor",
        (
            ConfoundFeature(
                "floor against loudness, dB",
                1.5,
                lambda it: _level_difference(it.traces.floor_db, it.traces.loudness),
            ),
        ),
        "record both with the same gain and microphone, or train with --fix noise",
        fix="noise",
    ),
    Confound(
        "noise colour",
        tuple(ConfoundFeature(f"floor at {hz} Hz, dB", 2.0, _noise_color(hz)) for hz in _FLOOR_OCTAVES_HZ),
        "record some seconds of silence in one place for both, or train with --fix noise",
        fix="noise",
    ),
    Confound(
        "silence",
        (
            ConfoundFeature("before the first sound, s", 0.25, lambda it: it.traces.lead_s),
            ConfoundFeature("after the last sound, s", 0.25, lambda it: it.traces.tail_s),
            ConfoundFeature("silent frames, %", 5.0, lambda it: 100 * it.traces.silent),
            ConfoundFeature("frames gated to nothing, %", 2.0, lambda it: 100 * it.traces.gated),
        ),
        "trim both sides alike, and leave gates off",
    ),
    Confound(
        "bandwidth",
        (ConfoundFeature("cut-off, Hz", 0.1, lambda it: it.traces.cutoff_hz, log_scale=True),),
        "export both from the originals, or train with --fix bandwidth",
        fix="bandwidth",
    ),
    Confound(
        "codec",
        (
            ConfoundFeature(
                "holes above 4 kHz, %", 1.0, lambda it: 100 * it.traces.holes + 0.05, log_scale=True
            ),
        ),
        "use recordings that no lossy codec or denoiser has touched",
    ),
    Confound(
        "hum",
        (
            ConfoundFeature("line on 50 Hz multiples, dB", 2.0, _hum_level(0)),
            ConfoundFeature("line on 60 Hz multiples, dB", 2.0, _hum_level(1)),
        ),
        "record again without the hum, or notch it out of both sides",
    ),
    Confound(
        "offset",
        (ConfoundFeature("offset, dBFS", 6.0, lambda it: max(_OFFSET_FLOOR_DB, it.traces.offset_db)),),
        "take the constant part off both sides",
        inaudible_reason="nothing below 40 Hz is looked at",
    ),
    Confound(
        "clipping",
        (ConfoundFeature("flat tops a minute", 1.0, lambda it: 1 + it.traces.clips, log_scale=True),),
        "leave out clipped takes, or record them again",
    ),
    Confound(
        "reverberation",
        (
            ConfoundFeature("tail, 500 Hz to 2 kHz, s", 0.1, _decay_time(0), log_scale=True),
            ConfoundFeature("tail, 2 to 5 kHz, s", 0.1, _decay_time(1), log_scale=True),
        ),
        "record both in one room at one distance; if you did, it is how the instruments ring on",
    ),
    Confound(
        "sample rate",
        (ConfoundFeature("rate, Hz", 0.05, lambda it: it.traces.rate, log_scale=True),),
        "export both at one rate",
    ),
    Confound(
        "stereo width",
        (ConfoundFeature("sides against middle, dB", 2.0, lambda it: it.traces.width_db),),
        "record both with one arrangement of microphones",
        inaudible_reason="channels are mixed to one",
    ),
    Confound(
        "duration",
        (ConfoundFeature("duration, s", 0.25, lambda it: it.traces.seconds, log_scale=True),),
        "see whether the two folders were made in the same way",
        inaudible_reason="it looks at three seconds at a time",
    ),
    Confound(
        "file format",
        (
            ConfoundFeature("bits", 1.0, lambda it: it.bits),
            ConfoundFeature("lossy", 0.25, lambda it: float(it.lossy)),
        ),
        "export both in one lossless format from the originals",
        inaudible_reason="only what it did to the sound is heard",
    ),
)


def feature_tables(evidence: Sequence[AuditFeatures]) -> list[FeatureTable]:
    """What each confound has to go on, for recordings in this order."""
    return [
        FeatureTable(
            confound.name,
            np.stack([_feature_column(feature, evidence) for feature in confound.features], axis=1),
            np.array([feature.min_difference for feature in confound.features]),
        )
        for confound in CONFOUNDS
    ]


def with_medians(
    finding: AuditFinding, confound: Confound, sides: Sequence[Sequence[AuditFeatures]]
) -> AuditFinding:
    """A finding with the medians of both folders; what is not heard is no more than a warning."""
    heard = not why_inaudible(confound, sides)
    verdict = finding.verdict
    return finding.model_copy(
        update={
            "reference": tuple(feature_median(feature, sides[0]) for feature in confound.features),
            "source": tuple(feature_median(feature, sides[1]) for feature in confound.features),
            "heard": heard,
            "verdict": "beware" if verdict == "confounded" and not heard else verdict,
        }
    )


def why_inaudible(confound: Confound, sides: Sequence[Sequence[AuditFeatures]]) -> str:
    """Why the scorer does not hear a confound; empty if it may.

    Cut-offs and rates matter only where they reach below what is analysed.
    """
    lowest = {
        "bandwidth": lambda it: it.traces.cutoff_hz,
        "sample rate": lambda it: it.traces.rate / 2,
    }.get(confound.name)
    if lowest and min(float(np.median([lowest(it) for it in side])) for side in sides) >= (
        _ANALYSIS_LIMIT_HZ
    ):
        return "nothing above 8 kHz is looked at"
    return confound.inaudible_reason


def feature_median(feature: ConfoundFeature, evidence: Sequence[AuditFeatures]) -> float | None:
    """Median of a feature over those recordings that have it."""
    known = [value for it in evidence if (value := feature.extract(it)) is not None]
    return float(np.median(known)) if known else None


def feature_values(feature: ConfoundFeature, evidence: Sequence[AuditFeatures]) -> FloatArray:
    """A feature [recording] in its own unit; NaN where unknown."""
    found = [feature.extract(it) for it in evidence]
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def _feature_column(feature: ConfoundFeature, evidence: Sequence[AuditFeatures]) -> FloatArray:
    column = feature_values(feature, evidence)
    return np.log2(np.maximum(column, 1e-9)) if feature.log_scale else column


def _level_difference(level: float | None, loudness: float) -> float | None:
    return None if level is None else level - loudness


@dataclass(frozen=True, eq=False)
class AuditResult:
    """An audit, and what it rests on."""

    audit: ConfoundAudit
    folders: tuple[Path, Path]  # reference and source
    reference: list[AuditFeatures]
    source: list[AuditFeatures]


def audit_folders(
    reference: Path, source: Path, settings: ModelSettings
) -> Iterator[AuditProgress | AuditResult]:
    """Ask what tells two folders apart; yields its progress and, last, the `AuditResult`.

    Parameters
    ----------
    reference, source : Path
        Folders; what they hold need not correspond.
    settings : ModelSettings
        How `train` would look at them.

    Raises
    ------
    FolderError, AudioError
        A folder or a recording in it cannot be used; it is named.
    """
    heard = yield from survey_sides([reference], source, settings)
    rng = np.random.default_rng(settings.training.seed)
    yield AuditResult(
        analyse_confounds(heard["reference"], heard["source"], rng), (reference, source), **heard
    )


def analyse_confounds(
    reference: Sequence[AuditFeatures], source: Sequence[AuditFeatures], rng: np.random.Generator
) -> ConfoundAudit:
    """Ask all questions of both folders' evidence."""
    both = [*reference, *source]
    is_source = np.arange(len(both)) >= len(reference)
    sides = (reference, source)
    findings = run_audit_tests(feature_tables(both), is_source, rng)
    spectra = [it.spectra for it in both]
    return ConfoundAudit(
        recordings=(len(reference), len(source)),
        findings=tuple(
            with_medians(finding, confound, sides)
            for finding, confound in zip(findings, CONFOUNDS, strict=True)
        ),
        spectrum=spectrum_baseline(spectra, is_source, rng),
        sessions=leave_one_session_out(spectra, is_source, [it.session for it in both]),
    )


def confound_warnings(audit: ConfoundAudit) -> list[str]:
    """A line for each confounded item: how well it tells, and what to do."""
    return [
        f"confounded: {finding.name} alone tells {format_accuracy(finding.accuracy)} of the takes: "
        f"{confound.remedy}"
        for finding, confound in zip(audit.findings, CONFOUNDS, strict=True)
        if finding.verdict == "confounded" and finding.accuracy is not None
    ]


def format_remedy(finding: AuditFinding, confound: Confound) -> str:
    """What to do about a confound, and whether it matters to the scorer."""
    if finding.heard:
        return confound.remedy
    why = confound.inaudible_reason or "nothing above 8 kHz is looked at"
    return f"{confound.remedy} (the scorer does not hear it: {why})"


def format_medians(finding: AuditFinding, side: DatasetSide) -> str:
    """Medians of a finding's features on one side, as text."""
    return " / ".join(map(_format_feature_value, getattr(finding, side)))


def _format_feature_value(value: float | None) -> str:
    if value is None:
        return "-"
    # Rounding may leave a minus before nought.
    return f"{value:.0f}" if abs(value) >= 100 else f"{round(value, 2) + 0.0:.3g}"
