"""How nearly the numbers hold: the error of every law in tests/numerics, beside its tolerance.

    python campaigns/numerics.py [--examples 40] [--only WORD] [--docs docs/numerics.md]

Each law is tried on so many examples, always the same. `--docs` fills the block between the markers
of that page. The exit code is 1 where a tolerance is passed.
"""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `campaigns` and `tests` are found

from campaigns.harness.numerics.docs_table import filled, shown
from campaigns.harness.numerics.law import Law

ROOT = Path(__file__).resolve().parents[1]


def laws() -> dict[str, Law]:
    """Every law of tests/numerics, by the name of its test, chapter by chapter."""
    found: dict[str, Law] = {}
    for path in sorted((ROOT / "tests" / "numerics").glob("test_*.py")):
        module: Any = import_module(f"tests.numerics.{path.stem}")
        found |= {
            name: it.law
            for name, it in vars(module).items()
            if hasattr(it, "law") and it.__module__ == module.__name__
        }
    return found


def main() -> int:
    """Measure the laws and fill the page; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--only", default="", help="laws whose tests' names hold this")
    parser.add_argument("--docs", type=Path, help="page to fill")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    measured, passed = {}, 0
    for name, it in laws().items():
        if asked.only not in name:
            continue
        measured[name] = it.worst(min(asked.examples, it.most), asked=False)
        over = not measured[name] <= it.within
        passed += over
        print(
            f"{name[5:]:42} {shown(measured[name]):>9}  within {shown(it.within):>8} {it.unit}"
            + ("  PASSED" if over else ""),
            flush=True,
        )
    if asked.docs:
        page = asked.docs.read_text("utf-8")
        asked.docs.write_text(filled(page, laws(), measured), "utf-8")
    return 1 if passed else 0


if __name__ == "__main__":
    sys.exit(main())
