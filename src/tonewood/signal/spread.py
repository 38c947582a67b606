"""Work on parts of a recording, spread over the cores: a thread a core, a part a thread.

Other processes may lend a hand; then a long recording is worked on by as many as have time for it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, Protocol, TypeVar

_ALONE = 3  # items

Item = TypeVar("Item")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Pending(Protocol[Result_co]):
    """A result that is on its way."""

    def done(self) -> bool:
        """Whether it is there."""
        ...

    def result(self) -> Result_co:
        """The result, once it is there."""
        ...


class Others(Protocol):
    """Other processes that lend a hand."""

    def room(self) -> int:
        """How many more items they would take now."""
        ...

    def submit(self, work: Callable[[Item], Result], item: Item) -> Pending[Result]:
        """Let them do it."""
        ...


_others: ContextVar[Others | None] = ContextVar("others", default=None)


@contextmanager
def helped(others: Others) -> Iterator[None]:
    """Let other processes lend a hand with whatever is portable."""
    token = _others.set(others)
    try:
        yield
    finally:
        _others.reset(token)


class Spread(Generic[Item, Result]):
    """Results of pushed items, in their order, whichever is done first.

    Few items are ahead of the one that is waited for, so memory does not grow with their number.
    torch and numpy let go of the interpreter while they compute; each thread's share is small
    enough that torch's own threads would only wait for each other (see docs/performance.md).

    Parameters
    ----------
    work : callable
    portable : bool
        Whether work and items can be pickled, and results come to the same in other processes:
        then whoever it is `helped` by takes what there is room for, after the first few items.
    """

    def __init__(self, work: Callable[[Item], Result], *, portable: bool = False) -> None:
        self._work, self._threads = work, cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tonewood")
        self._others = _others.get() if portable else None
        self._waiting: deque[Pending[Result]] = deque()
        self._here: list[Pending[Result]] = []
        self._there: list[Pending[Result]] = []
        self._pushed = 0

    def push(self, item: Item) -> Iterator[Result]:
        """Begin work on an item; yields what must be done before more is begun."""
        self._here, self._there = _undone(self._here), _undone(self._there)
        self._pushed += 1
        # What is short is done before others could be asked.
        others = self._others if self._pushed > _ALONE else None
        if others is not None and others.room() > 0:
            begun = others.submit(self._work, item)
            self._there.append(begun)
        else:
            begun = self._pool.submit(self._work, item)
            self._here.append(begun)
        self._waiting.append(begun)
        # As many again as are elsewhere may be done, while the one that is waited for is not.
        while len(self._waiting) > self._threads + 2 * len(self._there):
            yield self._waiting.popleft().result()
            self._there = _undone(self._there)

    def rest(self) -> Iterator[Result]:
        """All results that are still to come."""
        while self._waiting:
            yield self._waiting.popleft().result()

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(cancel_futures=True)


def spread(
    work: Callable[[Item], Result], items: Iterable[Item], *, portable: bool = False
) -> Iterator[Result]:
    """Results in the order of the items; `map`, by all that `Spread` works with."""
    ahead = Spread(work, portable=portable)
    try:
        for item in items:
            yield from ahead.push(item)
        yield from ahead.rest()
    finally:
        ahead.close()


def _undone(pending: list[Pending[Result]]) -> list[Pending[Result]]:
    return [it for it in pending if not it.done()]


def cores() -> int:
    """Cores that this process may use: TONEWOOD_CORES, else all that the system lets it."""
    given = os.environ.get("TONEWOOD_CORES", "")
    if given.isdecimal():
        return max(1, int(given))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
