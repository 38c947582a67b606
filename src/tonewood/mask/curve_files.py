"""Read gain curves from text files: Room EQ Wizard, AutoEq, Equalizer APO's GraphicEQ, and plain tables."""

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from tonewood.errors import CallError, failure_reason, printable

MAX_CURVE_BYTES = 1 << 20
_MAX_POINTS = 5_000
_COMMENTS = ("*", "#", ";", "//")
_FREQUENCY_COLUMNS = ("frequency", "freq", "hz", "freq(hz)", "frequency (hz)", "frequency_hz")
# AutoEq's tables have several columns of gains: the first of these that a table has is used.
_GAIN_COLUMNS = ("equalization", "gain", "gain_db", "db", "raw", "spl(db)")

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
            content = file.read(MAX_CURVE_BYTES + 1)
    except OSError as error:
        raise CallError(
            f"{printable(path)} cannot be read ({failure_reason(error)}): check the file"
        ) from None
    return parse_curve_file(content, path)


def parse_curve_file(content: bytes, name: str | Path) -> CurvePoints:
    """Return the points of a curve file's content; CallError names the file if it is not a curve."""
    if len(content) > MAX_CURVE_BYTES:
        raise CallError(f"{printable(name)} is over {MAX_CURVE_BYTES >> 20} MiB: give a table of Hz and dB")
    try:
        return parse_curve(content.decode("utf-8-sig", errors="replace"))
    except ValueError as error:
        raise CallError(
            f"{printable(name)} is not a curve ({printable(str(error))}): give lines of Hz and dB by rising "
            "frequency, as in 100,-2.5"
        ) from None


def thin_curve(points: CurvePoints, most: int) -> CurvePoints:
    """Return a curve with at most `most` points, equally spaced in octaves if it has more."""
    if len(points) <= most:
        return points
    at_hz, at_db = np.array(points).T
    hz = np.geomspace(at_hz[0], at_hz[-1], most)
    gain_db = np.interp(np.log(hz), np.log(at_hz), at_db)
    return tuple(zip(hz.tolist(), gain_db.round(3).tolist(), strict=True))


def parse_curve(text: str) -> CurvePoints:
    """Return the points of a text; comments and a header are skipped.

    Raises
    ------
    ValueError
        A line has no frequency and gain, the frequencies do not rise, or there are too few or too many.
    """
    if match := re.search(r"GraphicEQ:(.*)", text):
        lines = match[1].split(";")
    else:
        lines = [line for line in text.splitlines() if not line.lstrip().startswith(_COMMENTS)]
    rows = [(line.strip(), _split_columns(line.strip())) for line in lines if line.strip()]
    columns = (0, 1)
    if rows and not any(map(_is_number, rows[0][1])):
        columns = _columns_of_header(rows.pop(0)[1])
    points = [_parse_point(line, cells, columns) for line, cells in rows]
    if not 2 <= len(points) <= _MAX_POINTS:
        raise ValueError(f"{len(points)} points, 2 to {_MAX_POINTS} are possible")
    for (low, _), (high, _) in pairwise(points):
        if low >= high:
            raise ValueError(f"{high:g} Hz follows {low:g} Hz")
    return tuple(points)


def _columns_of_header(names: list[str]) -> tuple[int, int]:
    """Return the columns of frequencies and gains; the first two, if the header does not tell."""
    plain = [name.strip('" ').lower() for name in names]
    hz = next((plain.index(name) for name in _FREQUENCY_COLUMNS if name in plain), 0)
    gain = next((plain.index(name) for name in _GAIN_COLUMNS if name in plain), 1 if hz == 0 else 0)
    return hz, gain


def _parse_point(line: str, cells: list[str], columns: tuple[int, int]) -> tuple[float, float]:
    try:
        hz, gain_db = (float(cells[column]) for column in columns)
    except (ValueError, IndexError):
        raise ValueError(f"in the line {line[:40]!r}") from None
    if not (math.isfinite(hz) and math.isfinite(gain_db) and hz > 0):
        raise ValueError(f"{hz:g} Hz with {gain_db:g} dB")
    return hz, gain_db


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _split_columns(line: str) -> list[str]:
    """Split at semicolons, tabs, spaces or commas; what is not the separator may be a decimal comma."""
    for separator in (";", "\t"):
        if separator in line:
            return [cell.strip().replace(",", ".") for cell in line.split(separator)]
    words = line.split()
    if len(words) > 1 and not any(word.endswith(",") for word in words):
        return [word.replace(",", ".") for word in words]
    return [cell.strip() for cell in line.split(",")]
