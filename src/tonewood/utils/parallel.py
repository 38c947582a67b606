"""Work on parts of a recording, spread over the cores: a thread a core, a part a thread.

Other processes may lend a hand; then a long recording is worked on by as many as have time for it.

What becomes of memory that is done with, where the system lets us say: on Linux.
"""

import ctypes
import mmap
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

_LOCAL_FIRST_ITEMS = 3  # items

Item = TypeVar("Item")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class PendingResult(Protocol[Result_co]):
    """A result that is on its way."""

    def done(self) -> bool:
        """Whether it is there."""
        ...

    def result(self) -> Result_co:
        """The result, once it is there."""
        ...


class RemoteExecutor(Protocol):
    """Other processes that lend a hand."""

    def free_slots(self) -> int:
        """How many more items they would take now."""
        ...

    def submit(self, work: Callable[[Item], Result], item: Item) -> PendingResult[Result]:
        """Let them do it."""
        ...


_remote_executor: ContextVar[RemoteExecutor | None] = ContextVar("others", default=None)


@contextmanager
def use_remote_executor(executor: RemoteExecutor) -> Iterator[None]:
    """Let other processes lend a hand with whatever is portable."""
    token = _remote_executor.set(executor)
    try:
        yield
    finally:
        _remote_executor.reset(token)


class OrderedParallelMap(Generic[Item, Result]):
    """Results of pushed items, in their order, whichever is done first.

    Few items are ahead of the one that is waited for, so memory does not grow with their number.
    torch and numpy let go of the interpreter while they compute; each thread's share is small
    enough that torch's own threads would only wait for each other (see docs/performance.md).

    Parameters
    ----------
    work : callable
    picklable : bool
        Whether work and items can be pickled, and results come to the same in other processes:
        then whoever it is `use_remote_executor` by takes what there is room for, after the first few items.
    """

    def __init__(self, work: Callable[[Item], Result], *, picklable: bool = False) -> None:
        self._work, self._threads = work, available_cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tonewood")
        self._remote = _remote_executor.get() if picklable else None
        self._queue: deque[PendingResult[Result]] = deque()
        self._local: list[PendingResult[Result]] = []
        self._lent: list[PendingResult[Result]] = []
        self._pushed = 0

    def push(self, item: Item) -> Iterator[Result]:
        """Begin work on an item; yields what must be done before more is begun."""
        self._local, self._lent = _unfinished(self._local), _unfinished(self._lent)
        self._pushed += 1
        # What is short is done before others could be asked.
        others = self._remote if self._pushed > _LOCAL_FIRST_ITEMS else None
        if others is not None and others.free_slots() > 0:
            begun = others.submit(self._work, item)
            self._lent.append(begun)
        else:
            begun = self._submit_local(item)
            self._local.append(begun)
        self._queue.append(begun)
        # As many again as are elsewhere may be done, while the one that is waited for is not.
        while len(self._queue) > self._threads + 2 * len(self._lent):
            yield self._queue.popleft().result()
            self._lent = _unfinished(self._lent)

    def drain(self) -> Iterator[Result]:
        """All results that are still to come."""
        while self._queue:
            yield self._queue.popleft().result()

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(cancel_futures=True)

    def _submit_local(self, item: Item) -> PendingResult[Result]:
        return self._pool.submit(self._work, item)


class _OrderedParallelIterator(OrderedParallelMap[Item, Iterable[Result]]):
    """Work that makes one thing after the other, each to be had as soon as it is made here."""

    def __init__(self, generate: Callable[[Item], Iterable[Result]], *, picklable: bool) -> None:
        super().__init__(partial(_collect_results, generate), picklable=picklable)
        self._generate, self._closed = generate, Event()

    def close(self) -> None:
        """Begin nothing more, and end what is under way after the next that it makes."""
        self._closed.set()
        super().close()

    def _submit_local(self, item: Item) -> PendingResult[Iterable[Result]]:
        return _StreamedResult(self._pool, partial(self._generate, item), self._closed)


class _StreamedResult(Generic[Result]):
    """What a thread makes, while it makes it."""

    def __init__(
        self, pool: ThreadPoolExecutor, generate: Callable[[], Iterable[Result]], closed: Event
    ) -> None:
        self._queue: SimpleQueue[tuple[Result, ...]] = SimpleQueue()
        self._future: Future[None] = pool.submit(self._produce, generate, closed)

    def _produce(self, generate: Callable[[], Iterable[Result]], closed: Event) -> None:
        try:
            for it in generate():
                self._queue.put((it,))
                if closed.is_set():
                    return
        finally:
            self._queue.put(())

    def done(self) -> bool:
        """As of `PendingResult`."""
        return self._future.done()

    def result(self) -> Iterator[Result]:
        """As of `PendingResult`: all that is made, as it comes; an error at its end."""
        while made := self._queue.get():
            yield from made
        self._future.result()


def parallel_map(
    work: Callable[[Item], Result], items: Iterable[Item], *, picklable: bool = False
) -> Iterator[Result]:
    """Results in the order of the items; `map`, by all that `Spread` works with."""
    return _run_in_order(OrderedParallelMap(work, picklable=picklable), items)


def parallel_iterate(
    generate: Callable[[Item], Iterable[Result]], items: Iterable[Item], *, picklable: bool = False
) -> Generator[Iterable[Result], None, None]:
    """What is made of each item, in their order, each thing as soon as it is made.

    Only one item is told of at a time: what is made of others meanwhile comes at their turn, what
    another process makes as a whole.
    """
    return _run_in_order(_OrderedParallelIterator(generate, picklable=picklable), items)


def _run_in_order(
    runner: OrderedParallelMap[Item, Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    try:
        for item in items:
            yield from runner.push(item)
        yield from runner.drain()
    finally:
        runner.close()


def _collect_results(generate: Callable[[Item], Iterable[Result]], item: Item) -> list[Result]:
    return list(generate(item))


def _unfinished(pending: list[PendingResult[Result]]) -> list[PendingResult[Result]]:
    return [it for it in pending if not it.done()]


def available_cores() -> int:
    """Cores that this process may use: TONEWOOD_CORES, else all that the system lets it."""
    given = os.environ.get("TONEWOOD_CORES", "")
    if given.isdecimal():
        return max(1, int(given))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt(3)
_PAGEOUT = 21  # of madvise(2)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def tune_malloc() -> None:
    """Let this process keep memory that it frees, up to a quarter of a gibibyte, for what comes.

    What a part of a recording needs is freed, and needed again for the next one. glibc learns that,
    unless its environment told it to give all back, as Dask's workers are told: then half of the
    time goes into getting it anew. Elsewhere nothing is done.
    """
    tune = getattr(_LIBC, "mallopt", None)
    if tune is not None:
        tune(_MMAP_THRESHOLD, 32 << 20)
        tune(_TRIM_THRESHOLD, 256 << 20)


def trim_malloc() -> None:
    """Give freed memory back to the system.

    glibc keeps what threads freed, in pieces between what is still in use: over a thousand
    recordings it came to 18 GB. Elsewhere nothing is done.
    """
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)


def page_out(*tensors: "Tensor") -> None:
    """Let the system have the memory of tensors that are mapped from files, until they are needed.

    Of no other memory anything is lost. Elsewhere nothing is done.
    """
    advise = getattr(_LIBC, "madvise", None)
    if advise is None:
        return
    for tensor in tensors:
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        size = tensor.data_ptr() + tensor.nbytes - first
        if size > 0:
            advise(ctypes.c_void_p(first), ctypes.c_size_t(size), _PAGEOUT)
