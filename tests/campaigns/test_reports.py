"""Short share of `campaigns/reports.py`: rows that need one recording."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from campaigns.harness.reports.rows import Workplace, run_row
from campaigns.reports import ROWS


@pytest.mark.parametrize("number", ["21", "52", "58", "61"])
def test_row_is_right(number: str, tmp_path: Path, play: Callable[..., Any]) -> None:
    take = tmp_path / "cases" / "in" / "apple" / "take.wav"
    take.parent.mkdir(parents=True)
    (tmp_path / "work").mkdir()
    soundfile.write(take, play(1.0).T, 16_000)
    row = next(row for row in ROWS if row.number == number)
    outcome = run_row(row, Workplace(tmp_path / "cases", tmp_path / "work"))
    assert outcome.right, outcome.got


def test_every_row_has_its_own_number() -> None:
    numbers = [row.number for row in ROWS]
    assert len(set(numbers)) == len(numbers)
