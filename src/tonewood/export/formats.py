"""Format corrections as text for other programs.

Automation: CSV, and a Reaper effect in one file that contains table and filters. Parametric EQ:
Equalizer APO, AutoEq's `ParametricEQ.txt`, REW's generic filter settings, CamillaDSP 2 and 3, which
all define shelves by Q and use the coefficients of `dsp.equalizer`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tonewood.dsp.equalizer import EqFit, FilterType
from tonewood.utils.arrays import FloatArray

_THIN_TOLERANCE_DB = 0.05
_MAX_THINNED_ROWS = 64  # that one straight line may replace; bounds the search per row
MAX_JSFX_ROWS = 50_000


class GainTable(NamedTuple):
    """Gains over bands and time.

    Attributes
    ----------
    hz : array [band]
        Nominal centre frequencies.
    seconds : array [time]
    gain_db : array [band, time]
    """

    hz: FloatArray
    seconds: FloatArray
    gain_db: FloatArray

    def thin(self) -> "GainTable":
        """Remove rows that linear interpolation restores within 0.05 dB."""
        rows, start = [0], 0
        last = len(self.seconds) - 1
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
    assert len(table.seconds) <= MAX_JSFX_ROWS
    count = len(table.hz)
    names = [f"g{number}" for number in range(count)]
    rows = [
        f"row({second:.3f}, {', '.join(_format_gain(gain) for gain in gains)});"
        for second, gains in zip(table.seconds, filters_db.T, strict=True)
    ]
    return _JSFX_TEMPLATE.format(
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
    return f"{round(float(gain), 2) + 0.0:.2f}"


_JSFX_TABLE_ADDRESS = 1000
_JSFX_TEMPLATE = """desc:{title}

slider1:100<0,100,1>Amount (%)
slider2:0<0,36000,0.001>The recording starts at (s)
slider3:{gain}<-60,60,0.01>Gain (dB)

in_pin:left
in_pin:right
out_pin:left
out_pin:right

@init
bands = {count};
q = {q};
// Memory: centres, gains in force, five coefficients and two states a band, the table.
centre = 0;
now = 100;
coef = 200;
left = 500;
right = 600;
table = {rows_from};
width = bands + 1;
rows = 0;
wait = 0;
clock = 0;
{centres}

function row(t {names}) local(p) (
  p = table + rows * width;
  p[0] = t; {stores}
  rows += 1;
);

// Peaking filter of the Audio EQ Cookbook.
function design(i g) local(a w alpha c n p) (
  a = 10 ^ (g / 40);
  w = 2 * $pi * min(centre[i], 0.45 * srate) / srate;
  alpha = sin(w) / (2 * q);
  c = cos(w);
  n = 1 / (1 + alpha / a);
  p = coef + i * 5;
  p[0] = (1 + alpha * a) * n;
  p[1] = -2 * c * n;
  p[2] = (1 - alpha * a) * n;
  p[3] = -2 * c * n;
  p[4] = (1 - alpha / a) * n;
);

// Gains at a time of the recording, in a straight line between two rows of the table.
function update(t) local(low high middle part p i) (
  low = 0;
  high = rows - 1;
  loop(20,
    middle = floor((low + high) / 2);
    table[middle * width] <= t ? (low = middle) : (high = middle);
  );
  p = table + low * width;
  part = low + 1 < rows ? ((t - p[0]) / (p[width] - p[0])) : 0;
  part = max(0, min(1, part));
  i = 0;
  loop(bands,
    now[i] = low + 1 < rows ? (p[i + 1] + part * (p[width + i + 1] - p[i + 1])) : p[i + 1];
    design(i, now[i] * slider1 / 100);
    i += 1;
  );
);

// All bands, one after the other: transposed direct form II.
function chain(x state) local(i p s y) (
  i = 0;
  loop(bands,
    p = coef + i * 5;
    s = state + i * 2;
    y = p[0] * x + s[0];
    s[0] = p[1] * x - p[3] * y + s[1];
    s[1] = p[2] * x - p[4] * y;
    x = y;
    i += 1;
  );
  x;
);

{table}

@slider
whole = 10 ^ (slider3 * slider1 / 100 / 20);
wait = 0;

@block
playing = play_state & 1;
playing ? (clock = play_position - slider2);

@sample
wait <= 0 ? (
  update(clock);
  wait = 64;
);
wait -= 1;
playing ? (clock += 1 / srate);
spl0 = whole * chain(spl0, left);
spl1 = whole * chain(spl1, right);
"""


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
    """Format the sections `filters` and `pipeline` of CamillaDSP, for two channels."""
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
    lines += ["pipeline:", "  - type: Filter", "    channels: [0, 1]", "    names:"]
    lines += [f"      - {name}" for name in ("tonewood_gain", *names)]
    return "\n".join(lines) + "\n"


EQUALIZER_FORMATS: dict[str, Callable[[EqFit, str], str]] = {
    "apo": format_equalizer_apo,
    "autoeq": format_autoeq,
    "rew": format_rew,
    "camilladsp": format_camilladsp,
}
