"""Run a batch on Dask workers: processes of this machine, or those of a running scheduler."""

import asyncio
import importlib.util
import logging
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache
from itertools import count
from multiprocessing import resource_tracker
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

import cloudpickle
import dask
import numpy as np

# Errors are reported in the table and by the exit code, so Dask must not log them too. The setting takes
# effect when `distributed` is imported, hence the order of the imports.
_QUIET_LOGGERS = (
    "distributed", "distributed.client", "distributed.nanny", "distributed.scheduler",
    "tornado.application", "asyncio",
)  # fmt: skip
dask.config.set({"logging": dict.fromkeys(_QUIET_LOGGERS, "critical")})

from distributed import Client, LocalCluster, WorkerPlugin  # noqa: E402
from distributed.comm.addressing import parse_address, parse_host_port  # noqa: E402
from distributed.comm.registry import get_backend  # noqa: E402
from distributed.scheduler import KilledWorker  # noqa: E402

from tonewood.errors import CallError, ClusterError, TonewoodError, printable  # noqa: E402
from tonewood.model.model import Model  # noqa: E402
from tonewood.utils.parallel import tune_malloc  # noqa: E402

Item = TypeVar("Item")
Result = TypeVar("Result")

_MIN_SUBMITTED = 4
_CONNECT_TIMEOUT = 20  # seconds
_MAX_SECONDS_WITHOUT_WORKERS = 120.0
_BROADCAST_TRIES = 5
# With no failure allowed, a killed worker fails its current item, which counts as one try of ours. With
# saturation 1, the scheduler gives a worker no item in advance that would fail with it.
_DASK_CONFIG = {"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.worker-saturation": 1.0}

_worker_models: dict[str, Model] = {}  # models of this worker process, by digest


class _ModelPlugin(WorkerPlugin):  # type: ignore[misc] # Dask comes without types
    """Send a model once to every worker, including workers that join later."""

    def __init__(self, model: Model) -> None:
        self.model, self.digest = model, model.digest
        self.name = f"tonewood-{self.digest[:16]}"

    def setup(self, worker: Any) -> None:  # noqa: ANN401
        """Store the model, and limit this process to one core."""
        os.environ["TONEWOOD_CORES"] = "1"
        os.environ["OMP_NUM_THREADS"] = "1"  # for torch, which some tasks load later
        tune_malloc()
        _worker_models[self.digest] = self.model


