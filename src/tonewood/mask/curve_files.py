"""Read gain curves from text files: Room EQ Wizard, AutoEq, Equalizer APO's GraphicEQ, and plain tables."""

import re
from itertools import pairwise
from pathlib import Path

from tonewood.errors import CallError, failure_reason, printable

_MOST_BYTES = 1 << 20
_MOST_POINTS = 5_000
_COMMENTS = ("*", "#", ";", "//")
# Columns of AutoEq's tables that hold gains, the best first.
_GAIN_COLUMNS = ("equalization", "gain", "db", "raw")

CurvePoints = tuple[tuple[float, float], ...]
"""Frequency in Hz and gain in dB of each point, by rising frequency."""


def read_curve(path: Path) -> CurvePoints:
    """Return the points of a curve file.

    Raises
    ------
    CallError
        The file cannot be read, or is not a table of frequencies and gains.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CallError(
            f"{printable(path)} cannot be read ({failure_reason(error)}): check the file"
        ) from None
    if len(content) > _MOST_BYTES:
        raise CallError(f"{printable(path)} is over {_MOST_BYTES >> 20} MiB: give a table of Hz and dB")
    points = parse_curve(content.decode("utf-8-sig", errors="replace"))
    if not 2 <= len(points) <= _MOST_POINTS or any(a[0] >= b[0] for a, b in pairwise(points)):
        raise CallError(
            f"{printable(path)} is not a curve: give lines of Hz and dB by rising frequency, as in 100,-2.5"
        )
    return points


def parse_curve(text: str) -> CurvePoints:
    """Return the points of a text; lines without two numbers, such as comments, are skipped."""
    if match := re.search(r"GraphicEQ:(.*)", text):
        rows = [point.split() for point in match[1].split(";")]
    else:
        lines = [line.strip() for line in text.splitlines()]
        rows = [_split_columns(line) for line in lines if line and not line.startswith(_COMMENTS)]
    column = 1
    points = []
    for row in rows:
        try:
            points.append((float(row[0]), float(row[column])))
        except (ValueError, IndexError):
            # A header says which column holds the gains.
            names = [name.strip('" ').lower() for name in row]
            column = next((names.index(name) for name in _GAIN_COLUMNS if name in names), column)
    return tuple(points)


def _split_columns(line: str) -> list[str]:
    # Spreadsheets of some languages write 2,5 and separate with semicolons or tabs.
    for separator in (";", "\t"):
        if separator in line:
            return [cell.strip().replace(",", ".") for cell in line.split(separator)]
    return [cell for cell in re.split(r"[,\s]+", line) if cell]
