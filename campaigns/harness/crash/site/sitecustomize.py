"""Found by every Python that the campaign starts: notes when a command first opens its inputs."""

import os
import sys
from typing import Any

_mark, _inputs = os.environ.get("SUDDEN_MARK"), os.environ.get("SUDDEN_INPUTS", "\0")
_noted = False


def _seen(event: str, arguments: tuple[Any, ...]) -> None:
    global _noted
    if event == "open" and not _noted and str(arguments[0]).startswith(_inputs):
        _noted = True
        with open(str(_mark), "a"):  # noqa: PTH123 - pathlib costs every process its import
            pass


if _mark:
    sys.addaudithook(_seen)
