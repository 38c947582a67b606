"""Reports as one HTML page that holds its pictures and sounds and asks nobody for anything."""

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

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


class ReportHeading(NamedTuple):
    """The title of a section."""

    text: str


class ReportTable(NamedTuple):
    """A table as text, its head first."""

    caption: str
    rows: Sequence[Sequence[str]]


class ReportFigure(NamedTuple):
    """A figure: a PNG and what is on it."""

    name: str
    png: bytes
    caption: str


class ReportAudio(NamedTuple):
    """A player: an audio file that browsers play, of a kind such as `audio/flac`."""

    kind: str
    content: bytes
    caption: str


ReportBlock = str | ReportHeading | ReportTable | ReportFigure | ReportAudio
"""What a page is made of; plain text is a paragraph."""


def render_report(title: str, blocks: Sequence[ReportBlock]) -> str:
    """HTML of a report; every text is taken for text, whatever it holds."""
    body = [f"<h1>{escape(title)}</h1>", *map(_block_html, blocks)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{_REPORT_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _block_html(block: ReportBlock) -> str:
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
        shown = f'<img alt="{escape(block.name)}" src="{source}">'
    else:
        shown = f'<audio controls src="{_data_uri(block.kind, block.content)}"></audio>'
    return f"<figure>{shown}<figcaption>{escape(block.caption)}</figcaption></figure>"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _table_row_html(cell: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(text)}</{cell}>" for text in texts) + "</tr>"
