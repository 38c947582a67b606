"""Kill commands at a share of their processor time, or at a step on the disk, and check the outputs.

After a kill, files under final names must be equal to those of an undisturbed run, or absent. The
command is then run again and must produce the same files as an undisturbed run, and no others.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from safetensors import safe_open

from tonewood.batch import results_table
from tonewood.model.model import load_model
from tonewood.training.networks import CHECKPOINT_SUFFIX as CHECKPOINT

SITE = Path(__file__).parent / "site"
KILLED_CODE = -9
_TIMEOUT_S = 900.0
# Torch and Dask leave these in the folder of temporary files; Dask's must be empty.
_OTHER_PROGRAMS = {"torchinductor_root", "dask-scratch-space"}


@dataclass(frozen=True)
class Command:
    """A command in a folder of its own.

    Parameters
    ----------
    first, again : callable
        Arguments for a folder: of the run that is killed, and of the one after it.
    inputs : Path
        Input files, outside that folder.
    prepared : Path, optional
        Initial content of the output folder.
    may_report_existing : bool
        The second run may also exit with 1, because the output exists.
    """

    name: str
    first: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    inputs: Path
    prepared: Path | None = None
    may_report_existing: bool = False

    def fresh(self, work: Path) -> Path:
        """Create an empty folder to run in."""
        shutil.rmtree(work, ignore_errors=True)
        for name in ("out", "cache", "tmp"):
            (work / name).mkdir(parents=True)
        if self.prepared is not None:
            shutil.copytree(self.prepared, work / "out", dirs_exist_ok=True)
        return work


@dataclass
class KillResult:
    """When a command was killed, and what was wrong afterwards."""

    command: str
    at: float
    when: str
    errors: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def environment(work: Path, inputs: Path) -> dict[str, str]:
    """Return the environment of a run: its temporary files, cache, and the file that marks its start."""
    paths = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "TMPDIR": str(work / "tmp"),
        "TONEWOOD_CACHE": str(work / "cache"),
        "OMP_NUM_THREADS": "1",
        "TONEWOOD_CORES": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "CRASH_MARK": str(work / "began"),
        "CRASH_INPUTS": str(inputs),
        "TERM": "dumb",
    }


class CommandProcess:
    """A command in its own process."""

    def __init__(self, arguments: list[str], work: Path, inputs: Path) -> None:
        self.log = work / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tonewood", *arguments],
                stdout=log,
                stderr=log,
                env=environment(work, inputs),
            )

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(_TIMEOUT_S)


def content(path: Path) -> str:
    """Return the content of a file, or its digest, without what differs between equal runs."""
    if path.suffix == ".tonewood":
        return load_model(path).digest
    if path.name.endswith(CHECKPOINT):
        with safe_open(path, "pt") as file:
            return str(len(list(file.keys())) > 0)
    if path.suffix == ".parquet":
        rows = [asdict(row) for row in results_table.read_results(path)]
        for row in rows:
            details = json.loads(row["details"] or "{}")
            row |= {"took": 0, "tries": 0, "details": {**details, "already": None}}
            row |= {key: Path(row[key]).name for key in ("path", "output") if row[key]}
        return json.dumps(sorted(rows, key=lambda row: row["path"]))
    if path.name == "test.json":
        definition = json.loads(path.read_text())
        # The key is random.
        return json.dumps({**definition, "key": bool(definition["key"])}, sort_keys=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def state(work: Path) -> dict[str, str]:
    """Return the content of every file below a folder's outputs and cache, by name."""
    contents: dict[str, str] = {}
    for place in (work / "out", work / "cache"):
        for path in sorted(place.rglob("*")):
            name = str(path.relative_to(work))
            if is_hidden(name) or path.name.endswith(results_table.PARTIAL_SUFFIX):
                contents[name] = ""
            elif path.is_file():
                contents[name] = content(path)
    return contents


def is_hidden(name: str) -> bool:
    """Return whether a path, or one of its folders, is hidden."""
    return any(part.startswith(".") for part in Path(name).parts)


def is_temporary(name: str) -> bool:
    """Return whether a file exists only while a command runs."""
    return is_hidden(name) or name.endswith((CHECKPOINT, results_table.PARTIAL_SUFFIX))


def incomplete_outputs(work: Path, undisturbed: dict[str, str]) -> list[str]:
    """List files under final names that differ from those of an undisturbed run."""
    try:
        now = state(work)
    except Exception as error:
        return [f"unreadable after the kill: {error!r}"]
    return [
        f"{name} is not whole after the kill"
        for name, digest in now.items()
        if not is_temporary(name) and undisturbed.get(name) != digest
    ]


def differences(work: Path, undisturbed: dict[str, str]) -> list[str]:
    """List differences between a finished run and an undisturbed one."""
    try:
        now = state(work)
    except Exception as error:
        return [f"unreadable at the end: {error!r}"]
    errors = [f"{name} is missing at the end" for name in undisturbed if name not in now]
    errors += [f"{name} is left at the end" for name in now if name not in undisturbed]
    errors += [f"{name} differs at the end" for name in now if undisturbed.get(name, now[name]) != now[name]]
    return errors + [f"tmp/{name} is left" for name in leftover_files(work / "tmp")]


