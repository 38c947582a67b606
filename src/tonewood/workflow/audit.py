"""Two folders → what tells them apart besides the instrument (paper IV: the room was learnt)."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tonewood.errors import CallError, printable
from tonewood.files import folders
from tonewood.files.folders import AuditFeatures, SurveyProgress
from tonewood.files.items import FolderOrManifest
from tonewood.scoring.audit import run_audit_tests, spectrum_baseline, leave_one_session_out
from tonewood.scoring.findings import ConfoundAudit, AuditFinding, format_accuracy
from tonewood.settings import ModelSettings
from tonewood.workflow.confounds import CONFOUNDS, Confound, feature_tables, with_medians

DatasetSide = Literal["reference", "source"]


class AuditProgress(NamedTuple):
    """A recording of one side was read for its traces."""

    side: DatasetSide
    progress: SurveyProgress


@dataclass(frozen=True, eq=False)
class AuditResult:
    """An audit, and what it rests on."""

    audit: ConfoundAudit
    folders: tuple[Path, Path]  # reference and source
    reference: list[AuditFeatures]
    source: list[AuditFeatures]


def audit_folders(reference: Path, source: Path, settings: ModelSettings) -> Iterator[AuditProgress | AuditResult]:
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
    yield AuditResult(analyse_confounds(heard["reference"], heard["source"], rng), (reference, source), **heard)


def survey_sides(
    references: Sequence[FolderOrManifest], source: FolderOrManifest, settings: ModelSettings
) -> Generator[AuditProgress, None, dict[DatasetSide, list[AuditFeatures]]]:
    """Read both sides' folders for their traces, yielding every recording; returns the evidence."""
    check_distinct_folders(*references, source)
    heard: dict[DatasetSide, list[AuditFeatures]] = {"reference": [], "source": []}
    sides: list[tuple[DatasetSide, FolderOrManifest]] = [("reference", folder) for folder in references]
    for side, folder in (*sides, ("source", source)):
        for surveyed in folders.survey_dataset(folder, settings):
            heard[side].append(surveyed.audit_features)
            yield AuditProgress(side, surveyed)
    folders.check_disjoint(heard["reference"], heard["source"])
    return heard


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


def check_distinct_folders(*sides: FolderOrManifest) -> None:
    """Raise CallError if two of the folders are one; the last is the source."""
    given_folders = [side for side in sides if isinstance(side, Path)]
    if len(given_folders) < len(sides):
        return  # of one list, which tells its sides apart
    *references, source = (side.resolve() for side in given_folders)
    for number, (given, reference) in enumerate(zip(given_folders, references, strict=False)):
        if reference == source:
            raise CallError(f"{printable(given)} is given as both folders: name two different ones")
        if reference in references[:number]:
            raise CallError(f"{printable(given)} is given twice as a reference: give it one weight")


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
