"""Rows of the campaign of reports, and the commands that they run."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_SOURCE = Path(__file__).parents[3] / "src"
_TIMEOUT_S = 300


class Outcome(NamedTuple):
    """What happened in a row, and whether it is right."""

    got: str
    right: bool


class Finished(NamedTuple):
    """Ended command: exit code (None if it had to be stopped), standard output and error."""

    code: int | None
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err

    @property
    def is_plain(self) -> bool:
        """True if the command ended by itself, without a traceback or a raw error."""
        raw = ("Traceback", "Errno", "unexpected error", "Error:", "please report")
        return self.code is not None and not any(sign in self.text for sign in raw)

    @property
    def last_line(self) -> str:
        """Last line for people, or of the output."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1] if lines else ""

    @property
    def summary(self) -> str:
        """Exit code and last line."""
        return f"exit {self.code}: {self.last_line}"


@dataclass(frozen=True)
class Workplace:
    """Cases, and an empty folder for what a row writes."""

    cases: Path
    folder: Path

    def input(self, name: str) -> Path:
        """Return a case of `make_cases.py`."""
        return self.cases / "in" / name

    def run(
        self, *arguments: str | Path, stdin: bytes | None = None, timeout_s: float = _TIMEOUT_S
    ) -> Finished:
        """Run a command of Tonewood in the empty folder."""
        return self.run_program([sys.executable, "-m", "tonewood", *map(str, arguments)], stdin, timeout_s)

    def python(self, code: str, *arguments: str | Path) -> Finished:
        """Run Python code, in which Tonewood can be imported."""
        return self.run_program([sys.executable, "-c", code, *map(str, arguments)])

    def shell(self, line: str) -> Finished:
        """Run a line of bash, in which `tonewood` is the command."""
        program = f'tonewood() {{ "{sys.executable}" -m tonewood "$@"; }}\n{line}'
        return self.run_program(["bash", "-c", program])

    def run_program(
        self, program: list[str], stdin: bytes | None = None, timeout_s: float = _TIMEOUT_S
    ) -> Finished:
        """Run a program; it is stopped after a while."""
        environment = {**os.environ, "PYTHONPATH": str(_SOURCE), "OMP_NUM_THREADS": "1"}
        environment["TONEWOOD_CACHE"] = str(self.folder / "cache")
        try:
            done = subprocess.run(
                program,
                input=stdin if stdin is not None else b"",
                capture_output=True,
                timeout=timeout_s,
                cwd=self.folder,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Finished(None, "", "did not end")
        return Finished(
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def outputs(self, folder: str = "out", suffixes: tuple[str, ...] = (".wav", ".flac")) -> list[Path]:
        """Return the audio files below a folder of outputs."""
        return sorted(path for path in (self.folder / folder).rglob("*") if path.suffix.lower() in suffixes)


class Row(NamedTuple):
    """Row of the table."""

    number: str
    tried: str
    expected: str
    check: Callable[[Workplace], Outcome]


def run_row(row: Row, place: Workplace) -> Outcome:
    """Run a row; a failure of the check itself is not right."""
    try:
        return row.check(place)
    except Exception as error:  # a campaign goes on
        return Outcome(f"{type(error).__name__}: {error}", right=False)
