"""Write and read the table of laws in docs/numerics.md."""

import re
from collections.abc import Mapping

from campaigns.harness.numerics.law import Law
from tests.numerics.sounds import NO_DB

_BLOCK = re.compile(r"(<!-- numerics:begin -->\n).*?(<!-- numerics:end -->)", re.DOTALL)
_ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def format_figure(value: float) -> str:
    """Format a figure with two digits."""
    if value == 0:
        return "0"
    if abs(value) >= 1e-3:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def format_tolerance(law: Law) -> str:
    """Format a tolerance as in the table."""
    return "to the bit" if law.within == 0 else f"{format_figure(law.within)} {law.unit}".strip()


def fill_table(page: str, laws: Mapping[str, Law], measured: Mapping[str, float]) -> str:
    """Return the page with a row for every law; laws without a new measurement keep their figure."""
    measured_before = {row[0]: row[2] for row in read_rows(page)}
    lines = ["| what holds | promised | measured at most |", "|---|---:|---:|"]
    for name, law in laws.items():
        figure = measured_before.get(law.says, "not yet")
        if name in measured:
            same = measured[name] == (NO_DB if law.unit.startswith("dB re") else 0)
            figure = "none" if same else f"{format_figure(measured[name])} {law.unit}".strip()
        lines.append(f"| {law.says} | {format_tolerance(law)} | {figure} |")
    return _BLOCK.sub(lambda m: m[1] + "\n".join(lines) + "\n" + m[2], page)


def read_rows(page: str) -> list[tuple[str, str, str]]:
    """Return rows of the table: law, tolerance, measured error."""
    block = _BLOCK.search(page)
    matches = _ROW.findall(block[0]) if block else []
    return [(a, b, c) for a, b, c in matches if a != "what holds" and not a.startswith("---")]
