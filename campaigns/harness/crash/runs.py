"""Commands that are killed: at a moment of their time, or at a step that they take on the disk.

After a death what stands under a final name must be what an undisturbed run makes, or nothing; and
the command, given again, must end with all that such a run makes and nothing else.
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
from tonewood.training.scorers import CHECKPOINT_SUFFIX as CHECKPOINT

SITE = Path(__file__).parent / "site"
KILLED = -9
_LONGEST = 900.0
# What torch and Dask leave in the folder for temporary files is theirs; Dask's must be empty.
_THEIRS = {"torchinductor_root", "dask-scratch-space"}


@dataclass(frozen=True)
class Scene:
    """A command in a folder of its own.

    Parameters
    ----------
    first, again : callable
        Arguments in a folder: of the run that is killed, and of the one after it.
    inputs : Path
        What it works on, outside that folder.
    prepared : Path, optional
        What the folder holds before.
    settled : callable
        Whether the second run may also say that all is done already, by code 1.
    """

    name: str
    first: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    inputs: Path
    prepared: Path | None = None
    settled: bool = False

    def fresh(self, work: Path) -> Path:
        """Folder to run in; what was there before goes."""
        shutil.rmtree(work, ignore_errors=True)
        for name in ("out", "cache", "tmp"):
            (work / name).mkdir(parents=True)
        if self.prepared is not None:
            shutil.copytree(self.prepared, work / "out", dirs_exist_ok=True)
        return work


@dataclass
class Death:
    """How one ended: when it was killed, and what was wrong after it."""

    scene: str
    at: float
    when: str
    wrong: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def environment(work: Path, inputs: Path) -> dict[str, str]:
    """Where a run in a folder keeps its temporary files, and how it tells that it began to work."""
    paths = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "TMPDIR": str(work / "tmp"),
        "TONEWOOD_CACHE": str(work / "cache"),
        "OMP_NUM_THREADS": "1",
        "TONEWOOD_CORES": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "SUDDEN_MARK": str(work / "began"),
        "SUDDEN_INPUTS": str(inputs),
        "TERM": "dumb",
    }


class Run:
    """A command as a process of its own."""

    def __init__(self, arguments: list[str], work: Path, inputs: Path) -> None:
        self.log = work / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tonewood", *arguments],
                stdout=log,
                stderr=log,
                env=environment(work, inputs),
            )

    def ended(self) -> int:
        """Wait for the end; its code."""
        return self.process.wait(_LONGEST)


def content(path: Path) -> str:
    """What a file holds, without what two runs of the same tell differently."""
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
        told = json.loads(path.read_text())
        return json.dumps({**told, "key": bool(told["key"])}, sort_keys=True)  # drawn anew
    return hashlib.sha256(path.read_bytes()).hexdigest()


def state(work: Path) -> dict[str, str]:
    """Every file below a folder's outputs and cache, with its content; empty folders too."""
    found: dict[str, str] = {}
    for place in (work / "out", work / "cache"):
        for path in sorted(place.rglob("*")):
            name = str(path.relative_to(work))
            if is_hidden(name) or path.name.endswith(results_table.PARTIAL_SUFFIX):
                found[name] = ""
            elif path.is_file():
                found[name] = content(path)
    return found


def is_hidden(name: str) -> bool:
    """Whether a path, or a folder of it, is hidden."""
    return any(part.startswith(".") for part in Path(name).parts)


def is_passing(name: str) -> bool:
    """Whether something is there only while a command is not through."""
    return is_hidden(name) or name.endswith((CHECKPOINT, results_table.PARTIAL_SUFFIX))


def half(work: Path, whole: dict[str, str]) -> list[str]:
    """What stands under a final name after a death and is not what belongs there."""
    try:
        now = state(work)
    except Exception as error:
        return [f"unreadable after the death: {error!r}"]
    return [
        f"{name} is not whole after the death"
        for name, held in now.items()
        if not is_passing(name) and whole.get(name) != held
    ]


def unlike(work: Path, whole: dict[str, str]) -> list[str]:
    """How a finished run differs from an undisturbed one."""
    try:
        now = state(work)
    except Exception as error:
        return [f"unreadable at the end: {error!r}"]
    wrong = [f"{name} is missing at the end" for name in whole if name not in now]
    wrong += [f"{name} is left at the end" for name in now if name not in whole]
    wrong += [f"{name} differs at the end" for name in whole if now.get(name, whole[name]) != whole[name]]  # fmt: skip  # noqa: E501
    return wrong + [f"tmp/{name} is left" for name in left_in(work / "tmp")]


