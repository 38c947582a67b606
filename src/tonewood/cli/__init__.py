"""Command line: each command parses its options, runs a workflow, prints results and sets the exit code.

Exit codes: 0 success, 1 some input failed (each is named), 2 wrong call, 130 interrupted.
"""

import io
import os
import signal
import sys
from typing import Any

import typer
import typer.core

from tonewood.cli import common, enhance, evaluate, inspect, listen, recipes, research, servers, train
from tonewood.errors import CallError, TonewoodError
from tonewood.utils.optional_torch import explain_missing_torch
from tonewood.utils.parallel import tune_malloc


class _CommandGroup(typer.core.TyperGroup):
    """Group of commands that turns exceptions into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - the type depends on the version of typer
        """Run a command, and turn our own exceptions into exit codes."""
        try:
            return self._invoke_command(ctx)
        except TonewoodError as error:
            common.print_stderr(f"tonewood: {error}")
            raise typer.Exit(2 if isinstance(error, CallError) else 1) from None
        except KeyboardInterrupt:
            common.print_stderr("tonewood: interrupted; finished outputs are kept")
            raise typer.Exit(130) from None

    def _invoke_command(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run a command; if it needs torch, which is not installed, say so."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError:
            with explain_missing_torch(str(ctx.invoked_subcommand)):
                raise


cli_app = typer.Typer(
    cls=_CommandGroup,
    help="Change recordings toward a sound that is learnt from two folders of recordings.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for _command in (
    train.audit_command,
    train.train_command,
    research.manifest_command,
    enhance.enhance_command,
    inspect.score_command,
    inspect.explain_command,
    evaluate.evaluate_command,
    servers.live_command,
    inspect.onnx_command,
    inspect.info_command,
    inspect.settings_command,
    recipes.render_command,
    recipes.apply_command,
    recipes.diff_command,
    recipes.export_command,
    research.search_command,
    research.reproduce_command,
    servers.studio_command,
    research.harp_command,
):
    cli_app.command(_command.__name__.removesuffix("_command"))(_command)
cli_app.add_typer(listen.listen_app, name="listen")


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
    tune_malloc()
    for stream in (sys.stdout, sys.stderr):
        # Output has arrows, which the encoding of the terminal may lack.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    cli_app(prog_name="tonewood")
