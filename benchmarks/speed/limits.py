"""Measure the limits of one core: matrix products and memory transfers."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Limits:
    """Rates of one core.

    Parameters
    ----------
    fp32, bf16 : float
        Product of two matrices of 1024 by 1024, GFLOP/s.
    bandwidth : float
        Copying 256 MiB, GB/s read and written together.
    """

    fp32: float
    bf16: float
    bandwidth: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def best(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the seconds of the fastest run, without the first one."""
    work()
    times = []
    for _ in range(repeats):
        start_time = time.perf_counter()
        work()
        times.append(time.perf_counter() - start_time)
    return min(times)


def measure_limits() -> Limits:
    torch.set_num_threads(1)
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
        rates.append(2 * 1024**3 / best(lambda a=a, b=b: a @ b) / 1e9)
    source, target = torch.ones(2**26), torch.empty(2**26)
    return Limits(*rates, 2 * 2**28 / best(lambda: target.copy_(source)) / 1e9)


def machine() -> dict[str, object]:
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open() as info:
            name = next(line.split(":")[1].strip() for line in info if "model name" in line)
    except (OSError, StopIteration):
        pass
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": name,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
