"""Measure the limits of one core: matrix products and memory transfers."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits


@dataclass(frozen=True)
class Limits:
    """Rates of one core.

    Parameters
    ----------
    fp32 : float
        Product of two matrices of 1024 by 1024, GFLOP/s.
    bandwidth : float
        Copying 256 MiB, GB/s read and written together.
    """

    fp32: float
    bandwidth: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def best(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the core seconds of the cheapest run, without the first one; those of all threads count."""
    work()
    times = []
    for _ in range(repeats):
        start_time = time.process_time()
        work()
        times.append(time.process_time() - start_time)
    return min(times)


def measure_limits() -> Limits:
    a, b = np.random.default_rng(0).standard_normal((2, 1024, 1024), dtype=np.float32)
    source, target = np.ones(2**26, np.float32), np.empty(2**26, np.float32)
    with threadpool_limits(1, "blas"):
        product = best(lambda: a @ b)
    return Limits(2 * 1024**3 / product / 1e9, 2 * 2**28 / best(lambda: np.copyto(target, source)) / 1e9)


def machine() -> dict[str, object]:
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open() as info:
            name = next(line.split(":")[1].strip() for line in info if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {
        "processor": name,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
