"""Keys that are pressed while a command runs, and the signal that stands for one."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KeyHandler = Callable[[str], None]


@contextmanager
def read_keys(on_key: KeyHandler) -> Iterator[Callable[[], None]]:
    """Yield what hands over every key pressed since it was last called.

    Only where standard input is a terminal; elsewhere, and where the system has it, the signal
    SIGUSR1 counts as b.
    """
    if hasattr(signal, "SIGUSR1"):
        usual = signal.signal(signal.SIGUSR1, lambda *_: on_key("b"))
    try:
        with _unbuffered_terminal() as pressed:

            def poll() -> None:
                for key in pressed():
                    on_key(key)

            yield poll
    finally:
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, usual)


@contextmanager
def _unbuffered_terminal() -> Iterator[Callable[[], str]]:
    """Keys one by one, without waiting for the end of a line; none where there is no terminal."""
    if not sys.stdin.isatty() or sys.platform == "win32":
        yield lambda: ""
        return
    import termios
    import tty

    file = sys.stdin.fileno()
    usual = termios.tcgetattr(file)
    tty.setcbreak(file)

    def pressed() -> str:
        ready, _, _ = select.select([file], [], [], 0)
        return os.read(file, 64).decode(errors="ignore") if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, usual)
