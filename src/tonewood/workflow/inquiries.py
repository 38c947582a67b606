"""Explaining a recording and measuring a pair, as units of an archive."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tonewood.errors import printable
from tonewood.files.audio import file_sha256
from tonewood.files.modelfile import Model
from tonewood.files.results import ResultRow
from tonewood.workflow import explain_files
from tonewood.workflow.evaluate import PairResult, measure_pair
from tonewood.workflow.explain import ExplanationFigures
from tonewood.workflow.explain_files import SkippedExplanation, ExplainOptions, ExplainedFile
from tonewood.workflow.layout import FileJob
from tonewood.workflow.pairs import METHOD_TONEWOOD, METHOD_UNTOUCHED, PairFiles
from tonewood.workflow.units import ItemResult, WorkItem


@dataclass(frozen=True)
class ExplainTask:
    """Explain; arguments as of `explain_files.explain_file`.

    Parameters
    ----------
    out : Path
        Folder of the pages.
    """

    options: ExplainOptions
    out: Path
    overwrite: bool = False
    seed: int = 0
    name: Literal["explain"] = "explain"

    @property
    def settings_key(self) -> dict[str, Any]:
        """What was asked."""
        return {**self.options._asdict(), "seed": self.seed}

    def run(self, item: WorkItem, model: Model, previous: ResultRow | None) -> ItemResult:
        """Explain a recording; with a table, what an earlier run explained stays."""
        assert isinstance(item.input, Path)
        assert isinstance(item.output, Path)
        if previous is not None and item.output.exists() and previous.sha256 == file_sha256(item.input):
            return ItemResult(previous, (SkippedExplanation(item.input, item.output), _previous_figures(previous)))
        job = FileJob(item.input, item.output)
        done = explain_files.explain_file(
            job, model, self.options, overwrite=self.overwrite, seed=self.seed
        )
        spectrum = model.settings.spectrum
        found = done.explanation
        name = printable(_page_title(item.output, self.out))
        figures = found.figures(name, spectrum.hop / spectrum.rate)
        row = ResultRow(
            path=str(item.input),
            output=str(item.output),
            sha256=file_sha256(item.input),
            seconds=found.evidence.shape[1] * spectrum.hop / spectrum.rate,
            scorer=found.score,
            details=json.dumps({"figures": figures.model_dump(mode="json"), **found.summary}),
        )
        # What is as long as the recording stays with the worker.
        short = replace(found, evidence=found.evidence[:, :0].clone(), parts=None)
        return ItemResult(row, (replace(done, explanation=short), figures))


def _page_title(page: Path, out: Path) -> Path:
    """What a page is called in a table: where it lies below the folder, or its name."""
    inside = page.relative_to(out) if page != out and page.is_relative_to(out) else page
    return inside.with_suffix("")


def _previous_figures(row: ResultRow) -> ExplanationFigures:
    figures: ExplanationFigures = ExplanationFigures.model_validate(json.loads(row.details or "{}")["figures"])
    return figures


ExplainResult = tuple[ExplainedFile | SkippedExplanation, ExplanationFigures]


class PairItem(NamedTuple):
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
    def settings_key(self) -> dict[str, Any]:
        """What is random, and how."""
        return {"seed": self.seed}

    def run(self, item: PairItem, model: Model, previous: ResultRow | None) -> ItemResult:
        """Measure a pair; with a table, what an earlier run measured stays."""
        digest, other = file_sha256(item.files.source), file_sha256(item.files.reference)
        if previous is not None and previous.sha256 == digest and not item.keep:
            told = json.loads(previous.details or "{}")
            if told.get("reference_sha256") == other:
                return ItemResult(previous, PairResult.from_summary(item.files, told))
        piece = measure_pair(item.files, model, self.seed, self.device, item.keep)
        before, after = piece.methods[METHOD_UNTOUCHED], piece.methods[METHOD_TONEWOOD]
        row = ResultRow(
            path=str(item.input),
            sha256=digest,
            seconds=piece.seconds,
            scorer=before.scorer,
            judge=before.judge,
            scorer_after=after.scorer,
            judge_after=after.judge,
            details=json.dumps({**piece.summary, "reference_sha256": other}),
        )
        return ItemResult(row, piece)
