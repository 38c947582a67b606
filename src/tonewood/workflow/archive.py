"""Whole archives: many recordings, by many workers, nothing done twice and nothing lost."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tonewood.errors import (
    AudioError,
    CallError,
    FolderError,
    MissingExtraError,
    TonewoodError,
    shown,
)
from tonewood.files import places, results
from tonewood.files import recipe as recipes
from tonewood.files.formats import SUFFIXES, output_name, readable
from tonewood.files.modelfile import Model
from tonewood.files.output import sweep
from tonewood.files.places import Place
from tonewood.files.results import Row, Table
from tonewood.workflow import layout
from tonewood.workflow.layout import Failed, Job
from tonewood.workflow.units import Done, Task, Unit, attempt, lost

if TYPE_CHECKING:
    from tonewood.workflow.cluster import Crew

TABLE = "tonewood.parquet"
RETRIES = 2


class Tally(NamedTuple):
    """How far a run is.

    Parameters
    ----------
    done, failed, total : int
        Recordings; done counts the failed ones too.
    hours : float
        Of sound, done in this run.
    hours_per_minute : float
    left : float
        Seconds to the end, if the rest goes like what was done.
    """

    done: int
    failed: int
    total: int
    hours: float
    hours_per_minute: float
    left: float


def crew(workers: int | None, scheduler: str | None) -> "Crew | None":
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
        from tonewood.workflow.cluster import Crew
    except ImportError:
        raise MissingExtraError(
            "--workers and --scheduler need Dask: pip install 'tonewood[cluster]'"
        ) from None
    results.check()
    return Crew(workers, scheduler)


def lay(inputs: Sequence[Place], out: Place) -> list[Unit | Failed]:
    """Lay out which recording becomes which file, as `layout.jobs`, of paths and URLs."""
    if isinstance(out, Path) and all(isinstance(it, Path) for it in inputs):
        jobs = layout.jobs([Path(it) for it in inputs], out)
        taken = {job.input.resolve() for job in jobs if isinstance(job, Job)}
        return [_checked(job, taken) if isinstance(job, Job) else job for job in jobs]
    laid: dict[Place, Unit | Failed] = {}
    single = len(inputs) == 1 and not _is_folder(inputs[0])
    named = Path(str(out)).suffix.lower() in SUFFIXES
    if named and not single:
        raise CallError(f"{shown(out)} names a file; several outputs need a folder: name one")
    for item in inputs:
        if single and named:
            return [Unit(item, out)]
        for found, relative in recordings(item):
            if isinstance(relative, TonewoodError):
                laid[found] = Failed(found, relative)
                continue
            output = places.below(out, str(output_name(Path(relative))))
            other = laid.get(output)
            if other is not None and other.input != found:
                raise CallError(
                    f"{shown(other.input)} and {shown(found)} would both become "
                    f"{shown(output)}: enhance them into two folders"
                )
            if output == found:
                laid[output] = Failed(found, layout.onto_itself(output))
                continue
            laid[output] = Unit(found, output)
    return list(laid.values())


def recordings(item: Place) -> Iterator[tuple[Place, str | TonewoodError]]:
    """Every recording that an input names, with its path below it; or the input, and the error."""
    try:
        if isinstance(item, Path):
            for path in layout.recordings([item]):
                if isinstance(path, Failed):
                    yield path.input, path.error
                else:
                    yield path, path.name if path == item else str(path.relative_to(item))
            return
        if not places.is_folder(item):
            yield item, places.name_of(item)
            return
        there = places.listing(item)
        outputs = {it.removesuffix(recipes.SUFFIX) for it in there if it.endswith(recipes.SUFFIX)}
        sounds = [it for it in there if Path(it).suffix.lower() in readable() and it not in outputs]
        if not sounds:
            raise FolderError(f"no audio file below {shown(item)}: name another input")
        for url in sounds:
            yield url, url.removeprefix(item).lstrip("/")
    except (CallError, MissingExtraError):
        raise
    except TonewoodError as error:
        yield item, error


def _is_folder(item: Place) -> bool:
    try:
        return item.is_dir() if isinstance(item, Path) else places.is_folder(item)
    except AudioError:
        return False


def _checked(job: Job, taken: set[Path]) -> Unit | Failed:
    why = layout.refused(job, taken)
    return Failed(job.input, why) if why else Unit(*job)


def run(
    units: Sequence[Any],
    task: Task,
    model: Model,
    *,
    crew: "Crew | None" = None,
    table: Place | None = None,
    retries: int = RETRIES,
    overwrite: bool = False,
) -> Iterator[Any]:
    """Do units, by a crew or in this process; yields what became of each, and a `Tally` after it.

    What failed is tried again after the others. Stopped, however abruptly, and started again with
    the same arguments, a run goes on where it was.

    Parameters
    ----------
    units : sequence of Unit or Failed
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
    _check(units, crew)
    made = {table, *(getattr(it, "output", None) for it in units)}
    sweep({it.parent for it in made if isinstance(it, Path)})
    decides = {"command": task.name, "model": model.digest, "settings": task.told}
    if table is None:
        for event, _ in _followed(units, task, model, crew, retries, {}):
            yield event
        return
    with Table(table, decides, overwrite=overwrite) as rows:
        known = {name: row for name, row in rows.earlier.items() if row.error is None}
        for event, row in _followed(units, task, model, crew, retries, known):
            if row is not None:
                rows.add(row)
            yield event
        rows.finish()


