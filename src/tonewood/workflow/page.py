"""The report of `reproduce`: one HTML page that holds its pictures and asks nobody for anything."""

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_STYLE = """
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }
img { max-width: 100%; }
figure { margin: 2rem 0; }
figcaption { color: #444; }
table { border-collapse: collapse; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ccc; }
th:first-child, td:first-child { text-align: left; }
"""


class Picture(NamedTuple):
    """A figure: a PNG and what is on it."""

    name: str
    png: bytes
    caption: str


class Table(NamedTuple):
    """A table as text, its head first."""

    caption: str
    rows: Sequence[Sequence[str]]


def page(title: str, paragraphs: Sequence[str], table: Table, pictures: Sequence[Picture]) -> str:
    """HTML of a report; every text is taken for text, whatever it holds."""
    head, *rows = table.rows
    body = [f"<h1>{escape(title)}</h1>"]
    body += [f"<p>{escape(text)}</p>" for text in paragraphs]
    body += ["<table>", _row("th", head), *(_row("td", row) for row in rows), "</table>"]
    body.append(f"<p>{escape(table.caption)}</p>")
    for picture in pictures:
        data = base64.b64encode(picture.png).decode("ascii")
        body.append(
            f'<figure><img alt="{escape(picture.name)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _row(cell: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(text)}</{cell}>" for text in texts) + "</tr>"
