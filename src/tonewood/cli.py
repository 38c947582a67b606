"""The command line: parse → workflow → exit code.

Exit 0: all done. 1: some input failed, each named. 2: the call was wrong.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from tonewood import report
from tonewood.errors import CallError, OutputError, TonewoodError, shown


class _Commands(typer.core.TyperGroup):
    """Commands whose every end is one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - whichever click typer brings
        """Run a command; what it raises on purpose becomes its exit code."""
        try:
            return super().invoke(ctx)
        except TonewoodError as error:
            report.say(f"tonewood: {error}")
            raise typer.Exit(2 if isinstance(error, CallError) else 1) from None
        except KeyboardInterrupt:
            report.say("tonewood: interrupted; what was done is kept")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    help="Reshape recordings toward a sound learnt from two folders of recordings.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# readable=False: click would take an unreadable file for a wrong call, and drop the whole batch.
InputsArgument = Annotated[
    list[Path], typer.Argument(metavar="INPUT", readable=False, help="Files or folders.")
]
ModelOption = Annotated[
    str, typer.Option("-m", "--model", help="Model file, or the name of a bundled model.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on standard output.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting, as in search.alpha=0.02."),
]


def main() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        # An arrow that the terminal's encoding lacks is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="tonewood")


@app.command()
def train(
    reference: Annotated[
        Path, typer.Option(readable=False, help="Folder of the sound that is wanted.")
    ],
    source: Annotated[
        Path, typer.Option(readable=False, help="Folder of the sound that is to be improved.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", readable=False, help="Model file to write.")
    ],
    seed: Annotated[int, typer.Option(help="Same seed, same machine: same model.")] = 0,
    device: DeviceOption = "cpu",
    group_by: Annotated[
        str, typer.Option(help="What is kept together when takes are held out: file or folder.")
    ] = "file",
    judge: Annotated[
        bool, typer.Option("--judge/--no-judge", help="Train the independent judge too.")
    ] = True,
    notice: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="Text file on the recordings' origin, kept in the model."
        ),
    ] = None,
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Learn a model from two folders of recordings."""
    from tonewood.files.modelfile import Model
    from tonewood.settings import ModelSettings, changed
    from tonewood.terminal import TrainingDisplay
    from tonewood.workflow import train as workflow

    named = [
        f"training.seed={seed}",
        f"training.group_by={json.dumps(group_by)}",
        f"training.judge={json.dumps(judge)}",
    ]
    settings = changed(ModelSettings(), [*named, *(set_ or [])])
    _check_target(output, overwrite)
    text = _read_text(notice) if notice else ""
    with TrainingDisplay() as display:
        for event in workflow.train(
            reference, source, settings, name=output.stem, device=device, notice=text
        ):
            if isinstance(event, Model):
                event.save(output, overwrite=overwrite)
                model = event
            else:
                display.show(event)
    if json_:
        report.emit({"model": str(output), "digest": model.digest, **report.card(model)})
    else:
        print(f"model      {shown(output)}")
        report.print_card(model)


@app.command()
def search(
    reference: Annotated[
        Path, typer.Option(readable=False, help="Folder of the sound that is wanted.")
    ],
    source: Annotated[
        Path, typer.Option(readable=False, help="Folder of the sound that is to be improved.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", readable=False, help="Picture to draw, a PNG."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first split; the next ones count up.")] = 0,
    device: DeviceOption = "cpu",
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Find the smallest scorer that tells two folders apart as well as any."""
    from tonewood.settings import ModelSettings, changed
    from tonewood.terminal import SearchDisplay
    from tonewood.workflow import picture
    from tonewood.workflow import search as workflow

    settings = changed(ModelSettings(), [f"training.seed={seed}", *(set_ or [])])
    if output is not None:
        if output.suffix.lower() != ".png":
            raise CallError(f"{shown(output)} is no name of a PNG: end it in .png")
        _check_target(output, overwrite)
        picture.check("a picture")
    with SearchDisplay() as display:
        for event in workflow.search(reference, source, settings, device=device):
            if isinstance(event, workflow.Ladder):
                ladder = event
            else:
                display.show(event)
    if output is not None:
        picture.draw_ladder(output, ladder, overwrite=overwrite)
    report.ladder(ladder, output, json_)