def left_in(folder: Path) -> list[str]:
    """Temporary files in a folder that are not another program's."""
    theirs = [folder / "dask-scratch-space", *folder.glob("dask-scratch-space-*")]
    inside = [it for place in theirs if place.is_dir() for it in place.iterdir()]
    inside = [it for it in inside if it.name not in ("purge.lock", "global.lock")]
    left = [it for it in folder.iterdir() if it.name not in _THEIRS]
    return [str(it.relative_to(folder)) for it in (*left, *inside) if it not in theirs]


def spent(pid: int) -> float:
    """Seconds of processor time that a process and those it started have had; 0 if it is gone."""
    total = 0.0
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(spent(int(child)) for child in listed.read_text().split())
    except OSError:
        pass
    return total


def kill_after(process: subprocess.Popen[Any], seconds: float) -> None:
    """Kill a process once it has had so much processor time, unless it ends before.

    On a free core that is the time it runs for; on one that others use too, or stop, its work is as
    far all the same. The system counts in hundredths.
    """
    while process.poll() is None and spent(process.pid) < seconds:
        time.sleep(0.004)
    time.sleep(random.random() / os.sysconf("SC_CLK_TCK"))
    process.kill()


class Whole(NamedTuple):
    """An undisturbed run: what it made, and seconds of processor time that it took."""

    made: dict[str, str]
    seconds: float


def undisturbed(scene: Scene, work: Path) -> Whole:
    """Run a scene's command through."""
    run = Run(scene.first(scene.fresh(work)), work, scene.inputs)
    seconds = 0.0
    while run.process.poll() is None:
        seconds = max(seconds, spent(run.process.pid))
        time.sleep(0.004)
    assert run.ended() == 0, run.log.read_text()
    return Whole(state(work), seconds)


class Nursery:
    """Runs commands as forks that are killed at a step."""

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

    def run(self, arguments: Iterable[str], work: Path, step: int = 0, **trouble: Any) -> tuple[int, int]:
        """Run a command, killed before its so-manieth step if one is named; its code and steps."""
        self.start(arguments, work, step, **trouble)
        return self.ended()

    def ended(self) -> tuple[int, int]:
        """Wait for the command that was started; its code and steps."""
        assert self.process.stdout is not None
        code, steps = json.loads(self.process.stdout.readline())
        return code, steps

    def start(self, arguments: Iterable[str], work: Path, step: int = 0, **trouble: Any) -> None:
        """Start a command; `trouble` as the nursery knows it."""
        assert self.process.stdin is not None
        asked = {
            "arguments": list(arguments),
            "environment": {"TMPDIR": str(work / "tmp"), "TONEWOOD_CACHE": str(work / "cache")},
            "log": str(work / "log"),
            "root": str(work),
            "step": step,
            **trouble,
        }
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()


def killed_in_time(scene: Scene, work: Path, whole: Whole, at: float, nursery: Nursery) -> Death:
    """Kill a command when that share of its time has passed, then give it again.

    What is killed is a process of its own, from its start on; a fork is given it again, at once.
    """
    run = Run(scene.first(scene.fresh(work)), work, scene.inputs)
    kill_after(run.process, at * whole.seconds)
    code = run.ended()
    began = (work / "began").exists()
    wrong = half(work, whole.made)
    through = code == 0 or (not wrong and state(work) == whole.made)
    when = "after" if through else "in" if began else "before"
    death = Death(scene.name, at, when, wrong)
    if "--workers" in scene.first(work):  # Dask clears away when its process ends, as no fork does
        code = Run(scene.again(work), work, scene.inputs).ended()
    else:
        code, _ = nursery.run(scene.again(work), work)
    death.wrong += settled(scene, code, (work / "log").read_text(), through)
    death.wrong += unlike(work, whole.made)
    return death


def settled(scene: Scene, code: int, log: str, through: bool) -> list[str]:
    """What is wrong with how the second run ended."""
    if code == 0 or (code == 1 and scene.settled and through and "exists" in log):
        return []
    return [f"given again it ended with {code}: {log[-600:]}"]


def steps_of(scene: Scene, work: Path, nursery: Nursery) -> tuple[Whole, int]:
    """Run a scene through; what it made, and the steps it took."""
    code, steps = nursery.run(scene.first(scene.fresh(work)), work)
    assert code == 0, (work / "log").read_text()
    return Whole(state(work), 0.0), steps


def killed_at_step(scene: Scene, work: Path, whole: Whole, step: int, nursery: Nursery) -> Death:
    """Kill a command before a step on the disk, then give it again."""
    code, _ = nursery.run(scene.first(scene.fresh(work)), work, step)
    death = Death(scene.name, step, "in", half(work, whole.made))
    if code != KILLED:
        death.wrong.append(f"it ended with {code}: {(work / 'log').read_text()[-600:]}")
    through = not death.wrong and state(work) == whole.made
    code, _ = nursery.run(scene.again(work), work)
    death.wrong += settled(scene, code, (work / "log").read_text(), through)
    death.wrong += unlike(work, whole.made)
    return death
