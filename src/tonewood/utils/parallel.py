"""Ordered parallel work on the cores of one process, its memory, and the device of its networks."""

import ctypes
import mmap
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Event, RLock, local
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tonewood.errors import CallError, DeviceError, explain_missing_torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

Item = TypeVar("Item")
Owner = TypeVar("Owner")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt(3)
_PAGEOUT = 21  # of madvise(2)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


# --- Ordered threads


class _ThreadState(local):
    """State of a thread: whether the results of its work are still wanted."""

    closed: Event | None = None


_THREAD = _ThreadState()


class _ClosablePool:
    """Pool of threads that any thread may close, even in the garbage collector.

    Threads are not joined. The collector may close a pool while it runs on a thread that is starting,
    and that holds a lock which a join waits for.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tonewood")
        self._unfinished: list[Future[Any]] = []

    def submit(self, work: Callable[..., Result], *arguments: object) -> "Future[Result]":
        """Run work on a thread of the pool."""
        self._unfinished = [future for future in self._unfinished if not future.done()]
        future = self._pool.submit(work, *arguments)
        self._unfinished.append(future)
        return future

    def close(self) -> None:
        """Cancel work that has not begun, and wait for the rest."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for future in self._unfinished:
            with suppress(CancelledError):
                future.exception()


class _PendingResult(Protocol[Result_co]):
    """Result of submitted work."""

    def result(self) -> Result_co:
        """Return the result; wait until it is ready."""
        ...


class _StreamedResult(Generic[Result]):
    """Elements that a thread produces, available as soon as they are produced."""

    def __init__(self, pool: _ClosablePool, generate: Callable[[], Iterable[Result]], closed: Event) -> None:
        self._queue: SimpleQueue[tuple[Result, ...]] = SimpleQueue()
        self._future: Future[None] = pool.submit(self._produce, generate, closed)

    def _produce(self, generate: Callable[[], Iterable[Result]], closed: Event) -> None:
        try:
            for element in generate():
                self._queue.put((element,))
                if closed.is_set():
                    return
        finally:
            self._queue.put(())  # the end mark, after an error too: the consumer must not wait forever

    def result(self) -> Iterator[Result]:
        """Yield the elements; raise the producer's error after the last one."""
        while element := self._queue.get():
            yield from element
        self._future.result()


