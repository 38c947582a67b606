"""Control of freed and mapped memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tonewood.utils.parallel import page_out, trim_malloc, tune_malloc

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is done")


def resident() -> int:
    """Bytes of mapped files that are in memory."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssFile:")[2].split()[0])


@linux
def test_mapped_arrays_are_paged_out_and_read_again(tmp_path: Path) -> None:
    rows = np.arange(8_000_000, dtype=np.float32).reshape(-1, 40)
    np.save(tmp_path / "a.npy", rows)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r").T
    total = mapped.sum(dtype=np.float64)
    before = resident()
    page_out(mapped)
    assert before - resident() > 0.9 * rows.nbytes
    assert mapped.sum(dtype=np.float64) == total


def test_arrays_in_memory_are_not_paged_out() -> None:
    values = np.arange(1_000_000)
    page_out(values, values[:3], values[:0])
    assert np.array_equal(values, np.arange(1_000_000))


@linux
def test_tuned_malloc_reuses_freed_memory() -> None:
    """Dask sets its workers to return memory at once; then every chunk allocates its pages again."""
    script = (
        "import resource, numpy\n"
        "from tonewood.utils.parallel import tune_malloc\n"
        "{}"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(3): numpy.ones(400_000)\n"
        "before = faults()\n"
        "for _ in range(50): numpy.ones(400_000)\n"
        "print(faults() - before)"
    )
    faults = []
    for call in ("", "tune_malloc()\n"):
        ran = subprocess.run(
            [sys.executable, "-c", script.format(call)],
            capture_output=True,
            text=True,
            check=True,
            env={
                "MALLOC_TRIM_THRESHOLD_": "65536",
                # With huge pages, the faults depend on how many are free.
                "NUMPY_MADVISE_HUGEPAGE": "0",
                "PATH": "",
                "PYTHONPATH": ":".join(sys.path),
            },
        )
        faults.append(int(ran.stdout))
    assert faults[0] > 50 * 500  # pages of 4 KiB
    assert faults[1] < faults[0] / 5


def test_memory_calls_may_be_repeated() -> None:
    for _ in range(2):
        tune_malloc()
        trim_malloc()
