"""What one worker does with one recording: a pure function of it, the model and the settings.

Explaining a recording and measuring a pair, as units of an archive.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, Protocol

from tonewood.audio_io import remote
from tonewood.audio_io.reader import AudioReader
from tonewood.audio_io.recording import file_sha256
from tonewood.audio_io.remote import Location
from tonewood.batch import enhance_file
from tonewood.batch.enhance_file import FileEnhanced, FileScored
from tonewood.batch.results_table import ResultRow
from tonewood.enhancement import plotting
from tonewood.enhancement import recipe as recipes
from tonewood.enhancement.analysis import Score, score_source
from tonewood.enhancement.output_files import FileFailure, FileJob, OutputKey
from tonewood.enhancement.prior_mask import require_predictor
from tonewood.enhancement.recipe import Recipe
from tonewood.errors import OutputError, RecipeError, TonewoodError, printable
from tonewood.evaluation.pairs import METHOD_TONEWOOD, METHOD_UNTOUCHED, PairFiles
from tonewood.evaluation.pipeline import PairResult, measure_pair
from tonewood.explanation import files as explain_files
from tonewood.explanation.files import ExplainedFile, ExplainOptions, SkippedExplanation
from tonewood.explanation.pipeline import ExplanationFigures
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings


class WorkItem(NamedTuple):
    """A recording, and what it becomes if anything."""

    input: Location
    output: Location | None = None


class ItemResult(NamedTuple):
    """What became of a unit: a row for the table, and what a front end tells."""

    row: ResultRow
    event: Any


class Task(Protocol):
    """Work on units."""

    @property
    def name(self) -> str:
        """The command's."""
        ...

    @property
    def settings_key(self) -> dict[str, Any]:
        """Settings that decide what is found, as JSON."""
        ...

    def run(self, item: Any, model: Model, previous: ResultRow | None) -> ItemResult:  # noqa: ANN401
        """Do a unit; `previous` is what an earlier run of the same model and settings found."""
        ...


def run_guarded(task: Task, item: Any, model: Model, previous: ResultRow | None) -> ItemResult:  # noqa: ANN401
    """Do a unit; what goes wrong becomes the row's error, so that the others go on."""
    began = time.perf_counter()
    try:
        done = task.run(item, model, previous)
        return done._replace(row=replace(done.row, took=round(time.perf_counter() - began, 3)))
    except TonewoodError as error:
        return failed_item(item, error, time.perf_counter() - began)
    except Exception as error:
        why = " ".join(str(error).split())
        known_as = f"{printable(str(item.input))} failed for no reason foreseen here"
        told = TonewoodError(f"{known_as} ({type(error).__name__}: {why}): please report it")
        return failed_item(item, told, time.perf_counter() - began)


def failed_item(item: Any, error: TonewoodError, took: float = 0.0) -> ItemResult:  # noqa: ANN401
    """A unit that could not be done."""
    output = None if item.output is None else str(item.output)
    digest = None
    if isinstance(item.input, Path):
        with suppress(TonewoodError):
            digest = file_sha256(item.input)
    row = ResultRow(str(item.input), output, digest, error=str(error), took=round(took, 3))
    return ItemResult(row, FileFailure(item.input, error))


@dataclass(frozen=True)
class EnhanceTask:
    """Enhance; arguments as of `local_batch.enhance_files`."""

    settings: EnhanceSettings
    plot: bool = False
    overwrite: bool = False
    device: str = "cpu"
    name: Literal["enhance"] = "enhance"

    @property
    def settings_key(self) -> dict[str, Any]:
        """The settings; what the picture and the device are decides no figure."""
        return self.settings.model_dump(mode="json")

    def check_requirements(self, model: Model) -> None:
        """Raise before the work what would be raised after it."""
        if self.plot:
            plotting.check_matplotlib()
        if self.settings.prior.kind == "predicted":
            require_predictor(model)

    def run(self, item: WorkItem, model: Model, previous: ResultRow | None) -> ItemResult:
        """Enhance a recording; what it made before is known from its recipe."""
        assert item.output is not None
        with remote.local_copy(item.input) as path, relabel_errors(item.input, path):
            if isinstance(item.output, Path):
                done = self._enhance_local(FileJob(path, item.output), model)
            else:
                done = self._enhance_to_url(path, item.output, model)
        done = replace(done, input=item.input)
        return ItemResult(_enhancement_row(done), done)

    def _enhance_local(self, job: FileJob, model: Model) -> FileEnhanced:
        for event in enhance_file.enhance_file(
            job, model, self.settings, self.plot, self.overwrite, self.device
        ):
            if not isinstance(event, SearchStep):
                done = event
        return done

    def _enhance_to_url(self, path: Path, url: str, model: Model) -> FileEnhanced:
        """Make the outputs here, then put them there, the sound last."""
        side = url + recipes.RECIPE_SUFFIX
        drawn = f"{url}.png" if self.plot else None
        if not self.overwrite:
            wanted = OutputKey(file_sha256(path), model.digest, self.settings)
            if (recipe := _find_uploaded(url, side, drawn, wanted)) is not None:
                return enhance_file.result_from_recipe(recipe, path, url, side, drawn)
        with TemporaryDirectory(prefix="tonewood-") as folder:
            # Its own folder: the input may be a copy in another, or be named like the output.
            local = Path(folder) / remote.url_name(url)
            done = self._enhance_local(FileJob(path, local), model)
            for made, there in ((done.recipe, side), (done.picture, drawn), (local, url)):
                if made is not None and there is not None:
                    remote.upload_file(Path(made), there, overwrite=self.overwrite)
        return replace(done, output=url, recipe=side, picture=drawn)


