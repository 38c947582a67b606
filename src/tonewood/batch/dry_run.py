"""Plan of an enhancement, without doing it: what would be done, and for how long."""

import math
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from tonewood.audio_io.reader import probe_audio, read_recording
from tonewood.audio_io.remote import Location
from tonewood.batch.tasks import EnhanceTask
from tonewood.enhancement.output_files import FileFailure, FileJob, check_outputs
from tonewood.enhancement.pipeline import enhance_array
from tonewood.errors import TonewoodError
from tonewood.model.model import Model

PlannedAction = Literal["enhance", "already", "fail"]


class PlannedFile(NamedTuple):
    """Plan for one recording.

    Attributes
    ----------
    seconds : float or None
        Duration that the header declares, of a recording that would be enhanced.
    reason : str or None
        Why it would fail, as far as its header and its output show.
    """

    input: Location
    output: Location | None
    action: PlannedAction
    seconds: float | None = None
    reason: str | None = None


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
    seconds = probe_audio(job.input).duration
    if isinstance(job.output, Path):
        check_outputs(job.input, [job.output], task.options.overwrite)
    return PlannedFile(job.input, job.output, "enhance", seconds)


def estimate_seconds(audio_seconds: float, task: EnhanceTask, model: Model, workers: int) -> float:
    """Return how long a task takes on this machine, from the time of the bundled example."""
    with resources.as_file(resources.files("tonewood.bundled") / "example.flac") as path:
        example = read_recording(path)
    start_time = time.perf_counter()
    for _ in enhance_array(example.samples, example.rate, model, task.settings.replace(force=True)):
        pass
    pace = (time.perf_counter() - start_time) / example.duration
    return math.ceil(pace * audio_seconds / max(workers, 1))
