"""Arrays on disk."""

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tonewood.errors import OutputError
from tonewood.utils.arrays import DiskArray


def test_appended_frames_are_read_in_any_range(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((5, 230), dtype=np.float32)
    array = DiskArray(5, tmp_path)
    for start in range(0, 230, 37):
        array.append(values[:, start : start + 37])
    assert array.frames == 230
    for first, last in ((0, 230), (36, 38), (229, 230), (200, 999)):
        assert np.array_equal(array.read(first, last), values[:, first:last])
        assert array.read(first, last).flags.c_contiguous


def test_disk_array_without_rows_holds_a_waveform() -> None:
    wave = np.arange(100, dtype=np.float32)
    array = DiskArray(None)
    array.append(wave[:60])
    array.append(wave[60:])
    assert np.array_equal(array.read(55, 65), np.arange(55.0, 65.0))


def test_disk_array_has_no_visible_file(tmp_path: Path) -> None:
    array = DiskArray(2, tmp_path)
    array.append(np.zeros((2, 1_000)))
    assert list(tmp_path.iterdir()) == []
    descriptors = Path("/proc/self/fd")
    gc.collect()
    opened = len(list(descriptors.iterdir())) if descriptors.exists() else None
    del array
    if opened is not None:
        assert len(list(descriptors.iterdir())) == opened - 1


def test_threads_may_read_a_disk_array_concurrently() -> None:
    array = DiskArray(3)
    values = np.arange(3 * 5_000.0).reshape(3, 5_000)
    array.append(values)

    def right(start: int) -> bool:
        return np.array_equal(array.read(start, start + 50), values[:, start : start + 50])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, list(range(0, 4_950, 3))))


def test_full_disk_is_one_line_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full as a full disk")
    array = DiskArray(2)
    array._file.close()
    with Path("/dev/full").open("r+b") as full:
        monkeypatch.setattr(array, "_file", full)
        with pytest.raises(OutputError, match=r"disk .* is full: free some space"):
            array.append(np.zeros((2, 100_000)))
