"""Keys pressed while a command runs: read one by one, and the terminal is given back as it was."""

import os
import signal
import sys
import termios
from collections.abc import Iterator

import pytest

from tonewood.cli.servers import read_keys


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal that standard input is, for whoever types there."""
    outside, inside = os.openpty()
    # Echoes that nobody reads would hold up whoever waits for them to be written.
    quiet = termios.tcgetattr(inside)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(inside, termios.TCSANOW, quiet)
    with os.fdopen(inside, encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdin", file)
        yield outside
    os.close(outside)


def waits_for_lines() -> bool:
    """Tell whether the terminal keeps keys until the line is at its end, as it usually does."""
    return bool(termios.tcgetattr(sys.stdin.fileno())[3] & termios.ICANON)


def test_keys_are_read_without_waiting_for_a_line(terminal: int) -> None:
    turned: list[str] = []
    with read_keys(turned.append) as poll:
        assert not waits_for_lines()
        poll()
        assert turned == []
        os.write(terminal, b"b-")
        poll()
        poll()
    assert turned == ["b", "-"]
    assert waits_for_lines()


def test_terminal_is_restored_after_an_error(terminal: int) -> None:
    assert terminal
    usual = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(RuntimeError, match="device"), read_keys(lambda key: None):
        raise RuntimeError("device")
    assert waits_for_lines()
    assert signal.getsignal(signal.SIGUSR1) is usual


def test_signal_counts_as_a_key_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = os.pipe()
    turned: list[str] = []
    with os.fdopen(inside, encoding="utf-8") as file, os.fdopen(outside, "wb") as typed:
        monkeypatch.setattr(sys, "stdin", file)
        typed.write(b"x")
        typed.flush()
        with read_keys(turned.append) as poll:
            os.kill(os.getpid(), signal.SIGUSR1)
            poll()
            assert turned == ["b"]
