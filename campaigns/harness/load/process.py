"""What a process holds: memory, handles, threads, sampled from outside."""

import contextlib
import re
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """What a process holds at a moment.

    Parameters
    ----------
    at : float
        Seconds since sampling began, or whatever else counts on.
    rss : int
        Bytes of memory, those of mapped files with them.
    handles : int
        Open files, sockets and pipes.
    threads : int
    """

    at: float
    rss: int
    handles: int
    threads: int


def sample(pid: int, at: float = 0.0) -> Sample:
    """Look at a process now; OSError if it is gone."""
    place = Path("/proc") / str(pid)
    told = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line)
    if "VmRSS" not in told:
        raise ProcessLookupError(f"process {pid} has ended")
    rss = 1024 * int(told["VmRSS"].split()[0])
    return Sample(at, rss, len(list((place / "fd").iterdir())), int(told["Threads"]))


def opened(pid: int) -> Counter[str]:
    """What a process has open, counted by its name."""
    found: Counter[str] = Counter()
    for it in (Path("/proc") / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found[unnumbered(str(it.readlink()))] += 1
    return found


def unnumbered(name: str) -> str:
    """A name without its long numbers, which differ from one file to the next."""
    return re.sub(r"\d{3,}", "", name)


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    found = []
    for task in (Path("/proc") / str(pid) / "task").iterdir():
        found += [int(it) for it in (task / "children").read_text().split()]
    return found


def growth(samples: list[Sample]) -> float:
    """Growth of memory over the second half, as a share: of the straight line that fits best."""
    half = samples[len(samples) // 2 :]
    at: NDArray[np.float64] = np.array([it.at for it in half])
    rss = np.array([it.rss for it in half], np.float64)
    slope, start = np.polyfit(at - at[0], rss, 1)
    return float(slope * (at[-1] - at[0]) / start)


class Watch(threading.Thread):
    """Samples of a process every so often, until it is stopped or the process ends."""

    def __init__(self, pid: int, every_s: float) -> None:
        super().__init__(daemon=True)
        self.pid, self.every_s = pid, every_s
        self.samples: list[Sample] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Sample on."""
        count = 0
        while not self.over.is_set():
            try:
                self.samples.append(sample(self.pid, count * self.every_s))
            except OSError:  # it has ended
                return
            count += 1
            self.over.wait(self.every_s)

    def stop(self) -> list[Sample]:
        """End, and give what was seen."""
        self.over.set()
        self.join()
        return self.samples
