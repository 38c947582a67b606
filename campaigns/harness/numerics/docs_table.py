"""The table of laws in docs/numerics.md, and what is read of it."""

import re
from collections.abc import Mapping

from campaigns.harness.numerics.law import Law
from tests.numerics.sounds import NO_DB

_BLOCK = re.compile(r"(<!-- numerics:begin -->\n).*?(<!-- numerics:end -->)", re.DOTALL)
_ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def shown(value: float) -> str:
    """A figure as people write it."""
    if value == 0:
        return "0"
    if abs(value) >= 1e-3:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def promised(law: Law) -> str:
    """A tolerance, as the table has it."""
    return "to the bit" if law.within == 0 else f"{shown(law.within)} {law.unit}".strip()


def filled(page: str, laws: Mapping[str, Law], measured: Mapping[str, float]) -> str:
    """Return the page with a row for every law; laws that were not measured keep their figure."""
    known = {row[0]: row[2] for row in rows(page)}
    lines = ["| what holds | promised | measured at most |", "|---|---:|---:|"]
    for name, law in laws.items():
        figure = known.get(law.says, "not yet")
        if name in measured:
            same = measured[name] == (NO_DB if law.unit.startswith("dB re") else 0)
            figure = "none" if same else f"{shown(measured[name])} {law.unit}".strip()
        lines.append(f"| {law.says} | {promised(law)} | {figure} |")
    return _BLOCK.sub(lambda m: m[1] + "\n".join(lines) + "\n" + m[2], page)


def rows(page: str) -> list[tuple[str, str, str]]:
    """Rows of the table: what holds, what is promised, what was measured."""
    block = _BLOCK.search(page)
    found = _ROW.findall(block[0]) if block else []
    return [(a, b, c) for a, b, c in found if a != "what holds" and not a.startswith("---")]
