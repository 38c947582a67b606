"""HTML for reports and notebooks, complete in one file, and figures: of matplotlib, and of arrays as PNG."""

import base64
import struct
import warnings
import zlib
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from tonewood.audio_io.recording import resample
from tonewood.dsp.stft import GainFunction, log_magnitude, stft
from tonewood.settings import SpectrumSettings
from tonewood.utils.arrays import FloatArray, Samples, to_mono

MAX_EMBEDDED_SECONDS = 20.0
"""Longest audio in a notebook, which would otherwise grow by megabytes."""

Pixels = NDArray[np.uint8]
"""Red, green and blue [row, column, 3], top row first."""

_REPORT_STYLE = """
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }
img { max-width: 100%; }
audio { width: 100%; }
figure { margin: 2rem 0; }
figcaption { color: #444; }
.table { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ccc; }
th:first-child, td:first-child { text-align: left; }
"""
_MAX_COLUMNS = 900  # more than a page is wide; a recording has 100 frames a second
# ColorBrewer RdBu: blue below 0, red above. matplotlib's inferno: black to pale yellow.
_DIVERGING = np.array([(33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130),
                       (178, 24, 43)])  # fmt: skip
_SEQUENTIAL = np.array([(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)])
_CURVE_SIZE = (600, 90)


# --- Reports


class ReportHeading(NamedTuple):
    """Title of a section."""

    text: str


class ReportTable(NamedTuple):
    """Table of texts; the first row is the head."""

    caption: str
    rows: Sequence[Sequence[str]]


class ReportFigure(NamedTuple):
    """PNG figure with its caption."""

    name: str
    png: bytes
    caption: str


class ReportAudio(NamedTuple):
    """Audio player; `kind` is a media type such as `audio/flac`."""

    kind: str
    content: bytes
    caption: str


ReportBlock = str | ReportHeading | ReportTable | ReportFigure | ReportAudio
"""Element of a report; plain text is a paragraph."""


