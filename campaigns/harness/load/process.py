"""Sample the memory, handles and threads of a process from outside."""

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
    """Memory, handles and threads of a process at a moment.

    Parameters
    ----------
    at : float
        Time, such as seconds since sampling began.
    rss : int
        Bytes of resident memory, including mapped files.
    handles : int
        Open files, sockets and pipes.
    threads : int
    """

    at: float
    rss: int
    handles: int
    threads: int


def sample(pid: int, at: float = 0.0) -> Sample:
    """Sample a process; OSError if it has ended."""
    proc = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
    if "VmRSS" not in status:
        raise ProcessLookupError(f"process {pid} has ended")
    rss = 1024 * int(status["VmRSS"].split()[0])
    return Sample(at, rss, len(list((proc / "fd").iterdir())), int(status["Threads"]))


def open_files(pid: int) -> Counter[str]:
    """Count the open files of a process by name."""
    result: Counter[str] = Counter()
    for link in (Path("/proc") / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            result[without_long_numbers(str(link.readlink()))] += 1
    return result


def without_long_numbers(name: str) -> str:
    """Remove long numbers from a name; they differ between equal files."""
    return re.sub(r"\d{3,}", "", name)


def child_processes(pid: int) -> list[int]:
    """Return the children of a process.

    Found by the parent in /proc/*/stat, because not every kernel lists the children of a process.
    """
    children = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended meanwhile
            # State and parent follow the name, whose brackets may contain anything.
            _, parent, *_ = (process / "stat").read_text().rpartition(")")[2].split()
            if int(parent) == pid:
                children.append(int(process.name))
    return children


def worker_processes(pid: int) -> list[int]:
    """Return the running children of a process, without the resource tracker of multiprocessing."""
    workers = []
    for child in child_processes(pid):
        with contextlib.suppress(OSError):  # the child has ended meanwhile
            command = (Path("/proc") / str(child) / "cmdline").read_bytes()  # empty after its end
            if command and b"resource_tracker" not in command:
                workers.append(child)
    return workers


def growth(samples: list[Sample]) -> float:
    """Return the relative growth of memory over the second half, by a fitted straight line."""
    half = samples[len(samples) // 2 :]
    at: NDArray[np.float64] = np.array([taken.at for taken in half])
    rss = np.array([taken.rss for taken in half], np.float64)
    slope, start = np.polyfit(at - at[0], rss, 1)
    return float(slope * (at[-1] - at[0]) / start)


class Watch(threading.Thread):
    """Thread that samples a process until it is stopped or the process ends."""

    def __init__(self, pid: int, every_s: float) -> None:
        super().__init__(daemon=True)
        self.pid, self.every_s = pid, every_s
        self.samples: list[Sample] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        """Take samples."""
        count = 0
        while not self.stopped.is_set():
            try:
                self.samples.append(sample(self.pid, count * self.every_s))
            except OSError:  # the process has ended
                return
            count += 1
            self.stopped.wait(self.every_s)

    def stop(self) -> list[Sample]:
        """Stop and return the samples."""
        self.stopped.set()
        self.join()
        return self.samples
