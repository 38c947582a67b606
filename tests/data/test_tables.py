"""Tables are read as spreadsheets save them."""

import math
from pathlib import Path

import pytest

from tonewood.data.manifest import read_manifest
from tonewood.data.tables import parse_number, parse_seconds

ROWS = (("path", "label", "start", "end"), ("a/b.wav", "reference", "", "5.5"), ("c.wav", "source", "0", ""))


def table(separator: str, rows: tuple[tuple[str, ...], ...] = ROWS) -> str:
    return "\r\n".join(separator.join(row) for row in rows) + "\r\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (table(","), "utf-8-sig"),
        (table(";"), "utf-8"),
        (table("\t"), "utf-16"),
        (table(";").replace("5.5", "5,5"), "utf-8"),
        (table(";").replace("5.5", "0:05,5"), "utf-8"),
        ("sep=;\r\n" + table(";"), "utf-8"),
        (table(",").replace("path,label", "Path , LABEL"), "utf-8"),
        ("\r\n" + table(",") + ",,,\r\n", "utf-8"),
        (table(",").replace("a/b.wav", "a\\b.wav"), "utf-8"),
        (table(";").replace("path", '"path"'), "utf-8"),
    ],
)
def test_table_of_a_spreadsheet_is_read(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.wav").touch()
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    reference, source = read_manifest(tmp_path / "list.csv")
    assert reference.entries[0].path == tmp_path / "a" / "b.wav"
    assert (reference.entries[0].end, source.entries[0].start) == (5.5, 0.0)


def test_times_and_numbers() -> None:
    assert parse_seconds("1:02:03.5") == 3723.5
    assert all(math.isnan(parse_seconds(text)) for text in ("-1", "", "1:x", "1:2:3:4", "nan", "inf"))
    assert parse_number("5,5", ";") == 5.5
    assert math.isnan(parse_number("5,5"))
