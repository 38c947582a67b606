"""Commands as forks of one process that has loaded all they need, with some trouble on their way.

They are killed at a step on the disk, find a folder read-only, a disk full or an input gone. A step
is whatever Python does to files below a folder: open for writing, link, rename, remove, make a
folder. Reads a request a line, and answers how the fork ended and how many steps it had taken.
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
_NAMELESS = getattr(os, "O_TMPFILE", -1)  # what nothing is ever seen of


def watch(root: str, step: int, count: mmap.mmap) -> None:
    """Count this process's steps, and kill it before one of them."""

    def seen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            ours = isinstance(path, str | bytes | os.PathLike) and flags & _WRITES
            ours = ours and flags & _NAMELESS != _NAMELESS
        elif event in _CHANGES:
            path, ours = arguments[0], True
        else:
            return
        if ours and os.fsdecode(path).startswith((root, ".tonewood-")):
            number = int.from_bytes(count[:8], "little") + 1
            count[:8] = number.to_bytes(8, "little")
            if number == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(seen)


def vanish(path: str, turn: int) -> None:
    """Remove a file just before it is opened for the so-manieth time."""
    turns = 0

    def seen(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal turns
        if event == "open" and str(arguments[0]) == path:
            turns += 1
            if turns == turn:
                os.unlink(path)  # noqa: PTH108 - pathlib opens nothing, but who knows

    sys.addaudithook(seen)


def powerless() -> None:
    """Let permissions hold for the superuser too: give the power to pass over them away."""
    libc = ctypes.CDLL(None, use_errno=True)
    override = ~(1 << 1)  # CAP_DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        sets[0] &= override  # effective
        sets[1] &= override  # permitted
        libc.capset(header, sets)


def backwards() -> None:
    """Let the clock begin in 1971 and go back an hour whenever it is read."""
    now = [40_000_000.0]

    def read() -> float:
        now[0] -= 3_600
        return now[0]

    time.time = read


def troubled(asked: dict[str, Any]) -> None:
    """Make what trouble is asked for."""
    if asked.get("powerless"):
        powerless()
    if asked.get("backwards"):
        backwards()
    if asked.get("vanish"):
        vanish(*asked["vanish"])
    if asked.get("most_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["most_bytes"], resource.RLIM_INFINITY))


def born(asked: dict[str, Any], count: mmap.mmap) -> None:
    """Be the command."""
    from tonewood import cli

    os.environ.update(asked["environment"])
    tempfile.tempdir = None
    told = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(told, 1)
    os.dup2(told, 2)
    sys.argv = ["tonewood", *asked["arguments"]]
    troubled(asked)
    watch(asked["root"], asked["step"], count)
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
    """Answer requests until there are no more."""
    from tonewood.cli.progress import TrainingDisplay  # noqa: F401
    from tonewood.listening import builder, stimuli  # noqa: F401
    from tonewood.training import pipeline  # noqa: F401

    count = mmap.mmap(-1, 8)
    for line in sys.stdin:
        asked = json.loads(line)
        count[:8] = bytes(8)
        child = os.fork()
        if child == 0:
            born(asked, count)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps([code, int.from_bytes(count[:8], "little")]), flush=True)


if __name__ == "__main__":
    main()
