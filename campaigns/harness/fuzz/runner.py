"""Run damaged inputs: each must end in success or one typed error, within limits of time and memory."""

import resource
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from campaigns.harness.fuzz.readers import LIMIT_BYTES, LIMIT_S, Reader
from tonewood.errors import TonewoodError


class InputTimeoutError(BaseException):
    """The time limit is over; not an Exception, so that readers do not catch it."""


@dataclass
class FuzzResult:
    """Outcomes of many inputs.

    Parameters
    ----------
    findings : list of (bytes, str)
        Inputs with another outcome, and a description of it.
    """

    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    findings: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of inputs."""
        return self.read + self.refused + len(self.findings)


@contextmanager
def resource_limits() -> Iterator[None]:
    """Limit this process to a gibibyte more memory, and let alarms raise InputTimeoutError."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise InputTimeoutError

    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits_before = resource.getrlimit(resource.RLIMIT_AS)
    handler_before = signal.getsignal(signal.SIGALRM)
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + LIMIT_BYTES, limits_before[1]))
    signal.signal(signal.SIGALRM, on_alarm)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler_before)
        resource.setrlimit(resource.RLIMIT_AS, limits_before)


def run_inputs(reader: Reader, contents: Iterator[bytes], folder: Path, limit_s: int = LIMIT_S) -> FuzzResult:
    """Give a reader one content after the other, as the only file in a folder."""
    result = FuzzResult()
    path = folder / f"input{reader.suffix}"
    with resource_limits(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in contents:
            path.write_bytes(content)
            start = time.perf_counter()
            signal.alarm(limit_s)
            try:
                reader.read(path)
                result.read += 1
            except TonewoodError as error:
                result.refused += 1
                if "\n" in str(error):
                    result.findings.append((content, f"more than one line: {error}"))
            except (Exception, InputTimeoutError):
                result.findings.append((content, traceback.format_exc(limit=-6)))
            finally:
                signal.alarm(0)
            result.slowest_s = max(result.slowest_s, time.perf_counter() - start)
            left = [file for file in folder.iterdir() if file != path]
            if left:
                result.findings.append((content, f"files left behind: {left}"))
                for file in left:
                    file.unlink()
    path.unlink(missing_ok=True)
    return result
