"""Server that runs commands as forks of itself, with injected faults.

Faults: killed at a step on the disk, read-only folder, full disk, removed input, clock that runs
backwards. A step is anything that Python does to files below a folder: open for writing, link,
rename, remove, create a folder. Each line of input is a request in JSON; the answer is the exit code
of the fork and its number of steps. A request with `beside` is answered at the next with `join`.
"""

import ctypes
import json
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from typing import Any

_CHANGES = ("os.remove", "os.rename", "os.link", "os.mkdir", "os.rmdir", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_UNNAMED_FILE = getattr(os, "O_TMPFILE", -1)  # never visible in a folder


def count_steps(root: str, step: int, count: mmap.mmap) -> None:
    """Count the steps of this process, and kill it before one of them."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            is_step = isinstance(path, str | bytes | os.PathLike) and flags & _WRITES
            is_step = is_step and flags & _UNNAMED_FILE != _UNNAMED_FILE
        elif event in _CHANGES:
            path, is_step = arguments[0], True
        else:
            return
        if is_step and os.fsdecode(path).startswith((root, ".tonewood-")):
            number = int.from_bytes(count[:8], "little") + 1
            count[:8] = number.to_bytes(8, "little")
            if number == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def remove_before_open(path: str, turn: int) -> None:
    """Remove a file just before it is opened for the given time."""
    turns = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal turns
        if event == "open" and str(arguments[0]) == path:
            turns += 1
            if turns == turn:
                os.unlink(path)  # noqa: PTH108 - pathlib may open files

    sys.addaudithook(hook)


def drop_root_privileges() -> None:
    """Give up the capability by which root ignores permissions."""
    libc = ctypes.CDLL(None, use_errno=True)
    override = ~(1 << 1)  # CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        sets[0] &= override  # effective
        sets[1] &= override  # permitted
        libc.capset(header, sets)


def run_clock_backwards() -> None:
    """Start the clock in 1971 and set it back an hour at every call."""
    now = [40_000_000.0]

    def read() -> float:
        now[0] -= 3_600
        return now[0]

    time.time = read


def apply_faults(request: dict[str, Any]) -> None:
    """Inject the faults of a request."""
    if request.get("powerless"):
        drop_root_privileges()
    if request.get("backwards"):
        run_clock_backwards()
    if request.get("vanish"):
        remove_before_open(*request["vanish"])
    if request.get("most_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["most_bytes"], resource.RLIM_INFINITY))


def run_command(request: dict[str, Any], count: mmap.mmap) -> None:
    """Run the command of a request in this process."""
    from tonewood import cli

    os.environ.update(request["environment"])
    tempfile.tempdir = None
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["tonewood", *request["arguments"]]
    apply_faults(request)
    count_steps(request["root"], request["step"], count)
    code = 70
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    """Answer requests until the input ends."""
    import torch._dynamo  # noqa: F401 - optimizers of torch import it, which takes a second

    from tonewood.cli.progress import TrainingDisplay  # noqa: F401
    from tonewood.listening import builder, stimuli  # noqa: F401
    from tonewood.training import pipeline  # noqa: F401

    beside = 0, mmap.mmap(-1, 8)
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("join"):
            child, count = beside
        else:
            count = mmap.mmap(-1, 8)
            child = os.fork()
            if child == 0:
                run_command(request, count)
        if request.get("beside"):
            beside = child, count
            continue
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps([code, int.from_bytes(count[:8], "little")]), flush=True)


if __name__ == "__main__":
    main()
