"""Work on parts of a recording, spread over the cores: a thread a core, a part a thread.

Other processes may lend a hand; then a long recording is worked on by as many as have time for it.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from queue import SimpleQueue
from threading import Event
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
            begun = self._begin(item)
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

    def _begin(self, item: Item) -> Pending[Result]:
        return self._pool.submit(self._work, item)


class _Following(Spread[Item, Iterable[Result]]):
    """Work that makes one thing after the other, each to be had as soon as it is made here."""

    def __init__(self, making: Callable[[Item], Iterable[Result]], *, portable: bool) -> None:
        super().__init__(partial(_listed, making), portable=portable)
        self._making, self._closed = making, Event()

    def close(self) -> None:
        """Begin nothing more, and end what is under way after the next that it makes."""
        self._closed.set()
        super().close()

    def _begin(self, item: Item) -> Pending[Iterable[Result]]:
        return _Followed(self._pool, partial(self._making, item), self._closed)


class _Followed(Generic[Result]):
    """What a thread makes, while it makes it."""

    def __init__(
        self, pool: ThreadPoolExecutor, making: Callable[[], Iterable[Result]], closed: Event
    ) -> None:
        self._made: SimpleQueue[tuple[Result, ...]] = SimpleQueue()
        self._work: Future[None] = pool.submit(self._make, making, closed)

    def _make(self, making: Callable[[], Iterable[Result]], closed: Event) -> None:
        try:
            for it in making():
                self._made.put((it,))
                if closed.is_set():
                    return
        finally:
            self._made.put(())

    def done(self) -> bool:
        """As of `Pending`."""
        return self._work.done()

    def result(self) -> Iterator[Result]:
        """As of `Pending`: all that is made, as it comes; an error at its end."""
        while made := self._made.get():
            yield from made
        self._work.result()


def spread(
    work: Callable[[Item], Result], items: Iterable[Item], *, portable: bool = False
) -> Iterator[Result]:
    """Results in the order of the items; `map`, by all that `Spread` works with."""
    return _done(Spread(work, portable=portable), items)


def follow(
    making: Callable[[Item], Iterable[Result]], items: Iterable[Item], *, portable: bool = False
) -> Generator[Iterable[Result], None, None]:
    """What is made of each item, in their order, each thing as soon as it is made.

    Only one item is told of at a time: what is made of others meanwhile comes at their turn, what
    another process makes as a whole.
    """
    return _done(_Following(making, portable=portable), items)


def _done(ahead: Spread[Item, Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    try:
        for item in items:
            yield from ahead.push(item)
        yield from ahead.rest()
    finally:
        ahead.close()


def _listed(making: Callable[[Item], Iterable[Result]], item: Item) -> list[Result]:
    return list(making(item))


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
