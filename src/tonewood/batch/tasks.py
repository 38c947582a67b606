"""Tasks of a batch: enhance or score one recording, describe it as a row of the results table, or plan it."""

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io import remote
from tonewood.audio_io.reader import AudioReader, check_duration, probe_audio, read_recording
from tonewood.audio_io.recording import file_sha256
from tonewood.audio_io.remote import Location
from tonewood.batch.enhance_file import (
    EnhanceOptions,
    FileEnhanced,
    enhance_file,
    find_finished_file,
    result_from_recipe,
)
from tonewood.batch.results_table import ResultRow
from tonewood.enhancement.analysis import Score, score_source
from tonewood.enhancement.mask_search import settings_for_model
from tonewood.enhancement.output_files import DELTA_SUFFIX, FileFailure, FileJob, OutputKey, check_outputs
from tonewood.enhancement.pipeline import enhance_array
from tonewood.enhancement.prior_mask import require_predictor
from tonewood.enhancement.recipe import RECIPE_SUFFIX, Recipe, parse_recipe
from tonewood.errors import (
    OutputError,
    RecipeError,
    TonewoodError,
    explain_missing_torch,
    failure_reason,
    may_pass,
    printable,
)
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings

if TYPE_CHECKING:
    from tonewood.enhancement.reapply import MaskTransfer


class WorkItem(Protocol):
    """A recording of a batch, and its output if it has one."""

    @property
    def input(self) -> Location:
        """Recording."""
        ...

    @property
    def output(self) -> Location | None:
        """File to make from it."""
        ...


class ItemResult(NamedTuple):
    """Result of one item: a row for the table, and the event for the caller."""

    row: ResultRow
    event: Any
    from_earlier_run: bool = False


class Task(Protocol):
    """Work that a batch does on each item. It is sent to workers, so it must be picklable."""

    @property
    def name(self) -> str:
        """Name of the command."""
        ...

    def settings_key(self, model: Model) -> dict[str, Any]:
        """Return the settings that decide the results of a model, as JSON."""
        ...

    def find_finished(self, item: Any, model: Model, previous: ResultRow | None) -> ItemResult | None:  # noqa: ANN401
        """Return the result of an earlier run for an item on this machine; None if it is to be processed.

        `previous` is the row of an earlier run with the same model and settings.
        """
        ...

    def run(self, item: Any, model: Model, previous: ResultRow | None) -> Iterator[Any]:  # noqa: ANN401
        """Process an item unless it is finished; yields progress events and, last, its `ItemResult`."""
        ...


def run_guarded(
    task: Task,
    item: Any,  # noqa: ANN401
    model: Model,
    previous: ResultRow | None,
) -> Iterator[Any]:
    """Run a task on an item; an error becomes a failed result, so that the other items continue."""
    start_time = time.perf_counter()
    try:
        with explain_missing_torch(task.name):
            for event in task.run(item, model, previous):
                if isinstance(event, ItemResult):
                    # Of this run, even if the result is that of an earlier one.
                    took = round(time.perf_counter() - start_time, 3)
                    event = event._replace(row=replace(event.row, took=took))
                yield event
    except Exception as error:  # a bug must not stop a run of days; its type is reported
        yield failed_item(item, error_for_users(item.input, error), time.perf_counter() - start_time)


def error_for_users(location: Location, error: Exception) -> TonewoodError:
    """Return what ended the work on a recording as an error for users."""
    if isinstance(error, TonewoodError):
        return error
    if isinstance(error, OSError):  # of the system, such as a name that is too long: not a bug
        name = printable(os.fsdecode(error.filename) if error.filename else str(location))
        return OutputError(f"{name} cannot be used ({failure_reason(error)}): choose another place")
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    unexpected = TonewoodError(
        f"{printable(str(location))} failed with an unexpected error ({reason}): please report it"
    )
    unexpected.is_temporary = may_pass(error)
    return unexpected


def failed_item(item: WorkItem, error: TonewoodError, took: float = 0.0) -> ItemResult:
    """Return the result of an item that could not be processed."""
    output = None if item.output is None else str(item.output)
    digest = None
    if isinstance(item.input, Path):  # a URL would have to be downloaded again
        with suppress(TonewoodError):
            digest = file_sha256(item.input)
    row = ResultRow(str(item.input), output, digest, error=str(error), took=round(took, 3))
    return ItemResult(row, FileFailure(item.input, error))


