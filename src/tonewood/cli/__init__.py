"""Command line: each command parses its options, runs a workflow, prints results and sets the exit code.

Exit codes: 0 success, 1 some input failed (each is named), 2 wrong call, 130 interrupted.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from tonewood.cli import common
from tonewood.cli.options import UsageError, explain_wrong_values, is_help, one_line
from tonewood.errors import CallError, TonewoodError, explain_missing_torch, failure_reason, printable

_HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class LazyCommand(typer.core.TyperCommand):
    """Command in the list of commands; its module is imported when the command is called.

    Importing all modules and reading the options of all commands takes as long as starting Python.
    """

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name, short_help=summary)
        self.module = module

    def load(self) -> Any:  # noqa: ANN401 - the type depends on the version of typer
        """Return the command itself, with its options, or the group of this name."""
        module = import_module(f"tonewood.cli.{self.module}")
        app = getattr(module, f"{self.name}_app", None)
        if app is None:
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(self.name)(getattr(module, f"{self.name}_command"))
        command = typer.main.get_command(app)
        explain_wrong_values(command)
        return command

    def make_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as in typer
        """Parse the arguments of a call of the command itself."""
        _refuse_standard_streams(kwargs["args"] if "args" in kwargs else args[1])
        return self.load().make_context(*args, **kwargs)


_TEXT_OPTIONS = ("--domain", "--licence", "--title", "--question")


def _refuse_standard_streams(arguments: Sequence[str]) -> None:
    """Raise CallError for `-`, which stands for standard input or output elsewhere."""
    for before, argument in pairwise(("", *arguments)):
        if (argument == "-" and before not in _TEXT_OPTIONS) or argument in ("-o-", "--output=-"):
            raise CallError(
                "- as standard input or output is not supported, because recipes name files: give the name "
                "of a file (./- for one called -)"
            )


COMMANDS = (
    LazyCommand("audit", "train", "Test whether confounds separate two folders."),
    LazyCommand("train", "train", "Learn a model from two folders of recordings."),
    LazyCommand("manifest", "research", "Write a manifest of a data set for train --manifest."),
    LazyCommand("enhance", "enhance", "Change recordings toward the sound of the model's reference."),
    LazyCommand("score", "inspect", "Score recordings: 0 sounds like the reference, 1 like the source."),
    LazyCommand("explain", "inspect", "Show which regions and parts of notes decide the score."),
    LazyCommand("evaluate", "research", "Measure how close to the reference a model brings recordings."),
    LazyCommand("live", "servers", "Process a microphone in real time, 40 ms later, until Ctrl-C."),
    LazyCommand("onnx", "inspect", "Write a model's scorer or predictor as an ONNX file."),
    LazyCommand("info", "inspect", "Show the card of a model."),
    LazyCommand("inventory", "inspect", "List recordings with format and loudness, and damaged ones."),
    LazyCommand("doctor", "inspect", "Show versions, extras, cores and cache, and test the installation."),
    LazyCommand("settings", "inspect", "List every setting of --set with default, unit and limits."),
    LazyCommand("render", "recipes", "Render the output of a recipe again, to the same bytes."),
    LazyCommand("apply", "recipes", "Apply the correction of a recipe to other takes or stems."),
    LazyCommand("diff", "recipes", "Compare two corrections."),
    LazyCommand("export", "recipes", "Write a correction for other programs."),
    LazyCommand("search", "research", "Find the smallest scorer that separates two folders well."),
    LazyCommand("reproduce", "research", "Reproduce the figures of the paper on a corpus, as one page."),
    LazyCommand("studio", "servers", "Serve the studio and open it in the browser."),
    LazyCommand("listen", "listen", "Build, serve and evaluate a blind listening test."),
)


class _CommandGroup(typer.core.TyperGroup):
    """Group of all commands, which turns exceptions into one line and an exit code."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as typer passes them
        super().__init__(**(options | {"commands": COMMANDS}))

    def make_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as in typer
        """Parse what stands before the command."""
        with _exit_code_of_errors(self):
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - the type depends on the version of typer
        """Run a command, and turn our own exceptions into exit codes."""
        from tonewood.utils.parallel import tune_malloc  # lists of commands and options need no memory

        tune_malloc()
        with _exit_code_of_errors(self):
            result = self._invoke_command(ctx)
            sys.stdout.flush()  # here, so that a full disk is an error like any other
            return result

    def _invoke_command(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run a command; if it needs torch, which is not installed, say so."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError:
            with explain_missing_torch(str(ctx.invoked_subcommand)):
                raise


@contextmanager
def _exit_code_of_errors(command: typer.core.TyperGroup) -> Iterator[None]:
    """Print an exception of a group in one line, and exit with its code."""
    try:
        try:
            yield
        except UsageError as error:
            if is_help(error):
                raise
            raise one_line(error, command, "tonewood") from None
    except TonewoodError as error:
        common.print_stderr(f"tonewood: {error}")
        raise typer.Exit(2 if isinstance(error, CallError) else 1) from None
    except KeyboardInterrupt as interrupt:
        # The error has a text if the command knows how to continue.
        common.print_stderr("; ".join(("tonewood: interrupted", *map(str, interrupt.args))))
        raise typer.Exit(130) from None
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of the output has ended, as `head` does
            raise
        _report_system_error(error)
        raise typer.Exit(1) from None


cli_app = typer.Typer(
    cls=_CommandGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=_HELP_OPTIONS,
)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from importlib.metadata import version

        print(f"tonewood {version('tonewood')}")
        raise typer.Exit


@cli_app.callback()
def _describe(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Change recordings toward a sound that is learnt from two folders of recordings."""


def _report_system_error(error: OSError) -> None:
    """Print what the system refused in one line."""
    name = "standard output" if error.filename is None else printable(os.fsdecode(error.filename))
    common.print_stderr(f"tonewood: {name} cannot be used ({failure_reason(error)}): choose another place")
    if error.filename is None:
        # Python writes what is left in the buffer at exit, and would fail again.
        with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _exit_on_signal(signum: int, _: object) -> None:
    """Raise an exception, so that partial outputs are removed as after an interrupt."""
    raise SystemExit(128 + signum)


def main() -> None:
    """Run the command line and exit."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # SIGHUP does not exist on Windows
        # nohup sets SIGHUP to be ignored, and that must stay.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit_on_signal)
    # Chunks fit the cache of one core. OpenMP threads that share a chunk wait for each other, which
    # takes several times as long beside a busy core (docs/performance.md).
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The search for plugins reads the metadata of every installed package; settings need none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for stream in (sys.stdout, sys.stderr):
        # Output has arrows, which the encoding of the terminal may lack.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            cli_app(prog_name="tonewood")
        finally:
            sys.stdout.flush()
    except OSError as error:  # of a list of options, or of the output of a command that failed
        if error.errno == errno.EPIPE:
            raise
        _report_system_error(error)
        sys.exit(1)
