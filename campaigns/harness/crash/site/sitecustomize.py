"""Mark when a command first opens its inputs; Python imports this in every process of the campaign."""

import os
import sys
from typing import Any

_mark, _inputs = os.environ.get("CRASH_MARK"), os.environ.get("CRASH_INPUTS", "\0")
_marked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    global _marked
    if event == "open" and not _marked and str(arguments[0]).startswith(_inputs):
        _marked = True
        with open(str(_mark), "a"):  # noqa: PTH123 - importing pathlib would slow every start
            pass


if _mark:
    sys.addaudithook(_hook)