def leftover_files(folder: Path) -> list[str]:
    """List temporary files that Tonewood left in a folder."""
    dask_folders = [folder / "dask-scratch-space", *folder.glob("dask-scratch-space-*")]
    inside = [path for place in dask_folders if place.is_dir() for path in place.iterdir()]
    inside = [path for path in inside if path.name not in ("purge.lock", "global.lock")]
    left = [path for path in folder.iterdir() if path.name not in _OTHER_PROGRAMS]
    return [str(path.relative_to(folder)) for path in (*left, *inside) if path not in dask_folders]


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its children in seconds; 0 after its end."""
    total = 0.0
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(cpu_seconds(int(child)) for child in listed.read_text().split())
    except OSError:
        pass
    return total


def kill_after(process: subprocess.Popen[Any], seconds: float) -> None:
    """Kill a process after some processor time, unless it ends before.

    Processor time, because it measures progress on a busy machine too. The system counts in steps
    of 10 ms, so a random fraction of a step is added.
    """
    while process.poll() is None and cpu_seconds(process.pid) < seconds:
        time.sleep(0.004)
    time.sleep(random.random() / os.sysconf("SC_CLK_TCK"))
    process.kill()


class UndisturbedRun(NamedTuple):
    """Outputs of an undisturbed run, and its processor time in seconds."""

    outputs: dict[str, str]
    seconds: float


def run_undisturbed(command: Command, work: Path) -> UndisturbedRun:
    """Run a command to its end."""
    run = CommandProcess(command.first(command.fresh(work)), work, command.inputs)
    seconds = 0.0
    while run.process.poll() is None:
        seconds = max(seconds, cpu_seconds(run.process.pid))
        time.sleep(0.004)
    assert run.wait() == 0, run.log.read_text()
    return UndisturbedRun(state(work), seconds)


class ForkServer:
    """Process that runs commands as forks of itself, killed at a step on the disk."""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TONEWOOD_CORES": "1", "TERM": "dumb"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def run(self, arguments: Iterable[str], work: Path, step: int = 0, **faults: Any) -> tuple[int, int]:
        """Run a command, killed before a step unless it is 0; return exit code and number of steps."""
        self.start(arguments, work, step, **faults)
        return self.wait()

    def run_two(self, first: Iterable[str], second: Iterable[str], work: Path) -> tuple[int, int]:
        """Run two commands at the same time; return both exit codes."""
        self.start(first, work, beside=True)
        self.start(second, work)
        second_code, _ = self.wait()
        self._send({"join": True})
        return self.wait()[0], second_code

    def wait(self) -> tuple[int, int]:
        """Wait for the started command; return exit code and number of steps."""
        assert self.process.stdout is not None
        code, steps = json.loads(self.process.stdout.readline())
        return code, steps

    def start(self, arguments: Iterable[str], work: Path, step: int = 0, **faults: Any) -> None:
        """Start a command; `faults` are those of `fork_server.apply_faults`."""
        request = {
            "arguments": list(arguments),
            "environment": {"TMPDIR": str(work / "tmp"), "TONEWOOD_CACHE": str(work / "cache")},
            "log": str(work / "log"),
            "root": str(work),
            "step": step,
            **faults,
        }
        self._send(request)

    def _send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()


def kill_after_share(
    command: Command, work: Path, undisturbed: UndisturbedRun, at: float, fork_server: ForkServer
) -> KillResult:
    """Kill a command after a share of its processor time, then run it again.

    The first run is a process of its own, so that its start is included; the second is a fork.
    """
    run = CommandProcess(command.first(command.fresh(work)), work, command.inputs)
    kill_after(run.process, at * undisturbed.seconds)
    code = run.wait()
    has_started = (work / "began").exists()
    errors = incomplete_outputs(work, undisturbed.outputs)
    is_complete = code == 0 or (not errors and state(work) == undisturbed.outputs)
    when = "after" if is_complete else "in" if has_started else "before"
    result = KillResult(command.name, at, when, errors)
    if "--workers" in command.first(work):  # Dask cleans up at the end of its process; forks skip that
        code = CommandProcess(command.again(work), work, command.inputs).wait()
    else:
        code, _ = fork_server.run(command.again(work), work)
    result.errors += check_second_run(command, code, (work / "log").read_text(), is_complete)
    result.errors += differences(work, undisturbed.outputs)
    return result


def check_second_run(command: Command, code: int, log: str, is_complete: bool) -> list[str]:
    """List what is wrong with the exit of the second run."""
    if code == 0 or (code == 1 and command.may_report_existing and is_complete and "exists" in log):
        return []
    return [f"the second run exited with {code}: {log[-600:]}"]


def count_steps(command: Command, work: Path, fork_server: ForkServer) -> tuple[UndisturbedRun, int]:
    """Run a command to its end; return its outputs and the number of steps on the disk."""
    code, steps = fork_server.run(command.first(command.fresh(work)), work)
    assert code == 0, (work / "log").read_text()
    return UndisturbedRun(state(work), 0.0), steps


def kill_at_step(
    command: Command, work: Path, undisturbed: UndisturbedRun, step: int, fork_server: ForkServer
) -> KillResult:
    """Kill a command before a step on the disk, then run it again."""
    code, _ = fork_server.run(command.first(command.fresh(work)), work, step)
    result = KillResult(command.name, step, "in", incomplete_outputs(work, undisturbed.outputs))
    if code != KILLED_CODE:
        result.errors.append(f"it exited with {code}: {(work / 'log').read_text()[-600:]}")
    is_complete = not result.errors and state(work) == undisturbed.outputs
    code, _ = fork_server.run(command.again(work), work)
    result.errors += check_second_run(command, code, (work / "log").read_text(), is_complete)
    result.errors += differences(work, undisturbed.outputs)
    return result
