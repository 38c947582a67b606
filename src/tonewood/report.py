"""Results, told to people in lines or to programs in JSON."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tonewood.errors import shown

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.files.modelfile import Model
    from tonewood.workflow.batch import Enhanced, Failed, Scored
    from tonewood.workflow.reproduce import Reproduction
    from tonewood.workflow.search import Ladder


def reproduction(done: "Reproduction", as_json: bool) -> None:
    """Tell what `reproduce` made."""
    if as_json:
        emit({"page": str(done.page), **done.summary})
        return
    for method, *figures in done.table:
        print(f"{method:<36}" + "".join(f"{figure:>11}" for figure in figures))
    print(
        f"accuracy   {100 * done.accuracy:.1f} % right on {done.windows} held-out windows of "
        f"{done.crop_seconds:g} s"
    )
    print(f"page       {shown(done.page)}")


def ladder(climbed: "Ladder", picture: Path | None, as_json: bool) -> None:
    """Tell what `search` found: a rung a line."""
    chosen, knee = climbed.chosen, climbed.knee
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
            for rung in climbed.rungs
        ]
        emit(
            {
                "rungs": rungs,
                "knee": knee.size._asdict(),
                "chosen": chosen.size._asdict(),
                "options": climbed.options,
                "picture": str(picture) if picture else None,
            }
        )
        return
    print("width  depth  parameters  accuracy, %     loss")
    for rung in climbed.rungs:
        accuracy, loss = rung.accuracy, rung.loss
        marks = [name for name, it in (("knee", knee), ("chosen", chosen)) if it is rung]
        print(
            f"{rung.size.width:5}  {rung.size.depth:5}  {rung.parameters:10,}  "
            f"{100 * accuracy.mean:5.1f} ± {100 * accuracy.error:3.1f}  "
            f"{loss.mean:.4f} ± {loss.error:.4f}  {', '.join(marks)}".rstrip()
        )
    if picture:
        print(f"picture    {shown(picture)}")
    print(f"smallest within one standard error of the best: {climbed.options}")


def enhanced(done: "Enhanced", as_json: bool) -> None:
    """Tell what became of one recording, and its verdict."""
    for warning in done.warnings:
        say(f"warning: {shown(done.input)}: {warning}")
    if as_json:
        certificate = done.certificate.model_dump(mode="json")
        emit(
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


def scored(done: "Scored", as_json: bool) -> None:
    """Tell the scores of one recording."""
    result = done.score
    if as_json:
        emit(
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


def failure(failure: "Failed", as_json: bool) -> None:
    """Name a recording that could not be done, and why."""
    say(f"tonewood: {failure.error}")
    if as_json:
        emit({"input": str(failure.input), "error": str(failure.error)})


def card(model: "Model") -> dict[str, Any]:
    """A model's card and settings, for programs."""
    settings = model.settings.model_dump(mode="json")
    return {"card": model.card.model_dump(mode="json"), "settings": settings}


def print_card(model: "Model") -> None:
    """Tell a model's card."""
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
    blend = card.prior.weights
    print(
        f"{'prior':<11}static {100 * blend[0]:.0f} %, neighbours {100 * blend[1]:.0f} %, networks "
        f"{100 * (blend[2] + blend[3]):.0f} %, {100 * blend[4]:.0f} % of their level; "
        f"guide {card.prior.guide_weight:g}"
    )
    versions = ", ".join(f"{name} {value}" for name, value in card.versions.items())
    print(f"{'trained':<11}in {card.seconds:.0f} s, seed {card.seed}, {versions}")
    for number, line in enumerate(card.notice.splitlines()):
        print(f"{'' if number else 'notice':<11}{shown(line)}".rstrip())


def emit(value: dict[str, Any]) -> None:
    """Write one JSON object on a line of standard output."""
    # ASCII: file names may hold bytes that are no UTF-8, and the stream may be of any encoding.
    print(json.dumps(value, allow_nan=False), flush=True)


def say(line: str) -> None:
    """Write a line for people on standard error."""
    print(line, file=sys.stderr, flush=True)