@dataclass(frozen=True)
class EnhanceTask:
    """Enhance recordings; arguments as of `enhance_file`."""

    settings: EnhanceSettings
    options: EnhanceOptions = EnhanceOptions()  # noqa: RUF009 - frozen
    transfer: "MaskTransfer | None" = None
    name: Literal["enhance"] = "enhance"

    def settings_key(self, model: Model) -> dict[str, Any]:
        """Return the settings; the picture changes no result."""
        settings = self.settings if self.transfer else settings_for_model(self.settings, model)
        return settings.model_dump(mode="json")

    def check_requirements(self, model: Model) -> None:
        """Check before the work that it can be done.

        Raises
        ------
        MissingExtraError
            Pictures need matplotlib, which is not installed.
        ModelError
            The model has no predictor.
        """
        if self.options.plot:
            from tonewood.enhancement.plotting import check_matplotlib

            check_matplotlib()
        kind = self.transfer.record.varying if self.transfer else self.settings.prior.kind
        if kind == "predicted":
            require_predictor(model)

    def find_finished(self, item: FileJob, model: Model, previous: ResultRow | None) -> ItemResult | None:
        """Return the result of an earlier output, recognised by its recipe, not by `previous`."""
        source, output = item.input, item.output
        # The test for existence spares hashing the inputs of a new run.
        if not isinstance(source, Path) or not isinstance(output, Path):
            return None
        if self.options.overwrite or not output.exists():
            return None
        result = find_finished_file(source, output, model, self.settings, self.options, self.transfer)
        return None if result is None else ItemResult(_enhancement_row(result), result, from_earlier_run=True)

    def run(self, item: FileJob, model: Model, previous: ResultRow | None) -> Iterator[Any]:
        """Enhance a recording, unless an earlier run made the same output."""
        assert item.output is not None
        with remote.local_copy(item.input) as path, relabel_errors(item.input, path):
            if isinstance(item.output, Path):
                events = enhance_file(path, item.output, model, self.settings, self.options, self.transfer)
            else:
                events = self._enhance_to_url(path, item.output, model)
            for event in events:
                if isinstance(event, FileEnhanced):
                    result = replace(event, input=item.input)
                else:
                    yield event
        yield ItemResult(_enhancement_row(result), result, result.from_earlier_run)

    def _enhance_to_url(self, source: Path, url: str, model: Model) -> Iterator[SearchStep | FileEnhanced]:
        """Write the outputs to a temporary folder, then upload them, the audio last."""
        recipe_url = url + RECIPE_SUFFIX
        picture_url = f"{url}.png" if self.options.plot else None
        delta_url = url + DELTA_SUFFIX if self.options.delta else None
        extras = [extra for extra in (picture_url, delta_url) if extra is not None]
        if not self.options.overwrite:
            record = self.transfer.record if self.transfer else None
            key = OutputKey(file_sha256(source), model.digest, self.settings, record)
            if (recipe := _find_uploaded(url, recipe_url, extras, key)) is not None:
                yield result_from_recipe(recipe, source, url, recipe_url, picture_url, delta_url)
                return
        # A folder of its own, because a downloaded input may have the output's name.
        with TemporaryDirectory(prefix="tonewood-") as folder:
            output = Path(folder) / remote.url_name(url)
            for event in enhance_file(source, output, model, self.settings, self.options, self.transfer):
                if isinstance(event, FileEnhanced):
                    result = event
                else:
                    yield event
            # The audio last, as on a disk: if it exists, its other files do.
            uploads = (
                (result.recipe, recipe_url),
                (result.picture, picture_url),
                (result.delta, delta_url),
                (output, url),
            )
            for path, target in uploads:
                if path is not None and target is not None:
                    remote.upload_file(Path(path), target, overwrite=self.options.overwrite)
        # The result names the URLs, not the temporary files.
        yield replace(result, output=url, recipe=recipe_url, picture=picture_url, delta=delta_url)


def _find_uploaded(url: str, recipe_url: str, extras: Sequence[str], key: OutputKey) -> Recipe | None:
    """Return the recipe of an earlier run's output at a URL, or None if there is no output.

    OutputError if another output exists there.
    """
    content = remote.read_url_bytes(recipe_url)
    try:
        recipe = None if content is None else parse_recipe(content, recipe_url)
    except RecipeError:
        recipe = None  # a damaged file is another output
    is_same = recipe is not None and key.matches(recipe)
    audio_exists = remote.url_exists(url)
    if audio_exists and is_same and all(map(remote.url_exists, extras)):
        return recipe
    if not audio_exists and is_same:  # an earlier run was killed between recipe and audio
        for leftover in (*extras, recipe_url):
            if remote.url_exists(leftover):
                remote.remove_url(leftover)
        return None
    for exists, name in ((audio_exists, url), (content is not None, recipe_url)):
        if exists:
            raise OutputError(f"{printable(name)} exists: name another output or pass --overwrite")
    return None


def _enhancement_row(result: FileEnhanced) -> ResultRow:
    certificate = result.certificate
    # Scores have columns of their own, for queries; the certificate as a whole is JSON.
    return ResultRow(
        path=str(result.input),
        output=str(result.output),
        sha256=result.sha256,
        seconds=result.duration,
        scorer=certificate.scorer.before,
        scorer_after=certificate.scorer.after,
        judge=certificate.judge.before if certificate.judge else None,
        judge_after=certificate.judge.after if certificate.judge else None,
        verdict=certificate.verdict,
        certificate=certificate.model_dump_json(),
        details=json.dumps({"already": result.from_earlier_run, "warnings": list(result.warnings)}),
    )


