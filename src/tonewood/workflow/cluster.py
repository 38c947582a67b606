"""Workers of a Dask cluster: started here, a process a core, or of a scheduler that runs."""

import asyncio
import importlib.util
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import cloudpickle
import dask
import numpy as np
import torch

# Reasons reach the user through the table and the exit code; Dask's own accounts of them do not.
_QUIET = (
    "distributed", "distributed.client", "distributed.nanny", "distributed.scheduler",
    "tornado.application", "asyncio",
)  # fmt: skip
dask.config.set({"logging": dict.fromkeys(_QUIET, "critical")})

from distributed import Client, LocalCluster, WorkerPlugin, get_client, get_worker  # noqa: E402
from distributed.comm.addressing import parse_address, parse_host_port  # noqa: E402
from distributed.comm.registry import get_backend  # noqa: E402
from distributed.scheduler import KilledWorker  # noqa: E402

from tonewood.errors import CallError, ClusterError, TonewoodError, shown  # noqa: E402
from tonewood.files.modelfile import Model  # noqa: E402
from tonewood.signal.memory import retain  # noqa: E402
from tonewood.signal.spread import helped  # noqa: E402

Item = TypeVar("Item")
Result = TypeVar("Result")

_LEAST_AHEAD = 4
_JOIN_SECONDS = 20
_LONGEST_ALONE = 120.0  # seconds
PARTS = "tonewood-part-"
_LENT_EACH = 2  # so that none waits for its next
_MOST_LENT = 16  # at once, of a recording: they are held in memory
_PATIENCE = 60.0  # seconds
_TRIALS = 5
# A worker that is killed takes down only what it works on, and each time counts as one try.
_STRICT = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
}

_models: dict[str, Model] = {}  # of this process, which is a worker's


class _Holds(WorkerPlugin):  # type: ignore[misc] # Dask comes without types
    """A model, given once to every worker, those too that come later."""

    def __init__(self, model: Model) -> None:
        self.model, self.digest = model, model.digest
        self.name = f"tonewood-{self.digest[:16]}"

    def setup(self, worker: Any) -> None:  # noqa: ANN401
        """Keep the model; one core is this process's share."""
        os.environ["TONEWOOD_CORES"] = "1"
        torch.set_num_threads(1)
        retain()
        _models[self.digest] = self.model


class Crew:
    """Workers, and work for them.

    Parameters
    ----------
    workers : int or None
        Processes to start here.
    scheduler : str or None
        Address of a scheduler whose workers to use instead, as in tcp://host:8786.

    Raises
    ------
    ClusterError
        No scheduler answers there.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None) -> None:
        self.workers, self.scheduler = workers, scheduler
        self._cluster: LocalCluster | None = None

    def __enter__(self) -> Self:
        if self.scheduler is None:
            try:
                self._cluster = self._started()
            except (RuntimeError, OSError) as error:  # one was killed as it came up, say
                raise ClusterError(
                    f"workers could not be started ({error}): run the same command again"
                ) from error
        try:
            self.client = self._joined()
        except BaseException:
            if self._cluster is not None:
                self._cluster.close(timeout=5)
            raise
        return self

    def _joined(self) -> Client:
        if self.scheduler is not None:
            _check_address(self.scheduler)
        try:
            return Client(
                self._cluster or self.scheduler, timeout=_JOIN_SECONDS, set_as_default=False
            )
        except OSError:
            raise ClusterError(
                f"no scheduler answers at {shown(str(self.scheduler))}: start one with "
                "dask scheduler, or use --workers"
            ) from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError, asyncio.CancelledError):
            self.client.close(timeout=2)
            if self._cluster is not None:
                self._cluster.close(timeout=5)

    @property
    def link(self) -> str | None:
        """Dask's dashboard; None where bokeh, which draws it, is not installed."""
        return self.client.dashboard_link if importlib.util.find_spec("bokeh") else None

    @property
    def size(self) -> int:
        """Threads of all workers, as of now."""
        return sum(self.client.nthreads().values())

    def hold(self, model: Model) -> None:
        """Give a model to every worker; ClusterError if they cannot take it."""
        for trial in range(_TRIALS):
            try:
                self.client.register_plugin(_Holds(model))
                return
            except OSError as error:  # one died meanwhile; the others have it, and those to come
                if trial + 1 == _TRIALS or self.client.status != "running":
                    raise self._gone() from error
                time.sleep(1)
            except Exception as error:
                raise ClusterError(
                    f"workers cannot use Tonewood ({type(error).__name__}: {error}): install the "
                    "same version of it there"
                ) from error

    def run(
        self, work: Callable[[Model, Item], Result], digest: str, waiting: deque[Item]
    ) -> Iterator[tuple[Item, Result | TonewoodError]]:
        """Do what waits, whatever comes first; more may be appended after any result.

        Few items are with the workers at any time, so that a slow one keeps few from the others.

        Raises
        ------
        ClusterError
            The scheduler is gone, or all workers that were started here.
        """
        try:
            yield from self._followed(work, digest, waiting)
        except (OSError, asyncio.CancelledError) as error:  # of the connection
            raise self._gone() from error

    def _followed(
        self, work: Callable[[Model, Item], Result], digest: str, waiting: deque[Item]
    ) -> Iterator[tuple[Item, Result | TonewoodError]]:
        # By value, once: what a worker cannot load is that task's failure, not its own end.
        packed = cloudpickle.dumps(work)
        run, numbers = secrets.token_hex(4), count()
        ready: SimpleQueue[Any] = SimpleQueue()
        given: dict[str, tuple[Any, Item]] = {}
        room, asked = 0, -np.inf
        while True:
            if waiting and time.monotonic() - asked > 1:  # workers come and go
                room, asked = max(_LEAST_AHEAD, 2 * self.size), time.monotonic()
            while waiting and len(given) < room:
                item = waiting.popleft()
                key = f"tonewood-{run}-{next(numbers)}"
                future = self.client.submit(_do, packed, digest, item, key=key, pure=False)
                given[key] = future, item
                future.add_done_callback(ready.put)
            if not given:
                return
            future = self._next(ready)
            found = self._outcome(future)
            if found is None:
                future.add_done_callback(ready.put)
                continue
            _, item = given.pop(future.key)
            future.release()
            yield item, found

    def _next(self, ready: "SimpleQueue[Any]") -> Any:  # noqa: ANN401
        """The next future that is done; a scheduler's workers may take their time to come."""
        seen = time.monotonic()
        while True:
            with suppress(Empty):
                return ready.get(timeout=5)
            if self._cluster is None or self.size:
                seen = time.monotonic()
            elif time.monotonic() - seen > _LONGEST_ALONE:
                raise ClusterError(
                    f"no worker came up for {_LONGEST_ALONE:.0f} s: look for memory and processes "
                    "that this machine lacks, then run the same command again"
                )

    def _outcome(self, future: Any) -> Any:  # noqa: ANN401
        """Result, or error; None if it died with its worker and is on its way again."""
        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                return ClusterError(
                    "the process that worked on it died (killed, or out of memory): look into the "
                    "recording, or give workers more memory"
                )
            return ClusterError(f"a worker failed ({type(error).__name__}: {error}): look into it")
        if future.status == "finished":
            try:
                return future.result(timeout=60)
            except Exception as error:  # its worker died before it was fetched
                if self.client.status == "running":
                    return ClusterError(f"the result was lost ({type(error).__name__}): try again")
        if future.status != "cancelled" and self.client.status == "running":
            return None
        raise self._gone()

    def _gone(self) -> ClusterError:
        where = f"at {shown(self.scheduler)}" if self.scheduler else "of this run"
        return ClusterError(
            f"the scheduler {where} is gone; what is done is kept: start it and run the same "
            "command again"
        )

    def _started(self) -> LocalCluster:
        with dask.config.set(_STRICT):
            return LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                env={
                    "OMP_NUM_THREADS": "1",
                    "TONEWOOD_CORES": "1",
                },
            )


