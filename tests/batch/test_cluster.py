"""Real faults on this machine: each input ends with one complete output or one reason."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from distributed.comm import CommClosedError

from campaigns.harness.load.process import worker_processes
from tonewood.audio_io.recording import file_sha256
from tonewood.batch import dask_backend, results_table, runner
from tonewood.batch.dask_backend import DaskWorkers
from tonewood.batch.results_table import ResultRow
from tonewood.batch.tasks import EnhanceTask, FileScored, ScoreTask
from tonewood.enhancement import recipe
from tonewood.enhancement.output_files import FileFailure, FileJob, plan_jobs
from tonewood.errors import CallError, ClusterError
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings
from tonewood.utils.files import atomic_path

# Workers do not have this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Play = Callable[..., npt.NDArray[np.float32]]
FEW = ("--prior", "static", "--steps", "0", "--force")
SETTINGS = EnhanceSettings().replace(
    prior=dict(kind="static"), search=dict(steps=0), force=True, certificate=dict(control_steps=0)
)
PATIENCE = 300.0  # seconds, after which a test fails instead of hanging


@pytest.fixture(scope="module")
def pool() -> Iterator[DaskWorkers]:
    """Return two workers."""
    with DaskWorkers(2) as pool:
        yield pool


@pytest.fixture
def takes(tmp_path: Path, play: Play) -> Path:
    """Return a folder of eight recordings."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(8):
        soundfile.write(folder / f"take{number}.wav", play(1.0, seed=number).T, 16_000)
    return folder


