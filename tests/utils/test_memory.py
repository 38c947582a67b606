"""Control of freed and mapped memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tonewood.utils.parallel import page_out, trim_malloc, tune_malloc

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is done")


def resident() -> int:
    """Bytes of mapped files that are in memory."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssFile:")[2].split()[0])


@linux
def test_mapped_tensors_are_paged_out_and_read_again(tmp_path: Path) -> None:
    rows = torch.arange(8_000_000, dtype=torch.float32).reshape(-1, 40)
    save_file({"rows": rows}, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        mapped = file.get_tensor("rows").T
    total = mapped.double().sum()
    before = resident()
    page_out(mapped)
    assert before - resident() > 0.9 * rows.nbytes
    assert mapped.double().sum() == total


def test_tensors_in_memory_are_not_paged_out() -> None:
    values = torch.arange(1_000_000)
    page_out(values, values[:3], values[:0])
    assert torch.equal(values, torch.arange(1_000_000))


@linux
def test_tuned_malloc_reuses_freed_memory() -> None:
    """Dask sets its workers to return memory at once; then every chunk allocates its pages again."""
    script = (
        "import resource, torch\n"
        "from tonewood.utils.parallel import tune_malloc\n"
        "{}"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(3): torch.ones(2_000_000)\n"
        "before = faults()\n"
        "for _ in range(50): torch.ones(2_000_000)\n"
        "print(faults() - before)"
    )
    faults = []
    for call in ("", "tune_malloc()\n"):
        ran = subprocess.run(
            [sys.executable, "-c", script.format(call)],
            capture_output=True,
            text=True,
            check=True,
            env={"MALLOC_TRIM_THRESHOLD_": "65536", "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        )
        faults.append(int(ran.stdout))
    assert faults[0] > 50 * 1_000
    assert faults[1] < faults[0] / 5


def test_memory_calls_may_be_repeated() -> None:
    for _ in range(2):
        tune_malloc()
        trim_malloc()
