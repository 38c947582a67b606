"""`tonewood enhance`: recordings → recordings, reshaped."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import (
    DeviceOption,
    InputsArgument,
    JsonOption,
    ModelOption,
    OverwriteOption,
    SetOption,
    finish,
)
from tonewood.errors import shown

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.workflow.batch import Enhanced


def enhance(
    inputs: InputsArgument,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", readable=False, help="Folder, or file for one INPUT."),
    ],
    model: ModelOption = "cello",
    amount: Annotated[float, typer.Option(help="0 leaves the input, 1 is all of it.")] = 1.0,
    method: Annotated[
        str, typer.Option(help="search, predicted: in one pass, or paper: as published.")
    ] = "search",
    prior: Annotated[
        str, typer.Option(help="auto, none, random, blocks, static, neighbours or predicted.")
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
                _tell(event, json_)
            else:
                display.show(event)
    finish(failed, len(laid))


def _tell(done: "Enhanced", as_json: bool) -> None:
    """Tell what became of one recording, and its verdict."""
    for warning in done.warnings:
        report.say(f"warning: {shown(done.input)}: {warning}")
    if as_json:
        certificate = done.certificate.model_dump(mode="json")
        report.emit(
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
