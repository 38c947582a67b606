"""Progress in the terminal: events of the workflow → rich bars on standard error."""

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from tonewood.errors import shown
from tonewood.masking.optimise import Step
from tonewood.scoring.search import Look, Rung
from tonewood.workflow.archive import Tally
from tonewood.workflow.audit import Listened
from tonewood.workflow.batch import Started
from tonewood.workflow.courses import Checked
from tonewood.workflow.live import Controls, Levels
from tonewood.workflow.opinions import Listening
from tonewood.workflow.pairs import Measuring
from tonewood.workflow.sides import Loaded
from tonewood.workflow.teach import Taught


class _Display:
    """Bars on standard error while a block runs; nothing where that is no terminal.

    Nothing may be printed while bars stand: `clear` takes them away first.
    """

    def __init__(self, *, transient: bool) -> None:
        self.transient = transient
        self.progress: Progress | None = None
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Stop drawing: transient bars vanish, others stay as they are; new ones start afresh."""
        if self.progress is not None:
            self.progress.stop()
        self.progress, self.tasks = None, {}

    def _update(self, name: str, done: int, total: int, note: str = "") -> None:
        if not sys.stderr.isatty():
            return
        if self.progress is None:
            # rich would by default take over both streams while bars stand, and so send to the
            # terminal what was meant for a file or a pipe.
            self.progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(stderr=True),
                transient=self.transient,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self.progress.start()
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total, note=note)
        self.progress.update(self.tasks[name], completed=done, total=total, note=note)

    def _show_recording(self, event: Listened | Loaded) -> None:
        if isinstance(event, Listened):
            surveyed = event.surveyed
            bar, path = f"{event.side}, listening", surveyed.evidence.path
            self._update(bar, surveyed.number, surveyed.total, shown(path.name))
        else:
            loading = event.loading
            name = shown(loading.take.path.name)
            self._update(f"{event.side:9}", loading.number, loading.total, name)


class AuditDisplay(_Display):
    """Recordings listened to."""

    def __init__(self) -> None:
        super().__init__(transient=True)

    def show(self, event: Listened) -> None:
        """Draw one event."""
        self._show_recording(event)


class TrainingDisplay(_Display):
    """Recordings read, then scorer and judge with their held-out accuracy."""

    def __init__(self) -> None:
        super().__init__(transient=False)

    def show(self, event: Listened | Loaded | Listening | Checked | Taught) -> None:
        """Draw one event."""
        if isinstance(event, Listened | Loaded):
            self._show_recording(event)
            return
        if isinstance(event, Listening):
            self._update("heard    ", event.number, event.total, shown(event.path.name))
            return
        if isinstance(event, Taught):
            self._update("predictor", event.number, event.total, shown(event.path.name))
            return
        check = event.check
        note = f"held-out accuracy {100 * check.accuracy:.1f} %, loss {check.held_out_loss:.4f}"
        self._update(f"{event.who:9}", check.step, check.steps, note)


class SearchDisplay(_Display):
    """Recordings read, then sizes done and the size at work."""

    def __init__(self) -> None:
        super().__init__(transient=True)
        self.done = 0

    def show(self, event: Listened | Loaded | Look | Rung) -> None:
        """Draw one event."""
        if isinstance(event, Listened | Loaded):
            self._show_recording(event)
        elif isinstance(event, Rung):
            self.done += 1
        else:
            size, check = event.size, event.check
            note = f"width {size.width}, depth {size.depth}, trial {event.trial}"
            self._update("sizes", self.done, event.sizes, note)
            accuracy = f"held-out accuracy {100 * check.accuracy:.1f} %"
            self._update("steps", check.step, check.steps, accuracy)


class ReproducingDisplay(TrainingDisplay):
    """A training, then every method on every piece."""

    def show(self, event: Listened | Loaded | Listening | Checked | Taught | Measuring) -> None:
        """Draw one event."""
        if isinstance(event, Measuring):
            self._update("pieces   ", event.number, event.total, event.method)
        else:
            super().show(event)


class EvaluatingDisplay(_Display):
    """Every method on every pair, or every recording of two folders."""

    def __init__(self) -> None:
        super().__init__(transient=True)

    def show(self, event: Measuring | Started) -> None:
        """Draw one event."""
        if isinstance(event, Measuring):
            self._update("pairs", event.number - 1, event.total, event.method)
        else:
            self._update("files", event.number - 1, event.total, shown(event.input))


class EnhancingDisplay(_Display):
    """Files done, and the score falling step by step."""

    def __init__(self, files: int, steps: int) -> None:
        super().__init__(transient=True)
        self.files, self.steps = files, steps

    def show(self, event: Started | Step) -> None:
        """Draw one event."""
        if isinstance(event, Started):
            if self.files > 1:
                self._update("files", event.number - 1, event.total, shown(event.input))
        else:
            self._update("steps", event.number, self.steps, f"score {event.score:.3f}")


class ArchiveDisplay(_Display):
    """Files done, sound per minute, time left; a line a minute where no terminal is."""

    def __init__(self) -> None:
        super().__init__(transient=True)
        self.told = time.monotonic()

    def show(self, tally: Tally) -> None:
        """Draw how far a run is."""
        if sys.stderr.isatty():
            self._update("files", tally.done, tally.total, _pace(tally))
        elif time.monotonic() - self.told >= 60:
            self.told = time.monotonic()
            line = f"{tally.done} of {tally.total} done, {_pace(tally)}\n"
            sys.stderr.write(line)
            sys.stderr.flush()


def _pace(tally: Tally) -> str:
    failures = f", {tally.failed} failed" if tally.failed else ""
    left = timedelta(seconds=round(tally.left))
    return f"{tally.hours_per_minute:.2f} h of sound a minute, {left} left{failures}"


class PerformingDisplay(_Display):
    """Meters of what comes and goes."""

    def __init__(self) -> None:
        super().__init__(transient=True)
        self.meters: Live | None = None

    def clear(self) -> None:
        """Take the meters away."""
        if self.meters is not None:
            self.meters.stop()
        self.meters = None

    def show(self, levels: Levels, controls: Controls) -> None:
        """Draw one block's levels; the terminal is repainted a few times a second."""
        if not sys.stderr.isatty():
            return
        if self.meters is None:
            self.meters = Live(
                console=Console(stderr=True),
                transient=True,
                refresh_per_second=15,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self.meters.start()
        state = "bypassed" if controls.bypassed else f"amount {100 * controls.amount:.0f} %"
        lines = [
            f"{name:4}{meter(level)} {level:6.1f} dB"
            for name, level in (("in", levels.input_db), ("out", levels.output_db))
        ]
        load = f"load {100 * levels.load:.0f} %, dropouts {levels.dropouts}"
        self.meters.update(Text("\n".join([*lines, f"{state}; {load}"])))


def meter(level_db: float, width: int = 40) -> str:
    """Bar from -60 to 0 dB.

    Examples
    --------
    >>> meter(-30.0, 8)
    '████    '
    """
    share = min(max((level_db + 60) / 60, 0.0), 1.0)
    return ("█" * round(share * width)).ljust(width)
