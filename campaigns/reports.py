"""Run what people reported of other audio tools, and what new users and attackers found here, on Tonewood.

Each row is a kind of input or call. The recordings are those of the development corpora's case makers:

    python make_cases.py && python make_training.py        # in a folder of their own
    python campaigns/reports.py FOLDER [ROW ...]

Prints a table of what was tried, what is expected, what happened, and whether that is right. The exit
code is 1 if a row is not right. Takes twelve minutes on two cores; with row numbers, only those rows.
"""

import argparse
import sys
import tempfile
import textwrap
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from campaigns.harness.reports import attacks, files, python_calls, users
from campaigns.harness.reports.rows import Outcome, Row, Workplace, run_row

ROWS: tuple[Row, ...] = (*files.ROWS, *python_calls.ROWS, *attacks.ROWS, *users.ROWS)


def main() -> int:
    """Run the rows and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", type=Path, help="folder in which the case makers ran")
    parser.add_argument("rows", nargs="*", help="numbers of the rows to run")
    arguments = parser.parse_args()
    wrong = 0
    for row in ROWS:
        if arguments.rows and row.number not in arguments.rows:
            continue
        with tempfile.TemporaryDirectory(prefix="tonewood-reports-") as folder:
            outcome = run_row(row, Workplace(arguments.cases.resolve(), Path(folder)))
        wrong += not outcome.right
        print_outcome(row, outcome)
    print(f"{wrong} rows are not right" if wrong else "every row is right")
    return 1 if wrong else 0


def print_outcome(row: Row, outcome: Outcome) -> None:
    """Print one row of the table."""
    got = textwrap.shorten(outcome.got, 400)
    print(f"{row.number:>3} | {row.tried} | {row.expected} | {got} | {'yes' if outcome.right else 'NO'}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
