"""A short share of `campaigns/load.py`: finished work keeps no files open."""

import gc
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from campaigns.harness.load.clients import Client, LoadResult, run_clients
from campaigns.harness.load.process import Sample, growth, open_files, sample, without_long_numbers
from tests.conftest import instrument
from tests.studio.conftest import EXAMPLE, Live, upload_recording
from tonewood.batch.enhance_file import FileEnhanced
from tonewood.batch.runner import run_batch
from tonewood.batch.tasks import EnhanceTask
from tonewood.enhancement import output_files
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings


def test_growth_is_measured_in_the_second_half() -> None:
    def samples(mib: Any) -> list[Sample]:
        return [Sample(float(k), round(2**20 * it), 9, 1) for k, it in enumerate(mib)]

    flat = np.full(100, 300.0)
    assert growth(samples(flat)) == pytest.approx(0, abs=1e-6)
    assert growth(samples(np.concatenate([np.linspace(100, 300, 50), flat[:50]]))) == pytest.approx(
        0, abs=1e-6
    )
    leaking = np.concatenate([flat[:50], np.linspace(300, 330, 50)])
    assert growth(samples(leaking)) == pytest.approx(0.1, abs=1e-3)


def opened_below(folder: Path) -> int:
    """Return how many files below a folder this process has open."""
    name = without_long_numbers(str(folder))
    return sum(n for it, n in open_files(os.getpid()).items() if it.startswith(name))


def test_sample_counts_open_files(tmp_path: Path) -> None:
    before = sample(os.getpid())
    held = [(tmp_path / str(k)).open("w") for k in range(7)]
    assert sample(os.getpid()).handles >= 7
    assert (
        sum(
            n for k, n in open_files(os.getpid()).items() if k.startswith(without_long_numbers(str(tmp_path)))
        )
        == 7
    )
    for file in held:
        file.close()
    assert before.rss > 2**20
    assert before.threads >= 1


def test_small_files_leave_nothing_open(tmp_path: Path, model: Model) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc here to count handles in")
    jobs = []
    for number in range(12):
        path = tmp_path / f"{number:02}.wav"
        soundfile.write(path, instrument(0.5 + number % 5 / 10, seed=number).T, 16_000)
        jobs.append(output_files.FileJob(path, tmp_path / "out" / path.name))
    (tmp_path / "out").mkdir()
    settings = EnhanceSettings().replace(search=dict(steps=0), force=True, certificate=dict(control_steps=0))
    handles = []
    for event in run_batch(jobs, EnhanceTask(settings), model):
        assert not isinstance(event, output_files.FileFailure), event
        if isinstance(event, FileEnhanced):
            gc.collect()  # garbage in reference cycles does not count
            names = open_files(os.getpid())
            handles.append(
                sum(n for name, n in names.items() if name.startswith(without_long_numbers(str(tmp_path))))
            )
    assert len(handles) == 12
    assert handles[-1] == handles[5] < 20


def test_requests_leave_no_open_handles(live: Live) -> None:
    result = LoadResult()
    visitor = Client(live.url, 0, result)
    with live.client() as http, visitor.http:
        session = upload_recording(http, EXAMPLE)
        visitor.sessions.append(session["id"])
        acts = (visitor.look, visitor.drop_download, visitor.drop_upload, visitor.listen)

        for act in acts:
            act()
        before = least(live.process.pid, enough=0, seconds=1.5)
        for number in range(24):
            acts[number % 4]()
        assert result.errors == []
        assert least(live.process.pid, enough=before, seconds=120) <= before
        http.delete(f"/api/sessions/{session['id']}")


def least(pid: int, enough: int, seconds: float) -> int:
    """Return the fewest handles of a process, until they are few enough or the time is over."""
    end, fewest = time.monotonic() + seconds, sample(pid).handles
    while fewest > enough and time.monotonic() < end:
        time.sleep(0.1)
        fewest = min(fewest, sample(pid).handles)
    return fewest


def test_small_crowd_gets_no_errors(live: Live) -> None:
    result = run_clients(live.url, clients=3, seconds=1, seed=3, least=4)
    assert result.errors == []
    assert result.answers["5xx"] == 0
    assert sum(result.done.values()) >= 3 * 4
