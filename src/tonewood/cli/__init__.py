"""The command line, a module for each command: parse → workflow → tell → exit code.

Exit 0: all done. 1: some input failed, each named. 2: the call was wrong.
"""

import io
import os
import signal
import sys
from typing import Any

import typer
import typer.core

from tonewood.cli import (
    common,
    enhance,
    evaluate,
    inspect,
    listen,
    recipes,
    research,
    servers,
    train,
)
from tonewood.errors import CallError, TonewoodError
from tonewood.utils.parallel import tune_malloc


class _CommandGroup(typer.core.TyperGroup):
    """Commands whose every end is one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - whichever click typer brings
        """Run a command; what it raises on purpose becomes its exit code."""
        try:
            return super().invoke(ctx)
        except TonewoodError as error:
            common.print_stderr(f"tonewood: {error}")
            raise typer.Exit(2 if isinstance(error, CallError) else 1) from None
        except KeyboardInterrupt:
            common.print_stderr("tonewood: interrupted; what was done is kept")
            raise typer.Exit(130) from None


cli_app = typer.Typer(
    cls=_CommandGroup,
    help="Reshape recordings toward a sound learnt from two folders of recordings.",
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
    """End by an exception, so that what is half done is cleared away, as on an interrupt."""
    raise SystemExit(128 + signum)


def main() -> None:
    """Run the command line and exit."""
    for name in ("SIGTERM", "SIGHUP"):
        asked = getattr(signal, name, None)
        if asked is not None and signal.getsignal(asked) is signal.SIG_DFL:  # nohup ignores it
            signal.signal(asked, _exit_on_signal)
    # The work is in parts that fit one core's cache. Threads that share them wait for each other,
    # and beside a busy core that takes several times as long as one alone (docs/performance.md).
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tune_malloc()
    for stream in (sys.stdout, sys.stderr):
        # An arrow that the terminal's encoding lacks is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    cli_app(prog_name="tonewood")
