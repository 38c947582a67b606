"""Tasks of a batch: explain one recording, or measure one pair."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tonewood.audio_io.recording import file_sha256
from tonewood.batch.results_table import ResultRow
from tonewood.batch.tasks import ItemResult
from tonewood.enhancement.output_files import FileJob
from tonewood.errors import printable
from tonewood.evaluation.pipeline import (
    METHOD_TONEWOOD,
    METHOD_UNTOUCHED,
    MeasureProgress,
    PairFiles,
    PairResult,
    measure_pair,
)
from tonewood.explanation.files import ExplainedFile, ExplainOptions, SkippedExplanation, explain_file
from tonewood.explanation.pipeline import ExplanationFigures
from tonewood.model.model import Model

ExplainResult = tuple[ExplainedFile | SkippedExplanation, ExplanationFigures]


@dataclass(frozen=True)
class ExplainTask:
    """Explain recordings; arguments as of `explain_file`.

    `out` is the folder of the pages.
    """

    options: ExplainOptions
    out: Path
    overwrite: bool = False
    seed: int = 0
    name: Literal["explain"] = "explain"

    def settings_key(self, model: Model) -> dict[str, Any]:
        """Return options and seed."""
        return {**self.options._asdict(), "seed": self.seed}

    def find_finished(self, item: FileJob, model: Model, previous: ResultRow | None) -> ItemResult | None:
        """Return the figures of `previous` if it is of the same bytes and its page exists."""
        source, page = item.input, item.output
        assert isinstance(source, Path)
        assert isinstance(page, Path)
        # The table has the figures of the summary page, but the page itself may have been removed.
        if previous is None or not page.exists() or previous.sha256 != file_sha256(source):
            return None
        figures = ExplanationFigures.model_validate(json.loads(previous.details or "{}")["figures"])
        return ItemResult(previous, (SkippedExplanation(source, page), figures), from_earlier_run=True)

    def run(self, item: FileJob, model: Model, previous: ResultRow | None) -> Iterator[ItemResult]:
        """Explain a recording, unless an earlier run did."""
        if (finished := self.find_finished(item, model, previous)) is not None:
            yield finished
            return
        source, page = item.input, item.output
        assert isinstance(source, Path)
        assert isinstance(page, Path)
        result = explain_file(source, page, model, self.options, overwrite=self.overwrite, seed=self.seed)
        explanation = result.explanation
        hop_seconds = model.settings.spectrum.hop / model.settings.spectrum.rate
        figures = explanation.figures(printable(_page_title(page, self.out)), hop_seconds)
        row = ResultRow(
            path=str(source),
            output=str(page),
            sha256=file_sha256(source),
            seconds=explanation.evidence.shape[1] * hop_seconds,
            scorer=explanation.score,
            details=json.dumps({"figures": figures.model_dump(mode="json"), **explanation.summary}),
        )
        # Arrays as long as the recording stay with the worker: sending them would cost more than they help.
        summary = replace(explanation, evidence=explanation.evidence[:, :0].copy(), parts=None)
        yield ItemResult(row, (replace(result, explanation=summary), figures))


def _page_title(page: Path, out: Path) -> Path:
    """Return a page's path below the output folder, or its name, without suffix."""
    # The output is a single page if it was named as a file.
    inside = page.relative_to(out) if page != out and page.is_relative_to(out) else page
    return inside.with_suffix("")


class PairItem(NamedTuple):
    """A pair to measure; `keep_audio` keeps its audio for the report."""

    input: Path
    files: PairFiles
    keep_audio: bool = False
    output: None = None


@dataclass(frozen=True)
class MeasureTask:
    """Measure every method on pairs; arguments as of `measure_pair`."""

    seed: int = 0
    name: Literal["evaluate"] = "evaluate"

    def settings_key(self, model: Model) -> dict[str, Any]:
        """Return the seed."""
        return {"seed": self.seed}

    def find_finished(self, item: PairItem, model: Model, previous: ResultRow | None) -> ItemResult | None:
        """Return the measurements of `previous` if both files are the same and no audio is kept."""
        # The table does not contain audio, so a pair whose audio is needed is measured again.
        if previous is None or item.keep_audio or previous.sha256 != file_sha256(item.files.source):
            return None
        summary = json.loads(previous.details or "{}")
        # The row has one hash only, that of the source; the reference's is among the details.
        if summary.get("reference_sha256") != file_sha256(item.files.reference):
            return None
        return ItemResult(previous, PairResult.from_summary(item.files, summary), from_earlier_run=True)

    def run(
        self, item: PairItem, model: Model, previous: ResultRow | None
    ) -> Iterator[MeasureProgress | ItemResult]:
        """Measure a pair, unless an earlier run did."""
        if (finished := self.find_finished(item, model, previous)) is not None:
            yield finished
            return
        digest, reference_digest = file_sha256(item.files.source), file_sha256(item.files.reference)
        for event in measure_pair(item.files, model, self.seed, item.keep_audio):
            if isinstance(event, PairResult):
                pair = event
            else:
                yield event
        before, after = pair.methods[METHOD_UNTOUCHED], pair.methods[METHOD_TONEWOOD]
        row = ResultRow(
            path=str(item.input),
            sha256=digest,
            seconds=pair.seconds,
            scorer=before.scorer,
            judge=before.judge,
            scorer_after=after.scorer,
            judge_after=after.judge,
            details=json.dumps({**pair.summary, "reference_sha256": reference_digest}),
        )
        yield ItemResult(row, pair)
