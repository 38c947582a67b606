"""Explaining a recording and measuring a pair, as units of an archive."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tonewood.errors import shown
from tonewood.files.audio import sha256
from tonewood.files.modelfile import Model
from tonewood.files.results import Row
from tonewood.workflow import explain_files
from tonewood.workflow.evaluate import Piece, measured
from tonewood.workflow.explain import Figures
from tonewood.workflow.explain_files import Already, Asked, Explained
from tonewood.workflow.layout import Job
from tonewood.workflow.pairs import TONEWOOD, UNTOUCHED, PairFiles
from tonewood.workflow.units import Done, Unit


@dataclass(frozen=True)
class ExplainTask:
    """Explain; arguments as of `explain_files.explain_file`.

    Parameters
    ----------
    out : Path
        Folder of the pages.
    """

    asked: Asked
    out: Path
    overwrite: bool = False
    seed: int = 0
    name: Literal["explain"] = "explain"

    @property
    def told(self) -> dict[str, Any]:
        """What was asked."""
        return {**self.asked._asdict(), "seed": self.seed}

    def do(self, unit: Unit, model: Model, known: Row | None) -> Done:
        """Explain a recording; with a table, what an earlier run explained stays."""
        assert isinstance(unit.input, Path)
        assert isinstance(unit.output, Path)
        if known is not None and unit.output.exists() and known.sha256 == sha256(unit.input):
            return Done(known, (Already(unit.input, unit.output), _figures(known)))
        job = Job(unit.input, unit.output)
        done = explain_files.explain_file(
            job, model, self.asked, overwrite=self.overwrite, seed=self.seed
        )
        spectrum = model.settings.spectrum
        found = done.explanation
        name = shown(_called(unit.output, self.out))
        figures = found.figures(name, spectrum.hop / spectrum.rate)
        row = Row(
            path=str(unit.input),
            output=str(unit.output),
            sha256=sha256(unit.input),
            seconds=found.evidence.shape[1] * spectrum.hop / spectrum.rate,
            scorer=found.score,
            details=json.dumps({"figures": figures.model_dump(mode="json"), **found.summary}),
        )
        # What is as long as the recording stays with the worker.
        short = replace(found, evidence=found.evidence[:, :0].clone(), parts=None)
        return Done(row, (replace(done, explanation=short), figures))


def _called(page: Path, out: Path) -> Path:
    """What a page is called in a table: where it lies below the folder, or its name."""
    inside = page.relative_to(out) if page != out and page.is_relative_to(out) else page
    return inside.with_suffix("")


def _figures(row: Row) -> Figures:
    figures: Figures = Figures.model_validate(json.loads(row.details or "{}")["figures"])
    return figures


Told = tuple[Explained | Already, Figures]


class PairUnit(NamedTuple):
    """A pair to measure."""

    input: Path
    files: PairFiles
    keep: bool = False
    output: None = None


@dataclass(frozen=True)
class MeasureTask:
    """Measure every method on a pair; arguments as of `evaluate.evaluate`."""

    seed: int = 0
    device: str = "cpu"
    name: Literal["evaluate"] = "evaluate"

    @property
    def told(self) -> dict[str, Any]:
        """What is random, and how."""
        return {"seed": self.seed}

    def do(self, unit: PairUnit, model: Model, known: Row | None) -> Done:
        """Measure a pair; with a table, what an earlier run measured stays."""
        digest, other = sha256(unit.files.source), sha256(unit.files.reference)
        if known is not None and known.sha256 == digest and not unit.keep:
            told = json.loads(known.details or "{}")
            if told.get("reference_sha256") == other:
                return Done(known, Piece.told(unit.files, told))
        piece = measured(unit.files, model, self.seed, self.device, unit.keep)
        before, after = piece.rows[UNTOUCHED], piece.rows[TONEWOOD]
        row = Row(
            path=str(unit.input),
            sha256=digest,
            seconds=piece.seconds,
            scorer=before.scorer,
            judge=before.judge,
            scorer_after=after.scorer,
            judge_after=after.judge,
            details=json.dumps({**piece.summary, "reference_sha256": other}),
        )
        return Done(row, piece)
