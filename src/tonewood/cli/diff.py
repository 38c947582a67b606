"""`tonewood diff`: two recipes or models → what changed, in musicians' words."""

from typing import TYPE_CHECKING, Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption

if TYPE_CHECKING:  # torch takes a second to load, and nothing here computes
    from tonewood.workflow.differ import CorrectionDifference

_CorrectionArgument = Annotated[
    str, typer.Argument(help="Recipe, or the output it lies beside; model file, or model's name.")
]


def diff_command(a: _CorrectionArgument, b: _CorrectionArgument, json_: JsonOption = False) -> None:
    """Say what changed from A to B: where, by how many dB, and when."""
    from tonewood.workflow import corrections
    from tonewood.workflow.differ import compare_corrections

    found = compare_corrections(corrections.load_correction(a), corrections.load_correction(b))
    if json_:
        report.print_json({**found.model_dump(mode="json"), "line": found.line})
    else:
        _print_difference(found)


def _print_difference(found: "CorrectionDifference") -> None:
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
        span = f"{report.format_time(passage.start_s)} to {report.format_time(passage.end_s)}"
        print(f"  when        {passage.name} {passage.change_db:+.1f} dB from {span}")
    for stated in found.stated:
        print(f"  {stated.name}: {stated.a} → {stated.b}")
    if not found.moments:
        print("  compared by their averages: they are not of one take")
