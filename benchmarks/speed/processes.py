"""Measure whole processes: elapsed time, processor time, peak memory."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

TONEWOOD = (sys.executable, "-m", "tonewood")
MATCHERING = (
    "import sys, matchering as mg; "
    "mg.process(target=sys.argv[1], reference=sys.argv[2], results=[mg.pcm16(sys.argv[3])])"
)


@dataclass(frozen=True)
class Run:
    """One process.

    Parameters
    ----------
    wall, cpu : float
        Seconds; those of the cores are of user and system together.
    peak_mb : float
        Largest resident memory, MiB.
    """

    wall: float
    cpu: float
    peak_mb: float


@dataclass(frozen=True)
class Measured:
    """Several runs of one command."""

    what: str
    seconds: float  # of audio; 0 where there is none
    runs: tuple[Run, ...]

    @property
    def wall(self) -> float:
        return median(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        return median(run.cpu for run in self.runs)

    @property
    def peak_mb(self) -> float:
        return max(run.peak_mb for run in self.runs)

    @property
    def spread(self) -> str:
        low, high = (pick(run.wall for run in self.runs) for pick in (min, max))
        return f"{low:.2f} to {high:.2f}" if len(self.runs) > 1 else f"{low:.2f}"

    def as_dict(self) -> dict[str, object]:
        return {
            "what": self.what,
            "audio_seconds": self.seconds,
            "wall": self.wall,
            "cpu": self.cpu,
            "peak_mb": self.peak_mb,
            "runs": [asdict(run) for run in self.runs],
        }


def run_timed(command: Sequence[str | Path], cwd: Path | None = None) -> Run:
    """Run a command, which must succeed."""
    start_time = time.perf_counter()
    child = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start_time
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nfailed: {errors.decode()[-500:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def enhance_command(take: Path, out: Path, *options: str) -> list[str | Path]:
    return [*TONEWOOD, "enhance", take, "-o", out, "--overwrite", "--json", "--force", *options]


def matchering_command(python: str, take: Path, reference: Path, out: Path) -> list[str | Path]:
    return [python, "-c", MATCHERING, take, reference, out]
