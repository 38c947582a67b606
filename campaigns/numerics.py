"""Measure the error of every numerical law in tests/numerics and compare it with its tolerance.

    python campaigns/numerics.py [--examples 40] [--only WORD] [--docs docs/numerics.md]

The examples are always the same. `--docs` fills the block between the markers of that page. The exit
code is 1 if an error exceeds its tolerance.
"""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `campaigns` and `tests` are found

from campaigns.harness.numerics.docs_table import fill_table, format_figure
from campaigns.harness.numerics.law import Law

ROOT = Path(__file__).resolve().parents[1]


def laws() -> dict[str, Law]:
    """Return every law of tests/numerics by the name of its test."""
    by_name: dict[str, Law] = {}
    for path in sorted((ROOT / "tests" / "numerics").glob("test_*.py")):
        module: Any = import_module(f"tests.numerics.{path.stem}")
        by_name |= {
            name: test.law
            for name, test in vars(module).items()
            if hasattr(test, "law") and test.__module__ == module.__name__
        }
    return by_name


def main() -> int:
    """Measure the laws and fill the page; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=40, help="examples of each law")
    parser.add_argument("--only", default="", help="part of the names of tests")
    parser.add_argument("--docs", type=Path, help="page to fill")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    measured, exceeded = {}, 0
    for name, law in laws().items():
        if options.only not in name:
            continue
        measured[name] = law.worst(min(options.examples, law.most), check=False)
        is_over = not measured[name] <= law.within
        exceeded += is_over
        error, limit = format_figure(measured[name]), format_figure(law.within)
        note = "  EXCEEDED" if is_over else ""
        print(f"{name[5:]:42} {error:>9}  within {limit:>8} {law.unit}{note}", flush=True)
    if options.docs:
        page = options.docs.read_text("utf-8")
        options.docs.write_text(fill_table(page, laws(), measured), "utf-8")
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
