"""Two folders → what tells them apart besides the instrument (paper IV: the room was learnt)."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tonewood.errors import CallError, shown
from tonewood.files import folders
from tonewood.files.folders import Evidence, Surveyed
from tonewood.files.items import Place
from tonewood.scoring.audit import ask, baseline, unheard_sessions
from tonewood.scoring.findings import Audit, Finding, percent
from tonewood.settings import ModelSettings
from tonewood.workflow.confounds import CONFOUNDS, Confound, questions, told

Side = Literal["reference", "source"]


class Listened(NamedTuple):
    """A recording of one side was read for its traces."""

    side: Side
    surveyed: Surveyed


@dataclass(frozen=True, eq=False)
class Audited:
    """An audit, and what it rests on."""

    audit: Audit
    folders: tuple[Path, Path]  # reference and source
    reference: list[Evidence]
    source: list[Evidence]


def audit(reference: Path, source: Path, settings: ModelSettings) -> Iterator[Listened | Audited]:
    """Ask what tells two folders apart; yields its progress and, last, the `Audited`.

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
    heard = yield from listen([reference], source, settings)
    rng = np.random.default_rng(settings.training.seed)
    yield Audited(examine(heard["reference"], heard["source"], rng), (reference, source), **heard)


def listen(
    references: Sequence[Place], source: Place, settings: ModelSettings
) -> Generator[Listened, None, dict[Side, list[Evidence]]]:
    """Read both sides' folders for their traces, yielding every recording; returns the evidence."""
    check_distinct(*references, source)
    heard: dict[Side, list[Evidence]] = {"reference": [], "source": []}
    sides: list[tuple[Side, Place]] = [("reference", folder) for folder in references]
    for side, folder in (*sides, ("source", source)):
        for surveyed in folders.survey(folder, settings):
            heard[side].append(surveyed.evidence)
            yield Listened(side, surveyed)
    folders.check_apart(heard["reference"], heard["source"])
    return heard


def examine(
    reference: Sequence[Evidence], source: Sequence[Evidence], rng: np.random.Generator
) -> Audit:
    """Ask all questions of both folders' evidence."""
    both = [*reference, *source]
    is_source = np.arange(len(both)) >= len(reference)
    sides = (reference, source)
    findings = ask(questions(both), is_source, rng)
    spectra = [it.spectra for it in both]
    return Audit(
        recordings=(len(reference), len(source)),
        findings=tuple(
            told(finding, confound, sides)
            for finding, confound in zip(findings, CONFOUNDS, strict=True)
        ),
        spectrum=baseline(spectra, is_source, rng),
        sessions=unheard_sessions(spectra, is_source, [it.session for it in both]),
    )


def check_distinct(*sides: Place) -> None:
    """Raise CallError if two of the folders are one; the last is the source."""
    given_folders = [side for side in sides if isinstance(side, Path)]
    if len(given_folders) < len(sides):
        return  # of one list, which tells its sides apart
    *references, source = (side.resolve() for side in given_folders)
    for number, (given, reference) in enumerate(zip(given_folders, references, strict=False)):
        if reference == source:
            raise CallError(f"{shown(given)} is given as both folders: name two different ones")
        if reference in references[:number]:
            raise CallError(f"{shown(given)} is given twice as a reference: give it one weight")


def warnings(found: Audit) -> list[str]:
    """A line for each confounded item: how well it tells, and what to do."""
    return [
        f"confounded: {finding.name} alone tells {percent(finding.accuracy)} of the takes: "
        f"{confound.remedy}"
        for finding, confound in zip(found.findings, CONFOUNDS, strict=True)
        if finding.verdict == "confounded" and finding.accuracy is not None
    ]


def advice(finding: Finding, confound: Confound) -> str:
    """What to do about a confound, and whether it matters to the scorer."""
    if finding.heard:
        return confound.remedy
    why = confound.unheard or "nothing above 8 kHz is looked at"
    return f"{confound.remedy} (the scorer does not hear it: {why})"


def medians(finding: Finding, side: Side) -> str:
    """Medians of a finding's features on one side, as text."""
    return " / ".join(map(_figure, getattr(finding, side)))


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    # Rounding may leave a minus before nought.
    return f"{value:.0f}" if abs(value) >= 100 else f"{round(value, 2) + 0.0:.3g}"