def _check_address(address: str) -> None:
    """Before a client is made: one that could not be made complains on its end too."""
    try:
        scheme, place = parse_address(address, strict=True)
        get_backend(scheme)
        parse_host_port(place)
    except ValueError:
        raise CallError(
            f"{shown(address)} is no address of a scheduler: give one such as tcp://host:8786"
        ) from None


_unpacked = lru_cache(maxsize=4)(cloudpickle.loads)


def _do(packed: bytes, digest: str, item: Any) -> Any:  # noqa: ANN401
    """What a worker does; if it takes long, others that have nothing to do lend it a hand."""
    with helped(Siblings()):
        return _unpacked(packed)(_models[digest], item)


def _part(packed: bytes, item: Any) -> Any:  # noqa: ANN401
    """What a worker does for another."""
    return _unpacked(packed)(item)


class Siblings:
    """The other workers, as far as they have nothing to do."""

    def __init__(self) -> None:
        self.trusted = True
        self._idle: list[str] = []
        self._asked = -np.inf
        self._given: list[Any] = []
        self._packed: dict[int, Any] = {}

    def room(self) -> int:
        """As of `Others`."""
        if not self.trusted:
            return 0
        if time.monotonic() - self._asked > 1:
            self._idle, self._asked = self.idle(), time.monotonic()
        self._given = [it for it in self._given if not it.done()]
        return min(_MOST_LENT, _LENT_EACH * len(self._idle)) - len(self._given)

    def submit(self, work: Callable[[Item], Result], item: Item) -> "_Lent[Item, Result]":
        """As of `Others`."""
        client = get_client()
        if id(work) not in self._packed:
            held = client.scatter(cloudpickle.dumps(work), hash=False)
            self._packed[id(work)] = held, work  # which keeps the name its own
        future = client.submit(
            _part,
            self._packed[id(work)][0],
            item,
            key=f"{PARTS}{secrets.token_hex(8)}",
            workers=self._idle,
            allow_other_workers=False,
            priority=1,
            pure=False,
        )
        self._given.append(future)
        return _Lent(self, future, work, item)

    def idle(self) -> list[str]:
        """Addresses of those that have nothing, or nothing but parts."""
        own = get_worker().address
        return [
            address
            for address, tasks in get_client().processing().items()
            if address != own and all(str(key).startswith(PARTS) for key in tasks)
        ]


@dataclass(frozen=True, eq=False)
class _Lent(Generic[Item, Result]):
    """What another worker does; if it fails, or keeps us waiting, it is done here."""

    siblings: Siblings
    future: Any
    work: Callable[[Item], Result]
    item: Item

    def done(self) -> bool:
        """As of `Pending`."""
        return bool(self.future.done())

    def result(self) -> Result:
        """As of `Pending`."""
        patience = _PATIENCE if self.siblings.trusted else 0
        try:
            found: Result = self.future.result(timeout=patience)
        except Exception:  # that worker died, is busy now, or lacks something; or so do we
            self.siblings.trusted = False
            self.future.cancel()
            return self.work(self.item)
        return found
