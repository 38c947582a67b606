"""Run a task on many recordings: in this process, in several, or on a Dask cluster."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tonewood.audio_io import remote
from tonewood.audio_io.remote import Location
from tonewood.batch.results_table import ResultRow, ResultsTable, check_parquet_available
from tonewood.batch.tasks import ItemResult, Task, WorkItem, failed_item, run_guarded
from tonewood.enhancement.output_files import FileFailure, FileStarted
from tonewood.errors import CallError, MissingExtraError, TonewoodError, printable
from tonewood.model.model import Model
from tonewood.utils.files import remove_stale_temporaries

if TYPE_CHECKING:
    from tonewood.batch.dask_backend import DaskWorkers

RESULTS_TABLE_NAME = "tonewood.parquet"


class PendingItem(NamedTuple):
    """An item (or a `FileFailure` of the planning) that is not done yet, and its row of an earlier run."""

    item: Any
    previous: ResultRow | None


class BatchProgress(NamedTuple):
    """Progress of a run."""

    # Recordings; `completed` includes the failed ones
    completed: int
    failed: int
    total: int
    # Audio of this run; the pace is of the recordings that were not finished before
    audio_hours: float
    audio_hours_per_minute: float
    seconds_left: float  # estimated from the mean time per recording that was not finished before


def start_workers(
    workers: int | None, scheduler: str | None, on_start: "Callable[[DaskWorkers], None]" = lambda _: None
) -> "DaskWorkers | None":
    """Return the requested workers as a context manager, or None for this process.

    They start when the first item needs them; then `on_start` is called.

    Raises
    ------
    CallError
        Both are given, or fewer than one worker.
    MissingExtraError
        Dask is not installed.
    """
    if workers is None and scheduler is None:
        return None
    if workers is not None and scheduler is not None:
        raise CallError("--workers and --scheduler cannot be used together: use one of them")
    if workers is not None and workers < 1:
        raise CallError(f"--workers is {workers}: give 1 or more")
    try:
        from tonewood.batch.dask_backend import DaskWorkers
    except ImportError:
        raise MissingExtraError("--workers and --scheduler need Dask: pip install '.[cluster]'") from None
    # By default a run with workers writes a table, which must not fail at its end.
    check_parquet_available()
    return DaskWorkers(workers, scheduler, on_start)


def run_batch(
    items: Sequence[WorkItem | FileFailure],
    task: Task,
    model: Model,
    *,
    workers: "DaskWorkers | None" = None,
    table: Location | None = None,
    retries: int = 0,
    overwrite: bool = False,
) -> Iterator[Any]:
    """Run a task on items; yields progress, each item's result or `FileFailure`, and `BatchProgress`.

    In this process, `FileStarted` and the task's own progress events come before each result.
    Items with a temporary error are retried after the others. A run that was stopped, even killed,
    and is started again with the same arguments continues.

    Parameters
    ----------
    items : sequence
        Recordings, as `plan_jobs` returns them.
    workers : DaskWorkers, optional
        Already entered; items run in this process if None.
    table : Path or URL, optional
        Parquet table of all rows; it appears when all items are done.
    overwrite : bool
        Whether another run's table may be replaced.

    Raises
    ------
    ClusterError
        The scheduler cannot be reached any more.
    OutputError
        The table is another run's, or cannot be written.
    """
    _check_urls(items, workers)
    outputs = [table, *(item.output for item in items if not isinstance(item, FileFailure))]
    # A killed run leaves temporary files in its output folders.
    remove_stale_temporaries({path.parent for path in outputs if isinstance(path, Path)})
    run_items = partial(_run_items, items, task, model, workers, retries)
    if table is None:
        yield from run_items({}, lambda _: None)
        return
    run_key = {"command": task.name, "model": model.digest, "settings": task.settings_key(model)}
    with ResultsTable(table, run_key, overwrite=overwrite) as rows:
        # Failed rows are not reused: starting the run again retries them.
        finished = {path: row for path, row in rows.rows.items() if row.error is None}
        yield from run_items(finished, rows.add)
        rows.publish()


def _check_urls(items: Sequence[WorkItem | FileFailure], workers: "DaskWorkers | None") -> None:
    """Check each kind of URL once, before the work."""
    locations = [location for item in items for location in (item.input, getattr(item, "output", None))]
    urls = {url.partition("://")[0]: url for url in locations if isinstance(url, str)}
    for url in urls.values():
        remote.check_url(url)
        if workers is not None and not remote.is_shared_url(url):
            raise CallError(f"{printable(url)} exists in one process only: leave out the workers")


def _run_items(
    items: Sequence[WorkItem | FileFailure],
    task: Task,
    model: Model,
    workers: "DaskWorkers | None",
    retries: int,
    finished: dict[str, ResultRow],
    add_row: Callable[[ResultRow], None],
) -> Iterator[Any]:
    pace = _Pace(len(items))
    tries: Counter[tuple[str, str]] = Counter()
    pending = deque(PendingItem(item, finished.get(str(item.input))) for item in items)
    if workers is None:
        events = _run_here(task, model, pending)
    else:
        events = _run_on(workers, task, model, pending, pace.restart)
    for pending_item, event in events:
        if not isinstance(event, ItemResult):
            yield event
            continue
        item, row = pending_item.item, event.row
        if not isinstance(item, FileFailure):
            name = str(item.input), str(item.output)
            tries[name] += 1
            # Retried last, because a full disk or a lost worker may pass later. A damaged file does not.
            may_heal = isinstance(event.event, FileFailure) and event.event.error.is_temporary
            if may_heal and tries[name] <= retries:
                pending.append(pending_item)
                continue
            row = replace(row, tries=tries.pop(name))
        add_row(row)
        yield event.event
        yield pace.count(event, row.seconds or 0.0)


class _Pace:
    """Counts results, and estimates the time left from those that took work."""

    def __init__(self, total: int) -> None:
        self._completed, self._failed, self._total = 0, 0, total
        self._audio_seconds, self._processed_seconds = 0.0, 0.0
        self._processed, self._work_time = 0, 0.0
        self.restart()

    def restart(self) -> None:
        """Start the time of the next result now, so that it does not include the start of workers."""
        self._last_time = time.monotonic()

    def count(self, result: ItemResult, seconds: float) -> BatchProgress:
        """Count the result of a recording that lasts some seconds."""
        now = time.monotonic()
        self._completed += 1
        self._failed += isinstance(result.event, FileFailure)
        self._audio_seconds += seconds
        # A recording that was finished before takes no time, and says nothing of those that are left.
        if not result.from_earlier_run:
            self._processed += 1
            self._processed_seconds += seconds
            self._work_time += now - self._last_time
        self._last_time = now
        # A coarse clock may not have advanced if the first input could not even be planned.
        hours_per_minute = self._processed_seconds / 60 / self._work_time if self._work_time else 0.0
        left = (self._total - self._completed) * self._work_time / max(self._processed, 1)
        hours = self._audio_seconds / 3600
        return BatchProgress(self._completed, self._failed, self._total, hours, hours_per_minute, left)


def _run_here(
    task: Task, model: Model, pending: deque[PendingItem]
) -> Iterator[tuple[PendingItem, FileStarted | ItemResult | Any]]:
    """Run items one after the other in this process; more may be appended meanwhile."""
    total = len(pending)
    while pending:
        pending_item = pending.popleft()
        item, previous = pending_item
        if isinstance(item, FileFailure):
            yield pending_item, _planning_failure(item)
            continue
        # One more than the completed items, because a failed one that is retried is pending again.
        yield pending_item, FileStarted(total - len(pending), total, item.input)
        for event in run_guarded(task, item, model, previous):
            yield pending_item, event


def _run_on(
    workers: "DaskWorkers",
    task: Task,
    model: Model,
    pending: deque[PendingItem],
    on_ready: Callable[[], None],
) -> Iterator[tuple[PendingItem, ItemResult]]:
    """Run items on workers; what cannot be processed, or is finished already, comes first."""
    # Rotates the queue once: what stays in it is sent to workers.
    for _ in range(len(pending)):
        pending_item = pending.popleft()
        known_result = _result_without_work(task, model, pending_item)
        if known_result is not None:
            yield pending_item, known_result
        else:
            pending.append(pending_item)
    if not pending:
        return
    workers.broadcast_model(model)
    on_ready()
    for pending_item, result in workers.run(partial(_final_result, task), model.digest, pending):
        if isinstance(result, TonewoodError):  # the worker died, or could not be reached
            item = pending_item.item
            result = failed_item(item, type(result)(f"{printable(item.input)}: {result}"))
        yield pending_item, result


def _result_without_work(task: Task, model: Model, pending_item: PendingItem) -> ItemResult | None:
    """Return the result of an item that needs no worker: it failed in planning, or is finished."""
    item, previous = pending_item
    if isinstance(item, FileFailure):
        return _planning_failure(item)
    with suppress(TonewoodError):  # the worker meets the same error, and reports it
        return task.find_finished(item, model, previous)
    return None


def _final_result(task: Task, model: Model, pending_item: PendingItem) -> ItemResult:
    # A worker can return one value, so progress events end here.
    events = run_guarded(task, pending_item.item, model, pending_item.previous)
    (result,) = deque(events, maxlen=1)  # steps of a search hold masks, so none is kept
    assert isinstance(result, ItemResult)
    return result


def _planning_failure(failure: FileFailure) -> ItemResult:
    return ItemResult(ResultRow(str(failure.input), error=str(failure.error)), failure)