def render_report(title: str, blocks: Sequence[ReportBlock]) -> str:
    """Return a report as an HTML page; all texts are escaped."""
    body = [f"<h1>{escape(title)}</h1>", *map(_block_html, blocks)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{_REPORT_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _block_html(block: ReportBlock) -> str:
    # Everything that is not markup of this module is escaped: titles and names come from files.
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    if isinstance(block, ReportHeading):
        return f"<h2>{escape(block.text)}</h2>"
    if isinstance(block, ReportTable):
        head, *rows = block.rows
        lines = [_table_row_html("th", head), *(_table_row_html("td", row) for row in rows)]
        table = "\n".join(["<table>", *lines, "</table>"])
        return f'<div class="table">{table}</div>\n<p>{escape(block.caption)}</p>'
    if isinstance(block, ReportFigure):
        source = _data_uri("image/png", block.png)
        element = f'<img alt="{escape(block.name)}" src="{source}">'
    else:
        element = f'<audio controls src="{_data_uri(block.kind, block.content)}"></audio>'
    return f"<figure>{element}<figcaption>{escape(block.caption)}</figcaption></figure>"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _table_row_html(cell: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(text)}</{cell}>" for text in texts) + "</tr>"


def new_figure(rows: int, columns: int, *, width: float = 6.5, height: float = 3.2) -> tuple[Any, Any]:
    """Return a figure of panels of a size in inches, and the panels [row][column]."""
    from matplotlib.figure import Figure  # no pyplot: it keeps figures and needs a display

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels[-1]:
        axes.set_xlabel("s")
    return figure, panels


def figure_png(figure: Any, dpi: int = 100) -> bytes:  # noqa: ANN401 - matplotlib comes without types
    """Return a figure as a PNG."""
    stream = BytesIO()
    save_figure(figure, stream, dpi)
    return stream.getvalue()


def save_figure(figure: Any, target: Path | BinaryIO, dpi: int) -> None:  # noqa: ANN401 - matplotlib has no types
    """Save a figure as a PNG.

    matplotlib takes text between two `$` for mathematics, which names of files, folders and models are not.
    Only the numbers of an axis, which it writes itself, are mathematics.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    numbers = set[int]()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True), axis.get_offset_text())
            # Names at the ticks have such a formatter; all others write numbers.
            if not isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter):
                numbers.update(map(id, labels))
    for text in figure.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; that is no fault of the recording.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(target, format="png", dpi=dpi)


# --- Arrays as pictures


def gains_image(gain_db: FloatArray, max_db: float) -> Pixels:
    """Return gains [row, frame] in dB as colours, low rows at the bottom; white is 0 dB."""
    return _apply_colormap(0.5 + 0.5 * np.asarray(gain_db) / max_db, _DIVERGING)


def levels_image(level_db: FloatArray) -> Pixels:
    """Return levels [row, frame] in dB as colours, low rows at the bottom; bright is loud."""
    level = np.asarray(level_db)
    return _apply_colormap(1 + (level - level.max()) / 80, _SEQUENTIAL)


def encode_png(pixels: Pixels) -> bytes:
    """Encode pixels as a PNG (ISO/IEC 15948) without a drawing library."""
    height, width, _ = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB, not interlaced
    # Each line starts with its filter type; 0 is none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    # A chunk is its length, name, content, and the CRC of name and content.
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )  # fmt: skip


def html_figure(pixels: Pixels, caption: str) -> str:
    """Return HTML of a picture, stretched to the page, with its caption."""
    source = _data_uri("image/png", encode_png(pixels))
    style = "width:100%;max-width:60rem;height:160px;image-rendering:auto"
    return (
        f'<figure style="margin:.5rem 0"><img style="{style}" alt="{escape(caption)}" '
        f'src="{source}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _apply_colormap(position: FloatArray, anchors: NDArray[np.int64]) -> Pixels:
    """Return colours at positions [row, frame] from 0 to 1, interpolated between anchors."""
    columns = position.shape[1]
    sampled = np.linspace(0, columns - 1, min(columns, _MAX_COLUMNS)).round().astype(np.int64)
    color = np.clip(position[::-1, sampled], 0, 1) * (len(anchors) - 1)
    channels = [np.interp(color, np.arange(len(anchors)), channel) for channel in anchors.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


# --- Notebooks


def audio_player_html(samples: Samples, rate: int) -> str:
    """Return HTML of a player with samples (channels, samples) as 16-bit WAV, if they are short."""
    seconds = samples.shape[1] / rate
    if seconds > MAX_EMBEDDED_SECONDS:
        return (
            f"<p>{seconds:.0f} s of audio; the limit is {MAX_EMBEDDED_SECONDS:.0f} s: write it to a file to "
            "listen</p>"
        )
    stream = BytesIO()
    soundfile.write(stream, samples.T, rate, format="WAV", subtype="PCM_16")
    return f'<audio controls src="{_data_uri("audio/wav", stream.getvalue())}"></audio>'


def spectrogram_html(samples: Samples, rate: int, spectrum: SpectrumSettings) -> str:
    """Return HTML of a spectrogram of samples (channels, samples)."""
    wave = resample(to_mono(samples), rate, spectrum.rate)
    level = log_magnitude(stft(wave, spectrum), spectrum)
    seconds = samples.shape[1] / rate
    caption = f"output: 0 to {spectrum.rate / 2:.0f} Hz, {seconds:.1f} s; black is -80 dB"
    return html_figure(levels_image(level), caption)


def mask_html(
    gain_at: GainFunction, top_hz: float, seconds: FloatArray, largest_db: float, rms_db: float
) -> str:
    """Return HTML of a mask as a picture, its rows equally spaced from 0 to `top_hz`."""
    limit_db = max(1.0, largest_db)  # a mask of tenths of a dB must not look like a strong one
    caption = (
        f"mask: 0 to {top_hz:.0f} Hz, {seconds[-1]:.1f} s; blue -{limit_db:.1f} dB, "
        f"red +{limit_db:.1f} dB; {rms_db:.1f} dB rms"
    )
    return html_figure(gains_image(gain_at(np.linspace(0, top_hz, 128), seconds), limit_db), caption)


def score_curve_html(values: tuple[float, ...]) -> str:
    """Return HTML of scores over time as a line, 1 on top."""
    width, height = _CURVE_SIZE
    count = max(len(values) - 1, 1)
    points = " ".join(f"{width * i / count:.1f},{height * (1 - value):.1f}" for i, value in enumerate(values))
    if len(values) == 1:  # a single window is as long as the line
        points += f" {width},{height * (1 - values[0]):.1f}"
    return (
        f'<svg viewBox="0 -4 {width} {height + 8}" width="{width}" height="{height + 8}" '
        'role="img" aria-label="score along time"><path fill="none" stroke="#ccc" '
        f'd="M0 0H{width}M0 {height}H{width}"/><polyline fill="none" stroke="#b2182b" '
        f'stroke-width="2" points="{points}"/></svg>'
    )


def table_html(rows: list[tuple[str, str]]) -> str:
    """Return HTML of a table of names and texts; both are escaped."""
    lines = (
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in rows
    )
    return f"<table>{''.join(lines)}</table>"