def _check(units: Sequence[Any], crew: "Crew | None") -> None:
    named = (it for unit in units for it in (unit.input, getattr(unit, "output", None)))
    for url in {it.partition("://")[0]: it for it in named if isinstance(it, str)}.values():
        places.check(url)
        if crew is not None and not places.shared(url):
            raise CallError(f"{shown(url)} is of one process: leave out the workers")


def _followed(
    units: Sequence[Any],
    task: Task,
    model: Model,
    crew: "Crew | None",
    retries: int,
    known: dict[str, Row],
) -> Iterator[tuple[Any, Row | None]]:
    """What became of every unit, with its row; a tally after each."""
    began, failed, hours = time.monotonic(), 0, 0.0
    waiting = deque((unit, known.get(str(unit.input))) for unit in units)
    finished = _results(waiting, task, model, crew, retries)
    for done, result in enumerate(finished, start=1):
        failed += isinstance(result.event, Failed)
        hours += (result.row.seconds or 0.0) / 3600
        yield result.event, result.row
        passed = time.monotonic() - began
        left = (len(units) - done) * passed / done
        yield Tally(done, failed, len(units), hours, 60 * hours / passed, left), None


Waiting = deque[tuple[Any, Row | None]]


def _results(
    waiting: Waiting, task: Task, model: Model, crew: "Crew | None", retries: int
) -> Iterator[Done]:
    """What became of every unit in the end; who fails is tried again, after the others."""
    tries: dict[str, int] = {}
    for failed in [it for it, _ in waiting if isinstance(it, Failed)]:
        yield lost_input(failed)
    todo = deque(it for it in waiting if not isinstance(it[0], Failed))
    work = partial(_attempted, task)
    for (unit, known), result in _work(work, todo, model, crew):
        done = lost(unit, _about(unit, result)) if isinstance(result, TonewoodError) else result
        name = f"{unit.input}\n{unit.output}"
        tries[name] = tries.get(name, 0) + 1
        if isinstance(done.event, Failed) and tries[name] <= retries:
            todo.append((unit, known))
            continue
        yield done._replace(row=replace(done.row, tries=tries.pop(name)))


def _about(unit: Any, error: TonewoodError) -> TonewoodError:  # noqa: ANN401
    return type(error)(f"{shown(unit.input)}: {error}")


def lost_input(failed: Failed) -> Done:
    """An input that could not even be laid out."""
    return Done(Row(str(failed.input), error=str(failed.error)), failed)


def _work(
    work: Callable[[Model, Any], Done], todo: Waiting, model: Model, crew: "Crew | None"
) -> Iterator[tuple[Any, Done | TonewoodError]]:
    if crew is None:
        while todo:
            item = todo.popleft()
            yield item, work(model, item)
        return
    crew.hold(model)
    yield from crew.run(work, model.digest, todo)


def _attempted(task: Task, model: Model, item: tuple[Any, Row | None]) -> Done:
    return attempt(task, item[0], model, item[1])
