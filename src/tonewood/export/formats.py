"""Text formats of other programs: corrections to write, gain curves to read.

Automation: CSV, and a Reaper effect in one file that contains table and filters. Parametric EQ:
Equalizer APO, AutoEq's `ParametricEQ.txt`, REW's generic filter settings, CamillaDSP, which
all define shelves by Q and use the coefficients of `dsp.equalizer`. Curves: Room EQ Wizard, AutoEq,
Equalizer APO's GraphicEQ, and plain tables.
"""

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tonewood.dsp.equalizer import EqFit, FilterType
from tonewood.errors import CallError, InputFileError, failure_reason, printable
from tonewood.utils.arrays import FloatArray

_THIN_TOLERANCE_DB = 0.05
_MAX_THINNED_ROWS = 64  # that one straight line may replace; bounds the search per row
MAX_JSFX_ROWS = 50_000
_JSFX_TABLE_ADDRESS = 1000  # in the effect's memory, behind its filters
_JSFX_TEMPLATE = Path(__file__).with_name("automation.jsfx")


class GainTable(NamedTuple):
    """Gains over bands and time."""

    hz: FloatArray  # [band]: nominal centre frequencies
    seconds: FloatArray  # [time]
    gain_db: FloatArray  # [band, time]

    def thin(self) -> "GainTable":
        """Remove rows that linear interpolation restores within 0.05 dB."""
        rows, start = [0], 0
        last = len(self.seconds) - 1
        # Greedy: extend each line as far as it fits. Not the fewest rows, but linear in time.
        while start < last:
            end = start + 1
            while end < min(last, start + _MAX_THINNED_ROWS) and self._is_straight(start, end + 1):
                end += 1
            rows.append(end)
            start = end
        return GainTable(self.hz, self.seconds[rows], self.gain_db[:, rows])

    def _is_straight(self, start: int, end: int) -> bool:
        part = (np.arange(start + 1, end) - start) / (end - start)
        first, second = self.gain_db[:, start, None], self.gain_db[:, end, None]
        line = first + (second - first) * part
        return bool(np.abs(line - self.gain_db[:, start + 1 : end]).max() <= _THIN_TOLERANCE_DB)


def format_gain_csv(table: GainTable) -> str:
    """Format a table as CSV: gains in dB, a row per time, a column per band."""
    lines = ["seconds," + ",".join(f"{hz:g} Hz" for hz in table.hz)]
    for second, row in zip(table.seconds, table.gain_db.T, strict=True):
        lines.append(f"{second:.3f}," + ",".join(_format_gain(gain) for gain in row))
    return "\n".join(lines) + "\n"


def format_jsfx(table: GainTable, filters_db: FloatArray, q: float, gain_db: float, title: str) -> str:
    """Format a Reaper effect (JSFX, EEL2) that applies the table along the recording.

    Parameters
    ----------
    table : GainTable
        Target gains.
    filters_db : array [band, time]
        Gains of the filters that give the target together; see `dsp.equalizer.graphic_eq_gains`.
    q : float
        Of every filter.
    gain_db : float
        Overall gain.
    """
    # The memory of an effect is limited; the caller checks.
    assert len(table.seconds) <= MAX_JSFX_ROWS
    count = len(table.hz)
    names = [f"g{number}" for number in range(count)]
    rows = [
        f"row({second:.3f}, {', '.join(_format_gain(gain) for gain in gains)});"
        for second, gains in zip(table.seconds, filters_db.T, strict=True)
    ]
    return _JSFX_TEMPLATE.read_text(encoding="utf-8").format(
        title=title,
        gain=f"{gain_db:.2f}",
        count=count,
        q=f"{q:.4f}",
        rows_from=_JSFX_TABLE_ADDRESS,
        centres="\n".join(f"centre[{i}] = {hz:g};" for i, hz in enumerate(table.hz)),
        names=" ".join(names),
        stores=" ".join(f"p[{i + 1}] = {name};" for i, name in enumerate(names)),
        table="\n".join(rows),
    )


def _format_gain(gain: float) -> str:
    # 0.01 dB is inaudible, and keeps long tables short; adding 0.0 turns -0.0 into 0.0.
    return f"{round(float(gain), 2) + 0.0:.2f}"


