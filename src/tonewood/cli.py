"""The command line: parse → workflow → exit code.

Exit 0: all done. 1: some input failed, each named. 2: the call was wrong.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from tonewood.errors import CallError, OutputError, TonewoodError, shown

if TYPE_CHECKING:
    from tonewood.files.modelfile import Model
    from tonewood.workflow.batch import Enhanced, Failed, Scored
    from tonewood.workflow.reproduce import Reproduction
    from tonewood.workflow.search import Ladder


class _Commands(typer.core.TyperGroup):
    """Commands whose every end is one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - whichever click typer brings
        """Run a command; what it raises on purpose becomes its exit code."""
        try:
            return super().invoke(ctx)
        except TonewoodError as error:
            _say(f"tonewood: {error}")
            raise typer.Exit(2 if isinstance(error, CallError) else 1) from None
        except KeyboardInterrupt:
            _say("tonewood: interrupted; what was done is kept")
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
        _emit({"model": str(output), "digest": model.digest, **_card(model)})
    else:
        print(f"model      {shown(output)}")
        _print_card(model)


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
    _report_ladder(ladder, output, json_)


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
                _report_failure(event, json_)
            elif isinstance(event, batch.Enhanced):
                _report_enhanced(event, json_)
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
            _report_failure(event, json_)
        elif isinstance(event, batch.Scored):
            if not titled:
                print("scorer  judge  recording")
                titled = True
            _report_scored(event, json_)
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
        _emit({"model": model, "digest": loaded.digest, **_card(loaded)})
    else:
        print(f"model      {shown(model)}")
        _print_card(loaded)


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
    _report_reproduction(done, json_)


def _report_reproduction(done: "Reproduction", as_json: bool) -> None:
    if as_json:
        _emit({"page": str(done.page), **done.summary})
        return
    for method, *figures in done.table:
        print(f"{method:<36}" + "".join(f"{figure:>11}" for figure in figures))
    print(
        f"accuracy   {100 * done.accuracy:.1f} % right on {done.windows} held-out windows of "
        f"{done.crop_seconds:g} s"
    )
    print(f"page       {shown(done.page)}")


def _report_ladder(ladder: "Ladder", picture: Path | None, as_json: bool) -> None:
    chosen, knee = ladder.chosen, ladder.knee
    if as_json:
        rungs = [
            {
                **rung.size._asdict(),
                "parameters": rung.parameters,
                "accuracy": rung.accuracy._asdict(),
                "loss": rung.loss._asdict(),
                "accuracies": list(rung.accuracies),
                "losses": list(rung.losses),
                "seconds": rung.seconds,
            }
            for rung in ladder.rungs
        ]
        _emit(
            {
                "rungs": rungs,
                "knee": knee.size._asdict(),
                "chosen": chosen.size._asdict(),
                "options": ladder.options,
                "picture": str(picture) if picture else None,
            }
        )
        return
    print("width  depth  parameters  accuracy, %     loss")
    for rung in ladder.rungs:
        accuracy, loss = rung.accuracy, rung.loss
        marks = [name for name, it in (("knee", knee), ("chosen", chosen)) if it is rung]
        print(
            f"{rung.size.width:5}  {rung.size.depth:5}  {rung.parameters:10,}  "
            f"{100 * accuracy.mean:5.1f} ± {100 * accuracy.error:3.1f}  "
            f"{loss.mean:.4f} ± {loss.error:.4f}  {', '.join(marks)}".rstrip()
        )
    if picture:
        print(f"picture    {shown(picture)}")
    print(f"smallest within one standard error of the best: {ladder.options}")


def _report_enhanced(done: "Enhanced", as_json: bool) -> None:
    for warning in done.warnings:
        _say(f"warning: {shown(done.input)}: {warning}")
    if as_json:
        certificate = done.certificate.model_dump(mode="json")
        _emit(
            {
                "input": str(done.input),
                "output": str(done.output),
                "recipe": str(done.recipe),
                "picture": str(done.picture) if done.picture else None,
                "scorer": certificate["scorer"],
                "judge": certificate["judge"],
                "certificate": certificate,
                "prior": done.prior,
                "steps": done.steps,
                "gain_db": done.gain_db,
                "seconds": done.seconds,
                "warnings": list(done.warnings),
            }
        )
        return
    found = done.certificate
    print(shown(done.input))
    print(f"  sound    {shown(done.output)}")
    if done.picture:
        print(f"  picture  {shown(done.picture)}")
    print(f"  recipe   {shown(done.recipe)}")
    judge = f", judge {found.judge.before:.2f} → {found.judge.after:.2f}" if found.judge else ""
    print(
        f"  score    {found.scorer.before:.2f} → {found.scorer.after:.2f}{judge}"
        "   (1 sounds like the source, 0 like the reference)"
    )
    print(
        f"  mask     prior {done.prior}, {_counted(done.steps, 'step')}; "
        f"{found.rms_db:.1f} dB rms, {found.largest_db:.1f} dB at most; {done.seconds:.1f} s"
    )
    print(f"  verdict  {found.line}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _report_scored(done: "Scored", as_json: bool) -> None:
    result = done.score
    if as_json:
        _emit(
            {
                "input": str(done.input),
                "scorer": result.scorer,
                "judge": result.judge,
                "windows": list(result.windows),
            }
        )
        return
    judge = "    -" if result.judge is None else f"{result.judge:5.2f}"
    print(f"{result.scorer:6.2f}  {judge}  {shown(done.input)}")


def _report_failure(failure: "Failed", as_json: bool) -> None:
    _say(f"tonewood: {failure.error}")
    if as_json:
        _emit({"input": str(failure.input), "error": str(failure.error)})


def _finish(failed: int, total: int) -> None:
    if failed:
        if total > 1:
            _say(f"tonewood: {failed} of {total} failed, {total - failed} done")
        raise typer.Exit(1)


def _card(model: "Model") -> dict[str, Any]:
    settings = model.settings.model_dump(mode="json")
    return {"card": model.card.model_dump(mode="json"), "settings": settings}


def _print_card(model: "Model") -> None:
    card = model.card
    for name, folder in (("reference", card.reference), ("source", card.source)):
        print(
            f"{name:<11}{folder.takes} takes, {folder.hours * 60:.1f} minutes "
            f"({shown(folder.name)})"
        )
    for name, it in (("scorer", card.scorer), ("judge", card.judge)):
        if it is None:
            continue
        seconds = model.settings.scorer.crop_seconds
        print(
            f"{name:<11}{100 * it.accuracy:.1f} % right on {it.windows} held-out windows of "
            f"{seconds:g} s; calibration error {it.calibration_error:.3f}; "
            f"{it.parameters:,} parameters"
        )
        reference, source = it.reference_scores, it.source_scores
        print(
            f"{'':<11}reference takes score {reference.median:.2f} "
            f"({reference.low:.2f} to {reference.high:.2f}), source takes {source.median:.2f} "
            f"({source.low:.2f} to {source.high:.2f})"
        )
    versions = ", ".join(f"{name} {value}" for name, value in card.versions.items())
    print(f"{'trained':<11}in {card.seconds:.0f} s, seed {card.seed}, {versions}")
    for number, line in enumerate(card.notice.splitlines()):
        print(f"{'' if number else 'notice':<11}{shown(line)}".rstrip())


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


def _emit(value: dict[str, Any]) -> None:
    # ASCII: file names may hold bytes that are no UTF-8, and the stream may be of any encoding.
    print(json.dumps(value, allow_nan=False), flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
