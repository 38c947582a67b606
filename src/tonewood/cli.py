"""The command line: parse → workflow → exit code.

Exit 0: all done. 1: some input failed, each named. 2: the call was wrong.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tonewood.errors import CallError, TonewoodError

if TYPE_CHECKING:
    from tonewood.files.modelfile import Model
    from tonewood.workflow.batch import Enhanced, Failed, Scored

app = typer.Typer(
    help="Reshape recordings toward a sound learnt from two folders of recordings.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

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


def main() -> NoReturn:
    """Run the command line and exit."""
    try:
        app()
    except TonewoodError as error:
        _say(f"tonewood: {error}")
        sys.exit(2 if isinstance(error, CallError) else 1)
    except KeyboardInterrupt:
        _say("tonewood: interrupted; what was done is kept")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone: nothing is left to tell it
        sys.stderr.close()
        sys.exit(1)
    sys.exit(0)


@app.command()
def train(
    reference: Annotated[Path, typer.Option(help="Folder of the sound that is wanted.")],
    source: Annotated[Path, typer.Option(help="Folder of the sound that is to be improved.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write.")],
    seed: Annotated[int, typer.Option(help="Same seed, same machine: same model.")] = 0,
    device: DeviceOption = "cpu",
    group_by: Annotated[
        str, typer.Option(help="What is kept together when takes are held out: file or folder.")
    ] = "file",
    judge: Annotated[
        bool, typer.Option("--judge/--no-judge", help="Train the independent judge too.")
    ] = True,
    notice: Annotated[
        Path | None, typer.Option(help="Text file on the recordings' origin, kept in the model.")
    ] = None,
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Learn a model from two folders of recordings; they need not correspond."""
    from tonewood.files.modelfile import Model
    from tonewood.settings import ModelSettings, changed
    from tonewood.terminal import TrainingDisplay
    from tonewood.workflow import train as workflow

    named = [
        f"training.seed={seed}",
        f'training.group_by="{group_by}"',
        f"training.judge={json.dumps(judge)}",
    ]
    settings = changed(ModelSettings(), [*named, *(set_ or [])])
    _refuse_existing(output, overwrite)
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
        print(f"model    {output}")
        _print_card(model)


@app.command()
def enhance(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Files or folders.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder, or file for one INPUT.")],
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

    named = [f"seed={seed}", f"render.amount={amount}", f"render.match={json.dumps(not no_match)}"]
    if prior != "auto":
        named.append(f'prior.kind="{prior}"')
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
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Files or folders.")],
    model: ModelOption = "cello",
    json_: JsonOption = False,
) -> None:
    """Score recordings: 0 sounds like the reference, 1 like the source."""
    from tonewood.files.modelfile import load
    from tonewood.workflow import batch

    loaded = load(model)
    paths = batch.recordings(inputs)
    failed = 0
    if not json_:
        print("scorer  judge  recording")
    for event in batch.score_files(paths, loaded):
        if isinstance(event, batch.Failed):
            failed += 1
            _report_failure(event, json_)
        elif isinstance(event, batch.Scored):
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
        print(f"model    {model}")
        _print_card(loaded)


def _report_enhanced(done: "Enhanced", as_json: bool) -> None:
    for warning in done.warnings:
        _say(f"warning: {done.input}: {warning}")
    if as_json:
        _emit(
            {
                "input": str(done.input),
                "output": str(done.output),
                "recipe": str(done.recipe),
                "picture": str(done.picture) if done.picture else None,
                "scorer": done.scorer.model_dump(),
                "judge": done.judge.model_dump() if done.judge else None,
                "prior": done.prior,
                "steps": done.steps,
                "gain_db": done.gain_db,
                "largest_db": done.largest_db,
                "rms_db": done.rms_db,
                "seconds": done.seconds,
                "warnings": list(done.warnings),
            }
        )
        return
    judge = f", judge {done.judge.before:.2f} → {done.judge.after:.2f}" if done.judge else ""
    print(f"{done.input}")
    print(f"  sound    {done.output}")
    if done.picture:
        print(f"  picture  {done.picture}")
    print(f"  recipe   {done.recipe}")
    print(
        f"  score    {done.scorer.before:.2f} → {done.scorer.after:.2f}{judge}"
        "   (1 sounds like the source, 0 like the reference)"
    )
    print(
        f"  mask     {done.prior}, {done.steps} steps, {done.rms_db:.1f} dB rms, "
        f"{done.largest_db:.1f} dB at most; {done.seconds:.1f} s"
    )


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
    print(f"{result.scorer:6.2f}  {judge}  {done.input}")


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
        print(f"{name:9}{folder.takes} takes, {folder.hours * 60:.1f} minutes ({folder.name})")
    for name, it in (("scorer", card.scorer), ("judge", card.judge)):
        if it is None:
            continue
        seconds = model.settings.scorer.crop_seconds
        print(
            f"{name:9}{100 * it.accuracy:.1f} % right on {it.windows} held-out windows of "
            f"{seconds:g} s; calibration error {it.calibration_error:.3f}; "
            f"{it.parameters:,} parameters"
        )
        reference, source = it.reference_scores, it.source_scores
        print(
            f"{'':9}reference takes score {reference.median:.2f} "
            f"({reference.low:.2f} to {reference.high:.2f}), source takes {source.median:.2f} "
            f"({source.low:.2f} to {source.high:.2f})"
        )
    versions = ", ".join(f"{name} {value}" for name, value in card.versions.items())
    print(f"trained  in {card.seconds:.0f} s, seed {card.seed}, {versions}")
    if card.notice:
        print(f"notice   {card.notice}")


def _refuse_existing(path: Path, overwrite: bool) -> None:
    """Ask before minutes of work, not after."""
    from tonewood.errors import OutputError, shown

    if path.exists() and not overwrite:
        raise OutputError(f"{shown(path)} exists: name another output or pass --overwrite")
    if not path.parent.is_dir():
        raise OutputError(f"{shown(path)} has no folder to lie in: make {shown(path.parent)} first")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CallError(f"{path} cannot be read as text: {error}") from None


def _emit(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False), flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