def parallel_map(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield `work(item)` in the order of the items, computed by one thread per core.

    At most one item per thread is ahead of the one that is waited for, so memory does not grow
    with their number. NumPy and SciPy release the interpreter while they compute. Each thread's
    share is small enough that further threads of BLAS would only wait for each other
    (docs/performance.md). Closing the generator waits for work that has begun: long work calls
    `raise_if_closed`.
    """
    closed = Event()

    def run(item: Item) -> Result:
        _THREAD.closed = closed
        return work(item)

    return _run_in_order(lambda pool, item: pool.submit(run, item), items, closed)


def raise_if_closed() -> None:
    """Raise CancelledError on a thread of a `parallel_map` whose results nobody waits for any more."""
    if _THREAD.closed is not None and _THREAD.closed.is_set():
        raise CancelledError


def parallel_starmap(work: Callable[..., Result], items: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
    """Yield `work(*item)` as `parallel_map` does."""
    return parallel_map(lambda item: work(*item), items)


def parallel_iterate(
    generate: Callable[[Item], Iterable[Result]], items: Iterable[Item]
) -> Generator[Iterable[Result], None, None]:
    """Yield `generate(item)` in the order of the items, each element as soon as it is produced.

    Closing the generator stops each thread after its next element.
    """
    closed = Event()
    return _run_in_order(
        lambda pool, item: _StreamedResult(pool, partial(generate, item), closed), items, closed
    )


def _run_in_order(
    submit: Callable[[_ClosablePool, Item], _PendingResult[Result]], items: Iterable[Item], closed: Event
) -> Generator[Result, None, None]:
    """Submit the items to a pool of threads and yield the results in order."""
    threads = available_cores()
    pool = _ClosablePool(threads)
    pending: deque[_PendingResult[Result]] = deque()
    _SINGLE_BLAS_THREAD.enter()
    try:
        for item in items:
            pending.append(submit(pool, item))
            # One item per thread ahead keeps all threads busy while the oldest result is awaited.
            while len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        closed.set()  # first, because the pool waits for work that is running
        pool.close()
        _SINGLE_BLAS_THREAD.leave()


class _SingleBlasThread:
    """Limit BLAS to one thread while any threads of ours run."""

    def __init__(self) -> None:
        self._lock, self._users = RLock(), 0  # the garbage collector may enter it again
        # threadpoolctl comes without types. Its controller searches all loaded libraries, so it is kept.
        self._controller: Any = None
        self._limit: Any = None

    def enter(self) -> None:
        """Set the limit, unless others have done so."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                if self._controller is None:
                    from threadpoolctl import ThreadpoolController  # every command imports this module

                    self._controller = ThreadpoolController()
                self._limit = self._controller.limit(limits=1, user_api="blas")

    def leave(self) -> None:
        """Restore the number of threads after the last user."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limit.restore_original_limits()


_SINGLE_BLAS_THREAD = _SingleBlasThread()


def available_cores() -> int:
    """Return the cores that this process may use: TONEWOOD_CORES, or all that the system allows."""
    limit = os.environ.get("TONEWOOD_CORES", "")
    if limit.isdecimal():
        return max(1, int(limit))
    # A container or a job scheduler may allow fewer cores than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class lazy_property(Generic[Owner, Result]):  # noqa: N801 - used as a decorator, like cached_property
    """Property that is computed once for an object, when it is first read.

    Like `functools.cached_property`, whose lock all objects of a class share until Python 3.12: with it,
    threads that compute properties of different objects would wait for each other.
    """

    def __init__(self, compute: Callable[[Owner], Result]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __get__(self, instance: Owner | None, owner: type[Owner]) -> Result:
        """Compute the property of an object."""
        if instance is None:  # read from the class, as `help` does
            return self  # type: ignore[return-value]
        result = self._compute(instance)
        # From now on, the attribute of the object is found before this property of its class.
        instance.__dict__[self._compute.__name__] = result
        return result


# --- Memory


def tune_malloc() -> None:
    """Let this process reuse freed memory, up to 256 MiB (glibc only).

    Every chunk of a recording needs the same arrays again. glibc learns this by itself, unless its
    environment makes it return everything, as Dask does for its workers: then half of the time
    goes into allocation.
    """
    tune = getattr(_LIBC, "mallopt", None)
    if tune is not None:
        # Setting either threshold ends glibc's own adaptation, so both are set.
        tune(_MMAP_THRESHOLD, 32 << 20)
        tune(_TRIM_THRESHOLD, 256 << 20)


def trim_malloc() -> None:
    """Return freed memory to the system (glibc only).

    glibc keeps what threads free between blocks in use: 18 GB after a thousand recordings.
    """
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)


def page_out(*arrays: "NDArray[Any]") -> None:
    """Drop the memory of arrays mapped from files until they are read again (Linux only).

    Each array covers its memory without gaps, in either order.
    """
    advise = getattr(_LIBC, "madvise", None)
    if advise is None:
        return
    for array in arrays:
        # Whole pages only: the first one may hold other data.
        first = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
        size = array.ctypes.data + array.nbytes - first
        if size > 0:
            advise(ctypes.c_void_p(first), ctypes.c_size_t(size), _PAGEOUT)


# --- Device


def check_device(device: str) -> None:
    """Raise CallError for an unknown kind of device, DeviceError for one that this machine lacks."""
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise CallError(f"--device is {device!r}: choose cpu or cuda")
    if device == "cpu":
        return
    with explain_missing_torch(f"--device {device}"):
        import torch  # every command imports this module, and torch takes a second to load

    if not torch.cuda.is_available():
        raise DeviceError("this machine has no CUDA device: use --device cpu")