_APO_FILTER_TYPES: dict[FilterType, str] = {"low_shelf": "LSC", "peaking": "PK", "high_shelf": "HSC"}
_REW_FILTER_TYPES: dict[FilterType, str] = {"low_shelf": "LS Q", "peaking": "PK", "high_shelf": "HS Q"}
_CAMILLA_FILTER_TYPES: dict[FilterType, str] = {
    "low_shelf": "Lowshelf",
    "peaking": "Peaking",
    "high_shelf": "Highshelf",
}


def format_autoeq(fit: EqFit, title: str) -> str:
    """Format `ParametricEQ.txt` of AutoEq, which has no comments."""
    del title
    lines = [f"Preamp: {fit.gain_db:.2f} dB"]
    for number, band in enumerate(fit.bands, start=1):
        lines.append(
            f"Filter {number}: ON {_APO_FILTER_TYPES[band.kind]} Fc {band.hz:g} Hz "
            f"Gain {band.gain_db:.2f} dB Q {band.q:.3f}"
        )
    return "\n".join(lines) + "\n"


def format_equalizer_apo(fit: EqFit, title: str) -> str:
    """Format a configuration of Equalizer APO: AutoEq's lines with a comment."""
    return f"# {title}\n" + format_autoeq(fit, title)


def format_rew(fit: EqFit, title: str) -> str:
    """Format filter settings of Room EQ Wizard, whose notes give the overall gain it has no field for."""
    lines = [
        "Filter Settings file",
        "",
        "Room EQ V5.20",
        "",
        f"Notes:{title}; gain of the whole {fit.gain_db:.2f} dB",
        "",
        "Equaliser: Generic",
        "No measurement",
    ]
    for number, band in enumerate(fit.bands, start=1):
        lines.append(
            f"Filter {number:2}: ON  {_REW_FILTER_TYPES[band.kind]:<9}Fc {band.hz:7.1f} Hz  "
            f"Gain {band.gain_db:6.2f} dB  Q {band.q:6.3f}"
        )
    return "\n".join(lines) + "\n"


def format_camilladsp(fit: EqFit, title: str) -> str:
    """Format the sections `filters` and `pipeline` of CamillaDSP 3, for two channels."""
    return _format_camilladsp(fit, title, ["channels: [0, 1]"])


def format_camilladsp2(fit: EqFit, title: str) -> str:
    """Format the same for CamillaDSP 2, whose pipeline steps have one channel each."""
    return _format_camilladsp(fit, title, ["channel: 0", "channel: 1"])


def _format_camilladsp(fit: EqFit, title: str, steps: Sequence[str]) -> str:
    names = [f"tonewood_{number:02}" for number in range(1, len(fit.bands) + 1)]
    lines = [
        f"# {title}",
        "filters:",
        "  tonewood_gain:",
        "    type: Gain",
        "    parameters:",
        f"      gain: {fit.gain_db:.2f}",
        "      inverted: false",
        "      mute: false",
    ]
    for name, band in zip(names, fit.bands, strict=True):
        lines += [
            f"  {name}:",
            "    type: Biquad",
            "    parameters:",
            f"      type: {_CAMILLA_FILTER_TYPES[band.kind]}",
            f"      freq: {band.hz:.1f}",
            f"      gain: {band.gain_db:.2f}",
            f"      q: {band.q:.3f}",
        ]
    lines.append("pipeline:")
    for channels in steps:
        lines += ["  - type: Filter", f"    {channels}", "    names:"]
        lines += [f"      - {name}" for name in ("tonewood_gain", *names)]
    return "\n".join(lines) + "\n"


def format_graphic_eq(hz: FloatArray, gain_db: FloatArray) -> str:
    """Format the GraphicEQ line of Equalizer APO, which Wavelet and JamesDSP read too."""
    points = (f"{f:g} {_format_gain(gain)}" for f, gain in zip(hz, gain_db, strict=True))
    return f"GraphicEQ: {'; '.join(points)}\n"


EQUALIZER_FORMATS: dict[str, Callable[[EqFit, str], str]] = {
    "apo": format_equalizer_apo,
    "autoeq": format_autoeq,
    "rew": format_rew,
    "camilladsp": format_camilladsp,
    "camilladsp2": format_camilladsp2,
}


# --- Curves from files

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

    InputFileError if the file cannot be read. CallError if it is not a table of frequencies and gains.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CURVE_BYTES + 1)
    except OSError as error:
        raise InputFileError(
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

    ValueError if a line has no frequency and gain, the frequencies do not rise, or there are too few or too
    many.
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
