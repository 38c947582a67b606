"""CSV tables that others wrote: read line by line, refused with the line that is wrong."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from tonewood.errors import CallError, FolderError, printable


def read_csv_rows(table: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a table, each with its number in the file, counted from 1.

    Parameters
    ----------
    required : sequence of str
        Columns that every line must fill.

    Raises
    ------
    CallError
        The file cannot be read.
    FolderError
        It is no table, lacks a column, or a line of it is cut short.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            lacks = [name for name in required if name not in (reader.fieldnames or ())]
            if lacks:
                raise FolderError(
                    f"{printable(table)} has no column {lacks[0]}; {', '.join(required)} are needed: "
                    "name another table"
                )
            for number, row in enumerate(reader, start=2):
                if not all(row.get(name) for name in required):
                    raise FolderError(
                        f"{printable(table)}, line {number}: {' or '.join(required)} is missing: mend it"
                    )
                yield number, {k: v for k, v in row.items() if isinstance(k, str) and v is not None}
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CallError(f"{printable(table)} cannot be read ({why}): name a CSV table") from None
    except (UnicodeDecodeError, csv.Error):
        raise FolderError(f"{printable(table)} is no CSV table in UTF-8: save it as one") from None
