"""Progress in the terminal: events of the workflow → rich bars on standard error."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tonewood.errors import shown
from tonewood.masking.optimise import Step
from tonewood.workflow.batch import Started
from tonewood.workflow.train import Checked, Loaded


class _Display:
    """Bars on standard error while a block runs; nothing where that is no terminal."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def _update(self, name: str, done: int, total: int, note: str = "") -> None:
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(name, total=total, note=note)
        self.progress.update(self.tasks[name], completed=done, total=total, note=note)


class TrainingDisplay(_Display):
    """Recordings read, then scorer and judge with their held-out accuracy."""

    def show(self, event: Loaded | Checked) -> None:
        """Draw one event."""
        if isinstance(event, Loaded):
            loading = event.loading
            self._update(f"{event.side:9}", loading.number, loading.total, loading.take.path.name)
            return
        check = event.check
        note = f"held-out accuracy {100 * check.accuracy:.1f} %, loss {check.held_out_loss:.4f}"
        self._update(f"{event.who:9}", check.step, check.steps, note)


class EnhancingDisplay(_Display):
    """Files done, and the score falling step by step."""

    def __init__(self, files: int, steps: int) -> None:
        super().__init__()
        self.files, self.steps = files, steps

    def show(self, event: Started | Step) -> None:
        """Draw one event."""
        if isinstance(event, Started):
            if self.files > 1:
                self._update("files", event.number - 1, event.total, shown(event.input))
        else:
            self._update("steps", event.number, self.steps, f"score {event.score:.3f}")