class DaskWorkers:
    """Dask workers that share a model; they start when they are used first.

    Parameters
    ----------
    workers : int or None
        Processes to start on this machine.
    scheduler : str or None
        Address of a scheduler whose workers are used instead, such as tcp://host:8786.
    on_start : callable
        Called once they are started.
    """

    def __init__(
        self,
        workers: int | None = None,
        scheduler: str | None = None,
        on_start: Callable[["DaskWorkers"], None] = lambda _: None,
    ) -> None:
        self.workers, self.scheduler, self._on_start = workers, scheduler, on_start
        self._cluster: LocalCluster | None = None

    def __enter__(self) -> Self:
        if self.scheduler is not None:
            _check_scheduler_address(self.scheduler)
        return self

    @cached_property
    def client(self) -> Client:
        """Connection to the workers, which starts them; ClusterError if they cannot be reached."""
        if self.scheduler is None:
            try:
                self._cluster = self._start_cluster()
            except (RuntimeError, OSError) as error:  # for example, a worker was killed while it started
                raise ClusterError(
                    f"workers could not be started ({error}): run the same command again"
                ) from error
        return self._connect()

    def _connect(self) -> Client:
        try:
            return Client(self._cluster or self.scheduler, timeout=_CONNECT_TIMEOUT, set_as_default=False)
        except OSError:
            raise ClusterError(
                f"no scheduler answers at {printable(str(self.scheduler))}: start one with "
                "dask scheduler, or use --workers"
            ) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError, asyncio.CancelledError):
            if "client" in self.__dict__:
                self.client.close(timeout=2)
            if self._cluster is not None:
                self._cluster.close(timeout=5)

    @property
    def dashboard_link(self) -> str | None:
        """URL of Dask's dashboard; None without bokeh, which draws it."""
        return self.client.dashboard_link if importlib.util.find_spec("bokeh") else None

    @property
    def thread_count(self) -> int:
        """Current number of threads of all workers."""
        return sum(self.client.nthreads().values())

    def broadcast_model(self, model: Model) -> None:
        """Send a model to every worker; ClusterError if they cannot be started or cannot use it."""
        if "client" not in self.__dict__:
            _ = self.client
            self._on_start(self)
        for trial in range(_BROADCAST_TRIES):
            try:
                self.client.register_plugin(_ModelPlugin(model))
                return
            except OSError as error:  # a worker died; the others have the model, and new ones will get it
                if trial + 1 == _BROADCAST_TRIES or self.client.status != "running":
                    raise self._scheduler_lost_error() from error
                time.sleep(1)
            except Exception as error:
                raise ClusterError(
                    f"workers cannot use Tonewood ({type(error).__name__}: {error}): install the "
                    "same version on them"
                ) from error

    def run(
        self, work: Callable[[Model, Item], Result], digest: str, pending: deque[Item]
    ) -> Iterator[tuple[Item, Result | TonewoodError]]:
        """Process the pending items; yield results in the order of completion.

        Items may be appended to `pending` after any result. Only a few are submitted at a time, so that
        many of them do not wait for a slow worker.

        ClusterError if the connection to the scheduler was lost, or no worker is left on this machine.
        """
        try:
            yield from self._run_pending(work, digest, pending)
        except (OSError, asyncio.CancelledError) as error:  # the connection was lost
            raise self._scheduler_lost_error() from error

    def _run_pending(
        self, work: Callable[[Model, Item], Result], digest: str, pending: deque[Item]
    ) -> Iterator[tuple[Item, Result | TonewoodError]]:
        # Pickled here and loaded in the task: an error of loading then fails the item, not the worker.
        packed = cloudpickle.dumps(work)
        run, numbers = secrets.token_hex(4), count()
        ready: SimpleQueue[Any] = SimpleQueue()
        submitted: dict[str, tuple[Any, Item]] = {}
        capacity, checked = 0, -np.inf
        while True:
            # Two items per thread keep each busy. Workers join and leave, so the number is updated.
            if pending and time.monotonic() - checked > 1:
                capacity, checked = max(_MIN_SUBMITTED, 2 * self.thread_count), time.monotonic()
            while pending and len(submitted) < capacity:
                item = pending.popleft()
                key = f"tonewood-{run}-{next(numbers)}"
                future = self.client.submit(_run_on_worker, packed, digest, item, key=key, pure=False)
                submitted[key] = future, item
                future.add_done_callback(ready.put)
            if not submitted:
                return
            future = self._wait_for_next(ready)
            outcome = self._outcome(future)
            if outcome is None:  # Dask computes the item again
                future.add_done_callback(ready.put)
                continue
            _, item = submitted.pop(future.key)
            future.release()
            yield item, outcome

    def _wait_for_next(self, ready: "SimpleQueue[Any]") -> Any:  # noqa: ANN401
        """Wait for the next future; workers of a scheduler may join at any time, so there is no limit."""
        seen = time.monotonic()
        while True:
            with suppress(Empty):
                return ready.get(timeout=5)
            if self._cluster is None or self.thread_count:
                seen = time.monotonic()
            elif time.monotonic() - seen > _MAX_SECONDS_WITHOUT_WORKERS:
                raise ClusterError(
                    f"no worker started for {_MAX_SECONDS_WITHOUT_WORKERS:.0f} s: check the machine's "
                    "memory and process limits, then run the same command again"
                )

    def _outcome(self, future: Any) -> Any:  # noqa: ANN401
        """Return the result or error of a future; None if Dask computes its item again."""
        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                return ClusterError(
                    "the worker process died (killed, or out of memory): check the recording, or give "
                    "workers more memory"
                )
            return ClusterError(f"a worker failed ({type(error).__name__}: {error}): check its installation")
        if future.status == "finished":
            try:
                return future.result(timeout=60)
            except Exception as error:  # the worker died before it sent the result
                if self.client.status == "running":
                    return ClusterError(f"the result was lost ({type(error).__name__}): try again")
        if future.status != "cancelled" and self.client.status == "running":
            return None
        raise self._scheduler_lost_error()

    def _scheduler_lost_error(self) -> ClusterError:
        name = f"at {printable(self.scheduler)}" if self.scheduler else "of this run"
        return ClusterError(
            f"the scheduler {name} does not answer any more; finished results are kept: start the scheduler "
            "and run the same command again"
        )

    def _start_cluster(self) -> LocalCluster:
        with dask.config.set(_DASK_CONFIG), _without_interrupts():
            return LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                env={"OMP_NUM_THREADS": "1", "TONEWOOD_CORES": "1"},
            )


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let the processes and threads that start in this block ignore Ctrl-C.

    The terminal sends it to every process of a command, and a worker would print a traceback. Threads and
    processes inherit the blocked signal; the main thread receives it when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # The tracker of multiprocessing unblocks the signal when it starts, so it is started first.
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _check_scheduler_address(address: str) -> None:
    """Raise CallError for an invalid address, for which Dask's client would log errors at its end."""
    try:
        scheme, host = parse_address(address, strict=True)
        get_backend(scheme)
        parse_host_port(host)
    except ValueError:
        raise CallError(
            f"{printable(address)} is not an address of a scheduler: give one such as tcp://host:8786"
        ) from None


_unpickle = lru_cache(maxsize=4)(cloudpickle.loads)


def _run_on_worker(packed: bytes, digest: str, item: Any) -> Any:  # noqa: ANN401
    """Run the work on an item, with this worker's copy of the model."""
    return _unpickle(packed)(_worker_models[digest], item)