def _find_uploaded(url: str, recipe_url: str, picture_url: str | None, key: OutputKey) -> Recipe | None:
    """Recipe of what an earlier run put at a URL; None if nothing is there.

    Raises
    ------
    OutputError
        Something else is there.
    """
    content = remote.read_url_bytes(recipe_url)
    try:
        recipe = None if content is None else recipes.parse_recipe(content, recipe_url)
    except RecipeError:
        recipe = None
    ours = recipe is not None and key.matches(recipe)
    there = remote.url_exists(url)
    if there and ours and (picture_url is None or remote.url_exists(picture_url)):
        return recipe
    if not there and ours:  # a run was killed between the two
        for left in filter(None, (picture_url, recipe_url)):
            if remote.url_exists(left):
                remote.remove_url(left)
        return None
    for taken, name in ((there, url), (content is not None, recipe_url)):
        if taken:
            raise OutputError(f"{printable(name)} exists: name another output or pass --overwrite")
    return None


def _enhancement_row(result: FileEnhanced) -> ResultRow:
    found = result.certificate
    return ResultRow(
        path=str(result.input),
        output=str(result.output),
        sha256=result.sha256,
        seconds=result.duration,
        scorer=found.scorer.before,
        scorer_after=found.scorer.after,
        judge=found.judge.before if found.judge else None,
        judge_after=found.judge.after if found.judge else None,
        verdict=found.verdict,
        certificate=found.model_dump_json(),
        details=json.dumps({"already": result.from_earlier_run, "warnings": list(result.warnings)}),
    )


@dataclass(frozen=True)
class ScoreTask:
    """Score."""

    name: Literal["score"] = "score"

    @property
    def settings_key(self) -> dict[str, Any]:
        """Nothing decides scores but the model."""
        return {}

    def run(self, item: WorkItem, model: Model, previous: ResultRow | None) -> ItemResult:
        """Score a recording."""
        with remote.local_copy(item.input) as path:
            digest = file_sha256(path)
            if previous is not None and previous.sha256 == digest and previous.scorer is not None:
                windows = tuple(json.loads(previous.details or "[]"))
                return ItemResult(
                    previous,
                    FileScored(item.input, Score(previous.scorer, previous.judge, windows)),
                )
            stream = CountingReader(path)
            with relabel_errors(item.input, path):
                found = score_source(stream, model)
        row = ResultRow(
            path=str(item.input),
            sha256=digest,
            seconds=stream.samples / stream.rate,
            scorer=found.scorer,
            judge=found.judge,
            details=json.dumps(list(found.windows)),
        )
        return ItemResult(row, FileScored(item.input, found))


class CountingReader(AudioReader):
    """A stream that knows how long it was, once it was run through."""

    samples = 0

    def blocks(self) -> Iterator[Any]:
        """As of `Stream`."""
        self.samples = 0
        for block in super().blocks():
            self.samples += block.shape[1]
            yield block


@contextmanager
def relabel_errors(location: Location, copy: Path) -> Iterator[None]:
    """Let errors about a copy name the place that it is a copy of."""
    try:
        yield
    except TonewoodError as error:
        if isinstance(location, Path):
            raise
        raise type(error)(str(error).replace(printable(copy), printable(location))) from error


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
            return ItemResult(
                previous, (SkippedExplanation(item.input, item.output), _previous_figures(previous))
            )
        job = FileJob(item.input, item.output)
        done = explain_files.explain_file(job, model, self.options, overwrite=self.overwrite, seed=self.seed)
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
    figures: ExplanationFigures = ExplanationFigures.model_validate(
        json.loads(row.details or "{}")["figures"]
    )
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