def until(true: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_whole(takes: Path, out: Path, failed: Sequence[str] = ()) -> None:
    """Check that each input has one complete output or one listed reason, and nothing else exists."""
    rows = results_table.read_results(out / runner.RESULTS_TABLE_NAME)
    inputs = sorted(str(path) for path in takes.iterdir())
    assert sorted(row.path for row in rows) == inputs
    assert sorted(Path(row.path).name for row in rows if row.error) == sorted(failed)
    expected = {runner.RESULTS_TABLE_NAME}
    for row in rows:
        if row.error is None:
            assert row.output is not None
            output = Path(row.output)
            fields = recipe.load_recipe(output.with_name(output.name + recipe.RECIPE_SUFFIX))
            assert fields.output_sha256 == file_sha256(output)
            assert fields.input.sha256 == row.sha256 == file_sha256(row.path)
            expected |= {output.name, output.name + recipe.RECIPE_SUFFIX}
    assert set(tree(out)) == expected


def spread(
    takes: Path,
    out: Path,
    task: EnhanceTask,
    model: Model,
    pool: DaskWorkers | None,
    retries: int = 2,
) -> list[Any]:
    units = plan_jobs([takes], out)
    table = out / runner.RESULTS_TABLE_NAME
    events = runner.run_batch(units, task, model, workers=pool, table=table, retries=retries)
    return [event for event in events if not isinstance(event, runner.BatchProgress)]


def test_workers_give_the_outputs_of_one_process(
    tmp_path: Path, takes: Path, model: Model, pool: DaskWorkers
) -> None:
    plain = tmp_path / "plain"
    for event in runner.run_batch(plan_jobs([takes], plain), EnhanceTask(SETTINGS), model):
        assert not isinstance(event, FileFailure)
    out = tmp_path / "out"
    assert len(spread(takes, out, EnhanceTask(SETTINGS), model, pool)) == 8
    check_whole(takes, out)
    output = tree(out)
    del output[runner.RESULTS_TABLE_NAME]
    assert output == tree(plain)


@dataclass(frozen=True)
class Dying(EnhanceTask):
    """Task whose process is killed in the middle of some files, a number of times each."""

    victims: tuple[str, ...] = ()
    times: int = 1
    notes: str = ""

    def run(self, item: FileJob, model: Model, previous: ResultRow | None) -> Iterator[Any]:
        """Write half an output and be killed, or do the work."""
        assert isinstance(item.input, Path)
        assert isinstance(item.output, Path)
        died = sorted(Path(self.notes).glob(f"{item.input.name}.*"))
        if item.input.name in self.victims and len(died) < self.times:
            (Path(self.notes) / f"{item.input.name}.{len(died)}").touch()
            item.output.parent.mkdir(exist_ok=True)
            with atomic_path(item.output) as temporary:
                temporary.write_bytes(b"half of it")
                os.kill(os.getpid(), signal.SIGKILL)
        yield from super().run(item, model, previous)


def test_file_of_a_killed_worker_is_tried_again(
    tmp_path: Path, takes: Path, model: Model, pool: DaskWorkers
) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    notes.mkdir()
    task = Dying(SETTINGS, victims=("take3.wav",), notes=str(notes))
    events = spread(takes, out, task, model, pool)
    assert not [event for event in events if isinstance(event, FileFailure)]
    tries = {
        Path(row.path).name: row.tries for row in results_table.read_results(out / runner.RESULTS_TABLE_NAME)
    }
    assert tries.pop("take3.wav") == 2
    assert not list(out.glob(".tonewood-*"))  # the next write removed what the killed worker left
    assert all(item.from_earlier_run for item in spread(takes, out, EnhanceTask(SETTINGS), model, pool))
    check_whole(takes, out)


def test_file_that_kills_every_worker_is_listed_and_others_are_done(
    tmp_path: Path, takes: Path, model: Model, pool: DaskWorkers
) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    notes.mkdir()
    (takes / "bad.wav").write_text("no audio")
    task = Dying(SETTINGS, victims=("take3.wav",), times=99, notes=str(notes))
    lost = [item for item in spread(takes, out, task, model, pool, 1) if isinstance(item, FileFailure)]
    why = {Path(item.input).name: str(item.error) for item in lost}
    assert set(why) == {"bad.wav", "take3.wav"}
    assert "take3.wav: the worker process died" in why["take3.wav"]
    assert len(list(notes.iterdir())) == 2  # the first try, and one more
    spread(takes, out, EnhanceTask(SETTINGS), model, pool)
    check_whole(takes, out, ["bad.wav"])


@dataclass(frozen=True)
class Filling(EnhanceTask):
    """Task on a disk that has no space for larger files."""

    bytes: int = 0

    def run(self, item: FileJob, model: Model, previous: ResultRow | None) -> Iterator[Any]:
        """Do the work on a full disk."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.bytes, hard))
        try:
            yield from super().run(item, model, previous)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [100, 50_000])
def test_full_disk_fails_files_and_leaves_nothing(
    tmp_path: Path, takes: Path, model: Model, pool: DaskWorkers, room: int
) -> None:
    out = tmp_path / "out"
    lost = list(spread(takes, out, Filling(SETTINGS, bytes=room), model, pool, 0))
    assert len(lost) == 8
    for item in lost:
        assert isinstance(item, FileFailure)
        assert "is full: free some space" in str(item.error)
    assert set(tree(out)) == {runner.RESULTS_TABLE_NAME}
    spread(takes, out, EnhanceTask(SETTINGS), model, pool)
    check_whole(takes, out)


@dataclass(frozen=True)
class Slow(EnhanceTask):
    """Task that waits in the first process until the others have done five files."""

    notes: str = ""

    def run(self, item: FileJob, model: Model, previous: ResultRow | None) -> Iterator[Any]:
        """Do the work, and note which process did."""
        who = Path(self.notes) / "slow"
        try:
            with who.open("x") as stream:
                stream.write(str(os.getpid()))
        except FileExistsError:
            until(lambda: bool(who.read_text()))
        slow = who.read_text() == str(os.getpid())
        if slow:
            until(lambda: len(list(Path(self.notes).glob("*.False"))) >= 5)
        assert isinstance(item.input, Path)
        (Path(self.notes) / f"{item.input.name}.{slow}").touch()
        yield from super().run(item, model, previous)


def test_slow_worker_does_not_hold_back_the_others(
    tmp_path: Path, takes: Path, model: Model, pool: DaskWorkers
) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    notes.mkdir()
    spread(takes, out, Slow(SETTINGS, notes=str(notes)), model, pool)
    check_whole(takes, out)
    assert len(list(notes.glob("*.wav.*"))) == 8  # each once
    assert len(list(notes.glob("*.True"))) < len(list(notes.glob("*.False")))


# --- Whole processes


def cli(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tonewood", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_run_continues_after_its_client_was_killed(
    tmp_path: Path, takes: Path, model_file: Path, run: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    # The last two are so long that the client is killed during one of them.
    for number in (6, 7):
        wave = np.tile(soundfile.read(takes / f"take{number}.wav")[0], 60)
        soundfile.write(takes / f"take{number}.wav", wave, 16_000)
    client = cli("enhance", takes, "-o", out, "-m", model_file, "--workers", 1, *FEW)
    try:
        until(lambda: len(list(out.glob("take*.wav"))) > 1)
        workers = worker_processes(client.pid)
        assert workers
    finally:
        client.kill()
        client.communicate(timeout=PATIENCE)
    assert not (out / runner.RESULTS_TABLE_NAME).exists()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    before = {name: item for name, item in tree(out).items() if name.endswith(".wav")}
    table = out / runner.RESULTS_TABLE_NAME
    again = run("enhance", takes, "-o", out, "-m", model_file, *FEW, "--parquet", table)
    assert again.code == 0, again.err
    assert again.out.count("already") >= 1
    check_whole(takes, out)
    output = tree(out)
    assert {name: output[name] for name in before if not name.startswith(".")} == {
        name: item for name, item in before.items() if not name.startswith(".")
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")
def test_interrupt_of_all_processes_prints_one_line(tmp_path: Path, takes: Path, model_file: Path) -> None:
    """A terminal sends Ctrl-C to the command and to its workers."""
    out = tmp_path / "out"
    for path in takes.iterdir():  # whatever is first, much is left when it is done
        soundfile.write(path, np.tile(soundfile.read(path)[0], 200), 16_000)
    call = ["enhance", takes, "-o", out, "-m", model_file, "--workers", 1, *FEW]
    command = [sys.executable, "-m", "tonewood", *map(str, call)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Shells start background jobs, and so perhaps these tests, with the signal ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: len(list(out.glob("take*.wav"))) > 0)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    lines = [line for line in err.splitlines() if not line.startswith("dashboard")]
    assert lines == ["tonewood: interrupted; what is done is kept, and the same command continues"]
    assert process.returncode == 130


def free_port() -> int:
    with socket.socket() as actual:
        actual.bind(("127.0.0.1", 0))
        return int(actual.getsockname()[1])


def dask(role: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{role}", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def answers(port: int) -> bool:
    with socket.socket() as actual:
        return actual.connect_ex(("127.0.0.1", port)) == 0


def test_run_continues_after_the_scheduler_was_restarted(
    tmp_path: Path, takes: Path, model_file: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A client tries for so long to reach a lost scheduler again.
    monkeypatch.setattr(dask_backend, "_CONNECT_TIMEOUT", 5)
    out, port = tmp_path / "out", free_port()
    address = f"tcp://127.0.0.1:{port}"
    place = ("--host", "127.0.0.1", "--port", port, "--no-dashboard")
    joins = (address, "--no-nanny", "--nthreads", 1, "--no-dashboard", "--death-timeout", 60)
    command = ("enhance", takes, "-o", out, "-m", model_file, "--scheduler", address, *FEW)
    for number in range(8):
        wave = np.tile(soundfile.read(takes / f"take{number}.wav")[0], 10)
        soundfile.write(takes / f"take{number}.wav", wave, 16_000)
    started = [dask("scheduler", *place), dask("worker", *joins)]

    def kill_scheduler() -> None:
        until(lambda: len(list(out.glob("take*.wav"))) > 1)
        started[0].kill()

    try:
        until(lambda: answers(port))
        killer = Thread(target=kill_scheduler)
        killer.start()
        ran = run(*command)
        killer.join()
        assert ran.code == 1
        assert ran.err.startswith("dashboard  http://127.0.0.1")
        assert ran.err.endswith(
            f"tonewood: the scheduler at {address} does not answer any more; finished results are kept: "
            "start the scheduler and run the same command again\n"
        )
        started[1].kill()
        started += [dask("scheduler", *place), dask("worker", *joins)]
        started[0].wait(timeout=PATIENCE)
        until(lambda: answers(port))
        again = run(*command)
        assert again.code == 0, again.err
        assert again.out.count("already") >= 1
    finally:
        for process in started:
            process.kill()
            process.wait(timeout=PATIENCE)
    check_whole(takes, out)
    monkeypatch.setattr(dask_backend, "_CONNECT_TIMEOUT", 1)
    (out / "take0.wav").unlink()  # something is left to do
    gone = run(*command)
    assert gone.code == 1
    assert f"no scheduler answers at {address}" in gone.err


# --- Other commands


def test_workers_give_the_scores_of_one_process(
    takes: Path, model: Model, pool: DaskWorkers, tmp_path: Path
) -> None:
    units = [FileJob(path) for path in sorted(takes.iterdir())]
    (takes / "take7.wav").write_text("no audio")
    table = tmp_path / "t.parquet"
    actual: list[dict[str, Any]] = []
    for workers in (None, pool, pool):  # the third run uses the table of the second
        where = table if workers else None
        events = list(runner.run_batch(units, ScoreTask(), model, workers=workers, table=where))
        actual.append({str(event.input): event.score for event in events if isinstance(event, FileScored)})
        assert [Path(event.input).name for event in events if isinstance(event, FileFailure)] == ["take7.wav"]
    assert actual[0] == actual[1] == actual[2]
    assert len(actual[0]) == 7


class BorrowedWorkers:
    """Workers that stay when the command ends that uses them."""

    def __init__(self, pool: DaskWorkers) -> None:
        self.pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pool, name)

    def __enter__(self) -> DaskWorkers:
        return self.pool

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def use_pool(pool: DaskWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `--workers` use the workers of this module, whose start takes seconds."""
    monkeypatch.setattr(dask_backend, "DaskWorkers", lambda *_: BorrowedWorkers(pool))


@pytest.mark.usefixtures("use_pool")
def test_workers_give_the_explanations_of_one_process(
    tmp_path: Path, takes: Path, model_file: Path, run: Callable[..., Any]
) -> None:
    for path in sorted(takes.iterdir())[2:]:
        path.unlink()
    tables = []
    table = ("--parquet", tmp_path / "out" / runner.RESULTS_TABLE_NAME)
    for name, more in (("plain", ()), ("out", ("--workers", 1)), ("out", table)):
        ran = run("explain", takes, "-o", tmp_path / name, "-m", model_file, "--no-parts", "--json", *more)
        assert ran.code == 0, ran.err
        tables.append((tmp_path / name / "table.json").read_bytes())
    assert tables[0] == tables[1] == tables[2]
    assert [item.get("already") for item in ran.objects] == [True, True, None]
    plain, out = tree(tmp_path / "plain"), tree(tmp_path / "out")
    assert set(out) - set(plain) == {runner.RESULTS_TABLE_NAME}
    assert {name: out[name] for name in plain} == plain


@pytest.mark.usefixtures("use_pool")
def test_workers_give_the_measurements_of_one_process(
    tmp_path: Path, takes: Path, model_file: Path, play: Play, run: Callable[..., Any]
) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for number, path in enumerate(sorted(takes.iterdir())):
        path.unlink()
        if number < 2:
            soundfile.write(path, play(2.0, seed=number).T, 16_000)
            soundfile.write(good / path.name, play(2.0, seed=number, formant_hz=600).T, 16_000)
    table = tmp_path / "t.parquet"
    actual = []
    for more in ((), ("--workers", 1, "--parquet", table), ("--parquet", table)):
        ran = run("evaluate", "--pairs", takes, good, "-m", model_file, "--json", *more)
        assert ran.code == 0, ran.err
        actual.append(sorted(ran.out.splitlines()))
    assert actual[0] == actual[1] == actual[2]
    assert [row.seconds for row in results_table.read_results(table)] == [2.0, 2.0]


@pytest.mark.parametrize(("failures", "message"), [(0, ""), (2, ""), (99, "does not answer any more")])
def test_worker_may_die_while_it_receives_the_model(
    failures: int, message: str, model: Model, monkeypatch: pytest.MonkeyPatch
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
    pool, client = DaskWorkers(1), Dying()
    pool.client = client
    with pytest.raises(ClusterError, match=message) if message else nullcontext():
        pool.broadcast_model(model)
    assert client.asked == min(failures + 1, 5)


@pytest.mark.parametrize(
    "address", ["nowhere", "", "tcp://", "tcp://host", "http://host:1", "tcp://host:port"]
)
def test_invalid_scheduler_address_is_refused_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client for such an address would log errors for 40 s when it is closed."""
    monkeypatch.setattr(dask_backend, "Client", None)
    with (
        pytest.raises(CallError, match="is not an address of a scheduler"),
        DaskWorkers(scheduler=address),
    ):
        pass
