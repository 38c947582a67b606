"""One long recording, and workers that have nothing else to do: they lend a hand."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
import soundfile
from distributed.comm import CommClosedError

from tonewood.batch import dask_backend, enhance_file, runner
from tonewood.batch.dask_backend import DaskWorkers
from tonewood.batch.enhance_file import FileEnhanced
from tonewood.batch.tasks import EnhanceTask
from tonewood.enhancement.output_files import FileFailure, FileJob
from tonewood.errors import CallError, ClusterError
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings

Play = Callable[..., npt.NDArray[Any]]
SETTINGS = EnhanceSettings(force=True)


@pytest.fixture(scope="module")
def crew() -> Iterator[DaskWorkers]:
    """Two workers."""
    with DaskWorkers(2) as crew:
        yield crew


@pytest.fixture
def long(tmp_path: Path, play: Play) -> Path:
    """A minute and a half: nine pieces to hear, three parts to search, nine pieces to render."""
    path = tmp_path / "long.wav"
    soundfile.write(path, play(90.0, seed=4).T, 16_000)
    return path


@pytest.fixture
def plain(tmp_path: Path, long: Path, model: Model) -> bytes:
    """What one process makes of it."""
    output = tmp_path / "plain.wav"
    *_, done = enhance_file.enhance_file(long, output, model, SETTINGS)
    assert isinstance(done, FileEnhanced)
    return output.read_bytes()


def enhanced(long: Path, output: Path, model: Model, crew: DaskWorkers) -> None:
    *events, _ = runner.run_batch([FileJob(long, output)], EnhanceTask(SETTINGS), model, workers=crew)
    assert not [it for it in events if isinstance(it, FileFailure)]


def parts_by_worker(crew: DaskWorkers) -> dict[str, int]:
    """How many parts of recordings each worker did for another."""
    stream = crew.client.get_task_stream()
    done = [it["worker"] for it in stream if str(it["key"]).startswith(dask_backend.PART_KEY_PREFIX)]
    return {worker: done.count(worker) for worker in done}


def test_a_long_recording_spreads_and_is_what_one_process_makes(
    tmp_path: Path, long: Path, plain: bytes, model: Model, crew: DaskWorkers
) -> None:
    crew.client.get_task_stream()
    output = tmp_path / "out.wav"
    enhanced(long, output, model, crew)
    assert output.read_bytes() == plain
    done = parts_by_worker(crew)
    assert len(done) == 1  # the other one; who has the recording gives away and keeps some
    assert sum(done.values()) >= 4


def test_a_worker_that_dies_while_it_lends_a_hand_is_not_missed(
    tmp_path: Path, long: Path, plain: bytes, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.wav"
    killed = list[str]()
    with DaskWorkers(2) as crew:
        crew.client.get_task_stream()
        ours = crew.client.run(os.getpid)

        def kill() -> None:
            end = time.monotonic() + 60
            while not killed and time.monotonic() < end:
                for worker in parts_by_worker(crew):
                    os.kill(ours[worker], signal.SIGKILL)
                    killed.append(worker)
                    return
                time.sleep(0.05)

        death = threading.Thread(target=kill)
        death.start()
        enhanced(long, output, model, crew)
        death.join()
    assert killed
    assert output.read_bytes() == plain


def test_who_has_work_of_its_own_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle is who has nothing, or parts that were lent; never who asks."""

    class Asked:
        address = "tcp://own"

        def processing(self) -> dict[str, list[str]]:
            lent, own = f"{dask_backend.PART_KEY_PREFIX}1", "tonewood-1"
            return {"tcp://own": [], "tcp://busy": [lent, own], "tcp://lent": [lent], "tcp://i": []}

    monkeypatch.setattr(dask_backend, "get_client", Asked)
    monkeypatch.setattr(dask_backend, "get_worker", Asked)
    siblings = dask_backend.IdleWorkers()
    assert siblings.idle() == ["tcp://lent", "tcp://i"]
    assert siblings.free_slots() == 4
    siblings.trusted = False
    assert siblings.free_slots() == 0


@pytest.mark.parametrize(("failures", "told"), [(0, ""), (2, ""), (99, "gone")])
def test_a_worker_may_die_while_it_takes_the_model(
    failures: int, told: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:
        status = "running"

        def __init__(self) -> None:
            self.asked = 0

        def register_plugin(self, plugin: object) -> None:
            self.asked += 1
            if self.asked <= failures:
                raise CommClosedError("in <TCP>: Stream is closed")

    monkeypatch.setattr(time, "sleep", lambda _: None)
    crew, client = DaskWorkers(1), Dying()
    crew.client = client
    with pytest.raises(ClusterError, match=told) if told else nullcontext():
        crew.broadcast_model(model)
    assert client.asked == min(failures + 1, 5)


@pytest.mark.parametrize(
    "address", ["nowhere", "", "tcp://", "tcp://host", "http://host:1", "tcp://host:port"]
)
def test_what_is_no_address_is_told_before_a_client_is_made(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that could not be made complains for 40 s when it goes."""
    monkeypatch.setattr(dask_backend, "Client", None)
    with (
        pytest.raises(CallError, match="is no address of a scheduler"),
        DaskWorkers(scheduler=address),
    ):
        pass
