"""Progress displays: draw workflow events as rich progress bars on standard error.

rich is imported when something is drawn: not for a file or a pipe.
"""

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tonewood.errors import printable

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress, TaskID

    from tonewood.batch.runner import BatchProgress
    from tonewood.batch.tasks import Task
    from tonewood.data.loading import RecordingProgress
    from tonewood.enhancement.output_files import FileStarted
    from tonewood.enhancement.realtime import BlockLevels, LiveControls
    from tonewood.evaluation.pipeline import MeasureProgress
    from tonewood.research.architecture_search import SizeProgress, SizeResult
    from tonewood.training.networks import CheckEvent, LabelProgress
    from tonewood.training.preferences import ListenerAudioProgress


class _ProgressDisplay:
    """Base class: progress bars on standard error, and nothing if that is not a terminal.

    Call `clear` before printing, because bars and text would overwrite each other.
    """

    def __init__(self, *, transient: bool) -> None:
        self.transient = transient
        self.is_quiet = False
        self.progress: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        # Kept when a bar is removed for a line of text, so that its elapsed time goes on.
        self.start_times: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Stop drawing: transient bars disappear, others stay on the screen."""
        if self.progress is not None:
            self.progress.stop()
        self.progress, self.tasks = None, {}

    def _update_bar(self, name: str, completed: int, total: int, note: str = "") -> None:
        start_time = self.start_times.setdefault(name, time.monotonic())
        if self.is_quiet or not sys.stderr.isatty():
            return
        if self.progress is None:
            self.progress = _create_bars(self.transient)
            self.progress.start()
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total, note=note)
            self.progress.tasks[-1].start_time = start_time
        self.progress.update(self.tasks[name], completed=completed, total=total, note=note)

    def _show_recording_progress(self, event: "RecordingProgress") -> None:
        bar = f"{event.side}, listening" if event.stage == "survey" else f"{event.side:9}"
        self._update_bar(bar, event.number, event.total, printable(event.path.name))


def _create_bars(transient: bool) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    # By default rich redirects both streams to the terminal while bars are visible, which would take
    # output away from a file or a pipe.
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=transient,
        redirect_stdout=False,
        redirect_stderr=False,
        get_time=time.monotonic,
    )


class AuditDisplay(_ProgressDisplay):
    """Progress of an audit."""

    def __init__(self) -> None:
        super().__init__(transient=True)

    def show(self, event: "RecordingProgress") -> None:
        """Draw one event."""
        self._show_recording_progress(event)


class TrainingDisplay(_ProgressDisplay):
    """Progress of a training: recordings, then networks with their held-out accuracy."""

    def __init__(self) -> None:
        super().__init__(transient=False)

    def show(self, event: "RecordingProgress | ListenerAudioProgress | CheckEvent | LabelProgress") -> None:
        """Draw one event."""
        from tonewood.data.loading import RecordingProgress
        from tonewood.training.networks import LabelProgress
        from tonewood.training.preferences import ListenerAudioProgress

        if isinstance(event, RecordingProgress):
            self._show_recording_progress(event)
            return
        if isinstance(event, ListenerAudioProgress):
            self._update_bar("heard    ", event.number, event.total, printable(event.path.name))
            return
        if isinstance(event, LabelProgress):
            self._update_bar("predictor", event.number, event.total, printable(event.path.name))
            return
        check = event.check
        note = f"held-out accuracy {100 * check.accuracy:.1f} %, loss {check.held_out_loss:.4f}"
        self._update_bar(f"{event.network:9}", check.step, check.steps, note)


class SearchDisplay(_ProgressDisplay):
    """Progress of the search for a scorer size."""

    def __init__(self) -> None:
        super().__init__(transient=True)
        self.completed_sizes = 0

    def show(self, event: "RecordingProgress | SizeProgress | SizeResult") -> None:
        """Draw one event."""
        from tonewood.data.loading import RecordingProgress
        from tonewood.research.architecture_search import SizeResult

        if isinstance(event, RecordingProgress):
            self._show_recording_progress(event)
        elif isinstance(event, SizeResult):
            self.completed_sizes += 1
        else:
            size, check = event.size, event.check
            note = f"width {size.width}, depth {size.depth}, trial {event.trial}"
            self._update_bar("sizes", self.completed_sizes, event.sizes, note)
            accuracy = f"held-out accuracy {100 * check.accuracy:.1f} %"
            self._update_bar("steps", check.step, check.steps, accuracy)


class ReproducingDisplay(TrainingDisplay):
    """A training, then every method on every piece."""

    def show(
        self,
        event: "RecordingProgress | ListenerAudioProgress | CheckEvent | LabelProgress | MeasureProgress",
    ) -> None:
        """Draw one event."""
        from tonewood.evaluation.pipeline import MeasureProgress

        if isinstance(event, MeasureProgress):
            self._update_bar("pieces   ", event.number, event.total, event.method)
        else:
            super().show(event)


class FilesDisplay(_ProgressDisplay):
    """Bar of the files of a folder."""

    def __init__(self) -> None:
        super().__init__(transient=True)

    def show(self, event: "FileStarted") -> None:
        """Draw the file that starts."""
        self._update_bar("files", event.number - 1, event.total, printable(event.input))


class BatchDisplay(_ProgressDisplay):
    """Progress of a batch: files with time left and pace, and search steps of the current file.

    Without a terminal, one line per minute. The settings of an `EnhanceTask` give the number of search steps.
    """

    def __init__(self, task: "Task") -> None:
        from tonewood.batch.tasks import EnhanceTask

        super().__init__(transient=True)
        self.total_steps = task.settings.search.steps if isinstance(task, EnhanceTask) else 0
        self.start_time = self.last_line_time = time.monotonic()
        self.start_times["files"] = self.start_time  # workers need seconds before the first result
        self.pace = ""

    def show(self, event: object) -> bool:
        """Draw a progress event; returns False for other events, which are results."""
        from tonewood.batch.runner import BatchProgress
        from tonewood.enhancement.output_files import FileStarted
        from tonewood.mask.search import SearchStep

        if isinstance(event, FileStarted):
            if event.total > 1:
                name = printable(event.input)
                self._update_bar("files", event.number - 1, event.total, f"{self.pace}  {name}".strip())
            self.start_times.pop("steps", None)  # of the previous file
        elif isinstance(event, SearchStep):
            # Without its score: an objective is computed when it is read, and slowly.
            # A model without the asked loss may take more steps with another one.
            self._update_bar("steps", event.number, max(self.total_steps, event.number))
        elif isinstance(event, BatchProgress):
            self._show_batch_progress(event)
        else:
            return False
        return True

    def _show_batch_progress(self, progress: "BatchProgress") -> None:
        self.pace = _format_pace(progress)
        if sys.stderr.isatty():
            if progress.total > 1:
                self._update_bar("files", progress.completed, progress.total, self.pace)
        elif not self.is_quiet and time.monotonic() - self.last_line_time >= 60:
            self.last_line_time = time.monotonic()
            elapsed = timedelta(seconds=round(time.monotonic() - self.start_time))
            succeeded = progress.completed - progress.failed
            sys.stderr.write(f"{succeeded} of {progress.total} done, {elapsed} elapsed, {self.pace}\n")
            sys.stderr.flush()


class PairsDisplay(BatchDisplay):
    """Bars of a batch of pairs, and of the methods that each is measured with."""

    def show(self, event: object) -> bool:
        """Draw a progress event; returns False for other events, which are results."""
        from tonewood.evaluation.pipeline import MeasureProgress

        if not isinstance(event, MeasureProgress):
            return super().show(event)
        self._update_bar("methods", event.number - 1, event.total, event.method)
        return True


def _format_pace(progress: "BatchProgress") -> str:
    """Return time left, failures and pace, as in `0:10:00 left, 2 failed, 12 min of audio per minute`."""
    failures = f", {progress.failed} failed" if progress.failed else ""
    left = timedelta(seconds=round(progress.seconds_left))
    minutes = 60 * progress.audio_hours_per_minute
    pace = (
        f", {minutes:.0f} min of audio per minute"
        if minutes >= 10
        else f", {minutes:.1f} min of audio per minute"
    )
    return f"{left} left{failures}{pace if minutes else ''}"


class LevelMeterDisplay(_ProgressDisplay):
    """Level meters of input and output."""

    def __init__(self) -> None:
        super().__init__(transient=True)
        self.live_view: Live | None = None

    def clear(self) -> None:
        """Remove the meters."""
        if self.live_view is not None:
            self.live_view.stop()
        self.live_view = None

    def show(self, levels: "BlockLevels", controls: "LiveControls") -> None:
        """Draw the levels of one block."""
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if self.live_view is None:
            self.live_view = Live(
                console=Console(stderr=True),
                transient=True,
                refresh_per_second=15,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self.live_view.start()
        lines = [
            f"{name:4}{level_bar(level)} {level:6.1f} dB"
            for name, level in (("in", levels.input_db), ("out", levels.output_db))
        ]
        load = f"load {100 * levels.load:.0f} %, dropouts {levels.dropouts}"
        self.live_view.update(Text("\n".join([*lines, f"{controls.line}; {load}"])))


def level_bar(level_db: float, width: int = 40) -> str:
    """Return a text bar from -60 to 0 dB.

    Examples
    --------
    >>> level_bar(-30.0, 8)
    '████    '
    """
    share = min(max((level_db + 60) / 60, 0.0), 1.0)
    return ("█" * round(share * width)).ljust(width)
