"""Whole archives: many recordings, by many workers, nothing done twice and nothing lost."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tonewood.audio_io import remote
from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES, default_output_name, readable_suffixes
from tonewood.audio_io.remote import Location
from tonewood.batch import results_table
from tonewood.batch.results_table import ResultRow, ResultsTable
from tonewood.batch.tasks import ItemResult, Task, WorkItem, failed_item, run_guarded
from tonewood.enhancement import output_files, recipe
from tonewood.enhancement.output_files import FileFailure, FileJob
from tonewood.errors import (
    AudioError,
    CallError,
    FolderError,
    MissingExtraError,
    TonewoodError,
    printable,
)
from tonewood.model.model import Model
from tonewood.utils.atomic_write import remove_stale_temporaries

if TYPE_CHECKING:
    from tonewood.batch.dask_backend import DaskWorkers

RESULTS_TABLE_NAME = "tonewood.parquet"
DEFAULT_RETRIES = 2


class BatchProgress(NamedTuple):
    """How far a run is.

    Parameters
    ----------
    done, failed, total : int
        Recordings; done counts the failed ones too.
    audio_hours : float
        Of sound, done in this run.
    audio_hours_per_minute : float
    seconds_left : float
        Seconds to the end, if the rest goes like what was done.
    """

    done: int
    failed: int
    total: int
    audio_hours: float
    audio_hours_per_minute: float
    seconds_left: float


def start_workers(workers: int | None, scheduler: str | None) -> "DaskWorkers | None":
    """Workers that are asked for, to be entered; None if none are.

    Raises
    ------
    CallError
        Both are named, or fewer than one worker.
    MissingExtraError
        Dask is not installed.
    """
    if workers is None and scheduler is None:
        return None
    if workers is not None and scheduler is not None:
        raise CallError("--workers starts workers and --scheduler has its own: leave one out")
    if workers is not None and workers < 1:
        raise CallError(f"--workers is {workers}: give 1 or more")
    try:
        from tonewood.batch.dask_backend import DaskWorkers
    except ImportError:
        raise MissingExtraError("--workers and --scheduler need Dask: pip install '.[cluster]'") from None
    results_table.check_parquet_available()
    return DaskWorkers(workers, scheduler)


def plan_jobs(inputs: Sequence[Location], out: Location) -> list[WorkItem | FileFailure]:
    """Lay out which recording becomes which file, as `plan_explanations.jobs`, of paths and URLs."""
    if isinstance(out, Path) and all(isinstance(it, Path) for it in inputs):
        jobs = output_files.plan_file_jobs([Path(it) for it in inputs], out)
        taken = {job.input.resolve() for job in jobs if isinstance(job, FileJob)}
        return [_check_job(job, taken) if isinstance(job, FileJob) else job for job in jobs]
    laid: dict[Location, WorkItem | FileFailure] = {}
    single = len(inputs) == 1 and not _is_input_folder(inputs[0])
    named = Path(str(out)).suffix.lower() in WRITABLE_SUFFIXES
    if named and not single:
        raise CallError(f"{printable(out)} names a file; several outputs need a folder: name one")
    for item in inputs:
        if single and named:
            return [WorkItem(item, out)]
        for found, relative in expand_input(item):
            if isinstance(relative, TonewoodError):
                laid[found] = FileFailure(found, relative)
                continue
            output = remote.join_location(out, str(default_output_name(Path(relative))))
            other = laid.get(output)
            if other is not None and other.input != found:
                raise CallError(
                    f"{printable(other.input)} and {printable(found)} would both become "
                    f"{printable(output)}: enhance them into two folders"
                )
            if output == found:
                laid[output] = FileFailure(found, output_files.input_is_output_error(output))
                continue
            laid[output] = WorkItem(found, output)
    return list(laid.values())


def expand_input(item: Location) -> Iterator[tuple[Location, str | TonewoodError]]:
    """Every recording that an input names, with its path below it; or the input, and the error."""
    try:
        if isinstance(item, Path):
            for path in output_files.iter_recordings([item]):
                if isinstance(path, FileFailure):
                    yield path.input, path.error
                else:
                    yield path, path.name if path == item else str(path.relative_to(item))
            return
        if not remote.is_url_folder(item):
            yield item, remote.url_name(item)
            return
        there = remote.list_url_files(item)
        outputs = {it.removesuffix(recipe.RECIPE_SUFFIX) for it in there if it.endswith(recipe.RECIPE_SUFFIX)}
        sounds = [it for it in there if Path(it).suffix.lower() in readable_suffixes() and it not in outputs]
        if not sounds:
            raise FolderError(f"no audio file below {printable(item)}: name another input")
        for url in sounds:
            yield url, url.removeprefix(item).lstrip("/")
    except (CallError, MissingExtraError):
        raise
    except TonewoodError as error:
        yield item, error


def _is_input_folder(item: Location) -> bool:
    try:
        return item.is_dir() if isinstance(item, Path) else remote.is_url_folder(item)
    except AudioError:
        return False


def _check_job(job: FileJob, inputs: set[Path]) -> WorkItem | FileFailure:
    why = output_files.output_conflict(job, inputs)
    return FileFailure(job.input, why) if why else WorkItem(*job)


def run_batch(
    items: Sequence[Any],
    task: Task,
    model: Model,
    *,
    workers: "DaskWorkers | None" = None,
    table: Location | None = None,
    retries: int = DEFAULT_RETRIES,
    overwrite: bool = False,
) -> Iterator[Any]:
    """Do units, by a crew or in this process; yields what became of each, and a `Tally` after it.

    What failed is tried again after the others. Stopped, however abruptly, and started again with
    the same arguments, a run goes on where it was.

    Parameters
    ----------
    items : sequence of WorkItem or FileFailure
    table : Path or URL, optional
        Where all rows go; it appears when all is done.
    overwrite : bool
        Whether another run's table may be replaced.

    Raises
    ------
    ClusterError
        The scheduler is gone.
    OutputError
        The table is another run's, or cannot be written.
    """
    _check_urls(items, workers)
    made = {table, *(getattr(it, "output", None) for it in items)}
    remove_stale_temporaries({it.parent for it in made if isinstance(it, Path)})
    decides = {"command": task.name, "model": model.digest, "settings": task.settings_key}
    if table is None:
        for event, _ in _with_progress(items, task, model, workers, retries, {}):
            yield event
        return
    with ResultsTable(table, decides, overwrite=overwrite) as rows:
        known = {name: row for name, row in rows.rows.items() if row.error is None}
        for event, row in _with_progress(items, task, model, workers, retries, known):
            if row is not None:
                rows.add(row)
            yield event
        rows.publish()


def _check_urls(items: Sequence[Any], workers: "DaskWorkers | None") -> None:
    named = (it for unit in items for it in (unit.input, getattr(unit, "output", None)))
    for url in {it.partition("://")[0]: it for it in named if isinstance(it, str)}.values():
        remote.check_url(url)
        if workers is not None and not remote.is_shared_url(url):
            raise CallError(f"{printable(url)} is of one process: leave out the workers")


def _with_progress(
    items: Sequence[Any],
    task: Task,
    model: Model,
    workers: "DaskWorkers | None",
    retries: int,
    previous: dict[str, ResultRow],
) -> Iterator[tuple[Any, ResultRow | None]]:
    """What became of every unit, with its row; a tally after each."""
    began, failed, hours = time.monotonic(), 0, 0.0
    waiting = deque((unit, previous.get(str(unit.input))) for unit in items)
    finished = _final_results(waiting, task, model, workers, retries)
    for done, result in enumerate(finished, start=1):
        failed += isinstance(result.event, FileFailure)
        hours += (result.row.seconds or 0.0) / 3600
        yield result.event, result.row
        passed = time.monotonic() - began
        left = (len(items) - done) * passed / done
        yield BatchProgress(done, failed, len(items), hours, 60 * hours / passed, left), None


PendingItems = deque[tuple[Any, ResultRow | None]]


def _final_results(
    pending: PendingItems, task: Task, model: Model, workers: "DaskWorkers | None", retries: int
) -> Iterator[ItemResult]:
    """What became of every unit in the end; who fails is tried again, after the others."""
    tries: dict[str, int] = {}
    for failed in [it for it, _ in pending if isinstance(it, FileFailure)]:
        yield planning_failure(failed)
    todo = deque(it for it in pending if not isinstance(it[0], FileFailure))
    work = partial(_run_item, task)
    for (unit, known), result in _run_items(work, todo, model, workers):
        done = (
            failed_item(unit, _with_item_name(unit, result)) if isinstance(result, TonewoodError) else result
        )
        name = f"{unit.input}\n{unit.output}"
        tries[name] = tries.get(name, 0) + 1
        if isinstance(done.event, FileFailure) and tries[name] <= retries:
            todo.append((unit, known))
            continue
        yield done._replace(row=replace(done.row, tries=tries.pop(name)))


def _with_item_name(item: Any, error: TonewoodError) -> TonewoodError:  # noqa: ANN401
    return type(error)(f"{printable(item.input)}: {error}")


def planning_failure(failed: FileFailure) -> ItemResult:
    """An input that could not even be laid out."""
    return ItemResult(ResultRow(str(failed.input), error=str(failed.error)), failed)


def _run_items(
    work: Callable[[Model, Any], ItemResult],
    pending: PendingItems,
    model: Model,
    workers: "DaskWorkers | None",
) -> Iterator[tuple[Any, ItemResult | TonewoodError]]:
    if workers is None:
        while pending:
            item = pending.popleft()
            yield item, work(model, item)
        return
    workers.broadcast_model(model)
    yield from workers.run(work, model.digest, pending)


def _run_item(task: Task, model: Model, item: tuple[Any, ResultRow | None]) -> ItemResult:
    return run_guarded(task, item[0], model, item[1])
