"""Whether an input ends as it may: in success or in one typed error, soon, in little memory."""

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


class TookTooLongError(BaseException):
    """Raised by the clock; nothing catches it on the way."""


@dataclass
class Tally:
    """What became of many inputs.

    Parameters
    ----------
    findings : list of (bytes, str)
        Inputs that ended otherwise than they may, and how.
    """

    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    findings: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Inputs that were tried."""
        return self.read + self.refused + len(self.findings)


@contextmanager
def bounded() -> Iterator[None]:
    """Let this process have a gibibyte more than it has, and no input more than ten seconds."""

    def rung(number: int, frame: FrameType | None) -> None:
        raise TookTooLongError

    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, before_rung = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)
    resource.setrlimit(resource.RLIMIT_AS, (own + LIMIT_BYTES, before[1]))
    signal.signal(signal.SIGALRM, rung)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before_rung)
        resource.setrlimit(resource.RLIMIT_AS, before)


def tried(reader: Reader, contents: Iterator[bytes], folder: Path) -> Tally:
    """Give a reader one content after the other, as a file in a folder that holds nothing else."""
    tally = Tally()
    path = folder / f"input{reader.suffix}"
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in contents:
            path.write_bytes(content)
            began = time.perf_counter()
            signal.alarm(LIMIT_S)
            try:
                reader.read(path)
                tally.read += 1
            except TonewoodError as error:
                tally.refused += 1
                if "\n" in str(error):
                    tally.findings.append((content, f"more than one line: {error}"))
            except (Exception, TookTooLongError):
                tally.findings.append((content, traceback.format_exc(limit=-6)))
            finally:
                signal.alarm(0)
            tally.slowest_s = max(tally.slowest_s, time.perf_counter() - began)
            left = [it for it in folder.iterdir() if it != path]
            if left:
                tally.findings.append((content, f"left behind: {left}"))
                for it in left:
                    it.unlink()
    path.unlink(missing_ok=True)
    return tally