@app.command()
def enhance(
    inputs: InputsArgument,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", readable=False, help="Folder, or file for one INPUT."),
    ],
    model: ModelOption = "cello",
    amount: Annotated[float, typer.Option(help="0 leaves the input, 1 is all of it.")] = 1.0,
    method: Annotated[str, typer.Option(help="search, or paper: exactly as published.")] = "search",
    prior: Annotated[
        str, typer.Option(help="auto, none, random, blocks, static or neighbours.")
    ] = "auto",
    steps: Annotated[
        int | None, typer.Option(help="Steps of the search; 0: the prior alone.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws what is random.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Reshape what is unlike the source folder too.")
    ] = False,
    no_match: Annotated[
        bool, typer.Option("--no-match", help="Leave loudness and peak as they come.")
    ] = False,
    device: DeviceOption = "cpu",
    plot: Annotated[bool, typer.Option("--plot", help="Draw before, mask and after.")] = False,
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Reshape recordings toward the model's reference."""
    from tonewood.files.modelfile import load
    from tonewood.settings import changed, enhance_settings
    from tonewood.terminal import EnhancingDisplay
    from tonewood.workflow import batch
    from tonewood.workflow.train import check_device

    named = [
        f"seed={seed}",
        f"render.amount={amount}",
        f"render.match={json.dumps(not no_match)}",
        f"force={json.dumps(force)}",
    ]
    if prior != "auto":
        named.append(f"prior.kind={json.dumps(prior)}")
    if steps is not None:
        named.append(f"search.steps={steps}")
    settings = changed(enhance_settings(method), [*named, *(set_ or [])])
    check_device(device)
    loaded = load(model)
    laid = batch.jobs(inputs, output)
    failed = 0
    with EnhancingDisplay(len(laid), settings.search.steps) as display:
        for event in batch.enhance_files(
            laid, loaded, settings, plot=plot, overwrite=overwrite, device=device
        ):
            if isinstance(event, batch.Failed | batch.Enhanced):
                display.clear()
            if isinstance(event, batch.Failed):
                failed += 1
                report.failure(event, json_)
            elif isinstance(event, batch.Enhanced):
                report.enhanced(event, json_)
            else:
                display.show(event)
    _finish(failed, len(laid))


@app.command()
def score(
    inputs: InputsArgument,
    model: ModelOption = "cello",
    json_: JsonOption = False,
) -> None:
    """Score recordings: 0 sounds like the reference, 1 like the source."""
    from tonewood.files.modelfile import load
    from tonewood.workflow import batch

    loaded = load(model)
    paths = list(batch.recordings(inputs))
    failed = 0
    titled = json_
    for event in batch.score_files(paths, loaded):
        if isinstance(event, batch.Failed):
            failed += 1
            report.failure(event, json_)
        elif isinstance(event, batch.Scored):
            if not titled:
                print("scorer  judge  recording")
                titled = True
            report.scored(event, json_)
    _finish(failed, len(paths))


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a bundled model.")],
    json_: JsonOption = False,
) -> None:
    """Show a model's card."""
    from tonewood.files.modelfile import load

    loaded = load(model)
    if json_:
        report.emit({"model": model, "digest": loaded.digest, **report.card(loaded)})
    else:
        print(f"model      {shown(model)}")
        report.print_card(loaded)


@app.command()
def reproduce(
    corpus: Annotated[
        Path, typer.Option(readable=False, help="Folder laid out as train|test/{good,cheap}.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", readable=False, help="Folder for the report.")
    ],
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Model to take instead of training one."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws what is random.")] = 0,
    device: DeviceOption = "cpu",
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Reproduce the paper's figures, accuracy and table on a corpus, as one page."""
    from tonewood.files.modelfile import load
    from tonewood.settings import ModelSettings, changed
    from tonewood.terminal import ReproducingDisplay
    from tonewood.workflow import picture
    from tonewood.workflow import reproduce as workflow

    if model is not None and set_:
        raise CallError("--set is for training, and -m names a model already trained: leave one")
    settings = changed(ModelSettings(), [f"training.seed={seed}", *(set_ or [])])
    picture.check("a report")
    loaded = load(model) if model is not None else None
    with ReproducingDisplay() as display:
        for event in workflow.reproduce(
            corpus, output, settings, model=loaded, device=device, overwrite=overwrite
        ):
            if isinstance(event, workflow.Reproduction):
                done = event
            else:
                display.show(event)
    report.reproduction(done, json_)


def _finish(failed: int, total: int) -> None:
    if failed:
        if total > 1:
            report.say(f"tonewood: {failed} of {total} failed, {total - failed} done")
        raise typer.Exit(1)


def _check_target(path: Path, overwrite: bool) -> None:
    """Refuse before minutes of work what would be refused after it."""
    if path.is_dir():
        raise OutputError(f"{shown(path)} is a folder, not a file: name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{shown(path)} exists: name another output or pass --overwrite")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise OutputError(f"{shown(path)} has no folder to lie in: make {shown(folder)} first")
    if not os.access(folder, os.W_OK):
        raise OutputError(
            f"{shown(path)} cannot be written (permission denied): name another output folder"
        )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8"
        raise CallError(
            f"{shown(path)} cannot be read as text ({why.lower()}): name a text file"
        ) from None
