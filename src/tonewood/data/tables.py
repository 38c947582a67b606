"""Read tables as people save them: CSV by hand, by programs, or by a spreadsheet in any country."""

import codecs
import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tonewood.utils.files import read_regular

_SEPARATORS = ",;\t|"
_BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class TableRow(NamedTuple):
    """Row of a table: the line where it ends, and its cells without spaces around them."""

    line: int
    cells: list[str]


class Table(NamedTuple):
    """Table with a header."""

    columns: list[str]  # header in lower case
    separator: str  # with another than a comma, numbers may have a decimal comma
    # Rows that are not empty. It raises csv.Error at a row that is not CSV.
    rows: Iterator[TableRow]

    def dictionaries(self, names: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield line and cells of each row by column; `names` spells some columns."""
        spelt = {name.lower(): name for name in names}
        keys = [spelt.get(column, column) for column in self.columns]
        for line, cells in self.rows:
            yield line, dict(zip(keys, cells, strict=False))


def read_table(path: Path, required: Sequence[str]) -> Table:
    """Read a table; the required columns show what separates its cells.

    Accepts UTF-8 and UTF-16 with their marks, commas, semicolons, tabs and bars, any case and spaces in the
    header, a line such as ``sep=;`` before it, and empty rows.

    OSError or UnicodeDecodeError if the file cannot be read. csv.Error if the header is not CSV.
    """
    text = decode_text(read_regular(path))
    first, _, rest = text.partition("\n")
    skipped = 0
    if first.strip().lower().startswith("sep=") and len(first.strip()) <= 5:
        text, skipped = rest, 1
    separator = _find_separator(text, required)
    # csv takes all rows after an unclosed quote as one cell, unless it is strict.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t", strict=True
    )

    def rows() -> Iterator[TableRow]:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield TableRow(reader.line_num + skipped, [cell.strip() for cell in cells])

    iterator = rows()
    header = next(iterator, TableRow(1, []))
    return Table([cell.lower() for cell in header.cells], separator, iterator)


def decode_text(content: bytes) -> str:
    """Return text in UTF-8, or in UTF-16 with its byte order mark; UnicodeDecodeError if it is neither."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    return content.decode("utf-8-sig")  # spreadsheets start UTF-8 with a mark, too


def _find_separator(text: str, required: Sequence[str]) -> str:
    """Return the separator that gives the header most of the required columns; a comma if several do."""
    header = next((line for line in text.splitlines() if line.strip()), "")

    def count(separator: str) -> int:
        columns = {cell.strip().strip('"').strip().lower() for cell in header.split(separator)}
        return len(columns & {name.lower() for name in required})

    return max(_SEPARATORS, key=count)


def parse_number(text: str, separator: str = ",") -> float:
    """Return a number, with a decimal comma if the cells are not separated by commas; NaN if it is none."""
    if separator != "," and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return math.nan


def parse_seconds(text: str, separator: str = ",") -> float:
    """Return a time such as 10, 10.5, 1:02 or 1:00:02.5 in seconds; NaN if it is none."""
    parts = text.split(":")
    if len(parts) > 3 or not all(part[:1].isdigit() for part in parts):
        return math.nan
    total = 0.0
    for part in parts:
        total = 60 * total + parse_number(part, separator)
    return total if math.isfinite(total) else math.nan
