"""A plugin of pytest's: under `coverage run` it notes which test runs which line, and how long.

    coverage run -m pytest -p covering      # with scripts/ on the path

Writes `covering-<process>.jsonl` into the folder that COVERING names, a test a line with its
seconds; the lines it ran are in coverage's own data, by the test's name.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from coverage import Coverage


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Name the test to coverage, and time it."""
    measured = Coverage.current()
    assert measured is not None, "run it under coverage: coverage run -m pytest -p covering"
    measured.switch_context(item.nodeid)
    started = time.perf_counter()
    try:
        return (yield)
    finally:
        measured.switch_context("")
        told = {"test": item.nodeid, "seconds": round(time.perf_counter() - started, 3)}
        path = Path(os.environ["COVERING"]) / f"covering-{os.getpid()}.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
