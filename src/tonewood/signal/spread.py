"""Work on parts of a recording, spread over the cores: a thread a core, a part a thread."""

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

Item = TypeVar("Item")
Result = TypeVar("Result")


class Spread(Generic[Item, Result]):
    """Results of pushed items, in their order, whichever is done first.

    Few items are ahead of the one that is waited for, so memory does not grow with their number.
    torch and numpy let go of the interpreter while they compute; each thread's share is small
    enough that torch's own threads would only wait for each other (see docs/performance.md).
    """

    def __init__(self, work: Callable[[Item], Result]) -> None:
        self._work, self._threads = work, cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tonewood")
        self._waiting: deque[Future[Result]] = deque()

    def push(self, item: Item) -> Iterator[Result]:
        """Begin work on an item; yields what must be done before more is begun."""
        self._waiting.append(self._pool.submit(self._work, item))
        while len(self._waiting) > self._threads:
            yield self._waiting.popleft().result()

    def rest(self) -> Iterator[Result]:
        """All results that are still to come."""
        while self._waiting:
            yield self._waiting.popleft().result()

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(cancel_futures=True)


def spread(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of the items; `map`, on every core."""
    ahead = Spread(work)
    try:
        for item in items:
            yield from ahead.push(item)
        yield from ahead.rest()
    finally:
        ahead.close()


def release() -> None:
    """Give freed memory back to the system.

    glibc keeps what threads freed, in pieces between what is still in use: over a thousand
    recordings it came to 18 GB. Elsewhere nothing is done.
    """
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)


def cores() -> int:
    """Cores that this process may use: TONEWOOD_CORES, else all that the system lets it."""
    given = os.environ.get("TONEWOOD_CORES", "")
    if given.isdecimal():
        return max(1, int(given))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
