"""`tonewood diff`: two recipes or models → what changed, in musicians' words."""

from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.workflow.differ import Difference

_Side = Annotated[
    str, typer.Argument(help="Recipe, or the output it lies beside; model file, or model's name.")
]


def diff(a: _Side, b: _Side, json_: JsonOption = False) -> None:
    """Say what changed from A to B: where, by how many dB, and when."""
    from tonewood.workflow import corrections
    from tonewood.workflow.differ import difference

    found = difference(corrections.load(a), corrections.load(b))
    if json_:
        report.emit({**found.model_dump(mode="json"), "line": found.line})
    else:
        _tell(found)


def _tell(found: "Difference") -> None:
    """Tell a difference: a sentence, the registers, the moments, the settings."""
    print(f"{found.a} → {found.b}")
    print(f"  {found.line}")
    print(f"  {'':<12}{'Hz':>13}{'A':>8}{'B':>8}{'change':>9}")
    for it in found.registers:
        span = f"{it.low_hz:.0f}–{it.high_hz:.0f}"
        print(f"  {it.name:<12}{span:>13}{it.a_db:>+8.1f}{it.b_db:>+8.1f}{it.change_db:>+9.1f} dB")
    for name, a, b, unit in (
        ("tilt", found.tilt_a, found.tilt_b, "dB per octave"),
        ("level", found.gain_a, found.gain_b, "dB"),
    ):
        print(f"  {name:<25}{a:>+8.1f}{b:>+8.1f}{b - a:>+9.1f} {unit}")
    for passage in found.passages:
        span = f"{report.clock(passage.start_s)} to {report.clock(passage.end_s)}"
        print(f"  when        {passage.name} {passage.change_db:+.1f} dB from {span}")
    for stated in found.stated:
        print(f"  {stated.name}: {stated.a} → {stated.b}")
    if not found.moments:
        print("  compared by their averages: they are not of one take")