class FileScored(NamedTuple):
    """Result for one scored file."""

    input: Location
    score: Score
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreTask:
    """Score recordings."""

    name: Literal["score"] = "score"

    def settings_key(self, model: Model) -> dict[str, Any]:
        """Return nothing: the model alone decides scores."""
        return {}

    def find_finished(self, item: FileJob, model: Model, previous: ResultRow | None) -> ItemResult | None:
        """Return the score of `previous` if its bytes are those of the recording."""
        if previous is None or not isinstance(item.input, Path):
            return None
        return _scored_earlier(item.input, file_sha256(item.input), previous)

    def run(self, item: FileJob, model: Model, previous: ResultRow | None) -> Iterator[ItemResult]:
        """Score a recording, unless its bytes are those of `previous`."""
        with remote.local_copy(item.input) as path:
            digest = file_sha256(path)
            if (earlier := _scored_earlier(item.input, digest, previous)) is not None:
                yield earlier
                return
            reader = CountingReader(path)
            with relabel_errors(item.input, path):
                score = score_source(reader, model)
        row = ResultRow(
            path=str(item.input),
            sha256=digest,
            seconds=reader.n_samples / reader.rate,
            scorer=score.scorer,
            judge=score.judge,
            details=json.dumps(
                {"windows": score.windows, "unlikeness": score.unlikeness, "warnings": reader.warnings}
            ),
        )
        yield ItemResult(row, FileScored(item.input, score, reader.warnings))


def _scored_earlier(location: Location, digest: str, previous: ResultRow | None) -> ItemResult | None:
    # By content, because a file may be replaced under the same name.
    if previous is None or previous.sha256 != digest or (score := _score_of_row(previous)) is None:
        return None
    warnings = json.loads(previous.details or "{}").get("warnings", ())
    return ItemResult(previous, FileScored(location, score, tuple(warnings)), from_earlier_run=True)


def _score_of_row(row: ResultRow) -> Score | None:
    """Return the score that a row describes; None if the row is of a failure or an earlier version."""
    details = json.loads(row.details or "{}")
    if row.scorer is None or "unlikeness" not in details:
        return None
    return Score(row.scorer, row.judge, tuple(details["windows"]), details["unlikeness"])


class CountingReader(AudioReader):
    """Audio reader that knows its length after it was read once."""

    n_samples = 0

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield blocks (channels, samples), as `AudioReader` does."""
        self.n_samples = 0  # audio may be read several times
        for block in super().blocks():
            self.n_samples += block.shape[1]
            yield block


@contextmanager
def relabel_errors(location: Location, copy: Path) -> Iterator[None]:
    """Name the URL instead of its local copy in errors."""
    try:
        yield
    except TonewoodError as error:
        if isinstance(location, Path):
            raise
        # The user does not know the temporary copy that the message names.
        relabelled = type(error)(str(error).replace(printable(copy), printable(location)))
        relabelled.is_temporary = error.is_temporary
        raise relabelled from error


PlannedAction = Literal["enhance", "already", "fail"]


class PlannedFile(NamedTuple):
    """Plan for one recording."""

    input: Location
    output: Location | None
    action: PlannedAction
    seconds: float | None = None  # duration that the header declares, of a recording that would be enhanced
    reason: str | None = None  # why it would fail, as far as its header and its output show


def plan_files(
    jobs: Sequence[FileJob | FileFailure], task: EnhanceTask, model: Model
) -> Iterator[PlannedFile]:
    """Yield what a task would do with each recording; a recording at a URL is not looked at."""
    for job in jobs:
        if isinstance(job, FileFailure):
            yield PlannedFile(job.input, None, "fail", reason=str(job.error))
            continue
        try:
            yield _plan_file(job, task, model)
        except TonewoodError as error:
            yield PlannedFile(job.input, job.output, "fail", reason=str(error))


def _plan_file(job: FileJob, task: EnhanceTask, model: Model) -> PlannedFile:
    if task.find_finished(job, model, None) is not None:
        return PlannedFile(job.input, job.output, "already")
    if not isinstance(job.input, Path):
        return PlannedFile(job.input, job.output, "enhance")
    info = probe_audio(job.input)
    if info.frames is not None:
        check_duration(job.input, info, info.frames)
    if isinstance(job.output, Path):
        check_outputs(job.input, [job.output], task.options.overwrite)
    return PlannedFile(job.input, job.output, "enhance", info.duration)


def estimate_seconds(audio_seconds: float, task: EnhanceTask, model: Model, workers: int) -> float:
    """Return how long a task takes on this machine, from the time of the bundled example."""
    with resources.as_file(resources.files("tonewood.bundled") / "example.flac") as path:
        example = read_recording(path)
    start_time = time.perf_counter()
    for _ in enhance_array(example.samples, example.rate, model, task.settings.replace(force=True)):
        pass
    pace = (time.perf_counter() - start_time) / example.duration
    return math.ceil(pace * audio_seconds / max(workers, 1))
