"""Workers of a Dask cluster: started here, a process a core, or of a scheduler that runs."""

import importlib.util
import logging
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar

import dask
import torch

# Reasons reach the user through the table and the exit code; Dask's own accounts of them do not.
dask.config.set({"logging.distributed": "critical"})

from distributed import Client, LocalCluster, WorkerPlugin, as_completed  # noqa: E402
from distributed.scheduler import KilledWorker  # noqa: E402

from tonewood.errors import CallError, ClusterError, TonewoodError, shown  # noqa: E402
from tonewood.files.modelfile import Model  # noqa: E402

Item = TypeVar("Item")
Result = TypeVar("Result")

_LEAST_AHEAD = 4
_JOIN_SECONDS = 20
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
            self._cluster = self._started()
        try:
            self._client = Client(
                self._cluster or self.scheduler, timeout=_JOIN_SECONDS, set_as_default=False
            )
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):
                raise CallError(
                    f"{shown(str(self.scheduler))} is no address of a scheduler: "
                    "give one such as tcp://host:8786"
                ) from None
            raise ClusterError(
                f"no scheduler answers at {shown(str(self.scheduler))}: start one with "
                "dask scheduler, or use --workers"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close(timeout=2)
        if self._cluster is not None:
            self._cluster.close(timeout=5)

    @property
    def link(self) -> str | None:
        """Dask's dashboard; None where bokeh, which draws it, is not installed."""
        return self._client.dashboard_link if importlib.util.find_spec("bokeh") else None

    @property
    def size(self) -> int:
        """Threads of all workers, as of now."""
        return sum(self._client.nthreads().values())

    def hold(self, model: Model) -> None:
        """Give a model to every worker."""
        self._client.register_plugin(_Holds(model))

    def run(
        self, work: Callable[[Model, Item], Result], digest: str, waiting: deque[Item]
    ) -> Iterator[tuple[Item, Result | TonewoodError]]:
        """Do what waits, whatever comes first; more may be appended after any result.

        Few items are with the workers at any time, so that a slow one keeps few from the others.

        Raises
        ------
        ClusterError
            The scheduler is gone.
        """
        ahead = as_completed(raise_errors=False, loop=self._client.loop)
        given: dict[str, Item] = {}
        run, numbers = secrets.token_hex(4), count()
        while True:
            room = max(_LEAST_AHEAD, 2 * self.size) if waiting else 0
            while waiting and len(given) < room:
                item = waiting.popleft()
                key = f"tonewood-{run}-{next(numbers)}"
                future = self._client.submit(_do, work, digest, item, key=key, pure=False)
                given[key] = item
                ahead.add(future)
            if not given:
                return
            future = next(ahead)
            found = self._outcome(future)
            yield given.pop(future.key), found
            future.release()

    def _outcome(self, future: Any) -> Any:  # noqa: ANN401
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
                if self._client.status == "running":
                    return ClusterError(f"the result was lost ({type(error).__name__}): try again")
        where = self.scheduler or "this process"
        raise ClusterError(
            f"the scheduler at {shown(where)} is gone; what is done is kept: start it and run the "
            "same command again"
        )

    def _started(self) -> LocalCluster:
        board = "127.0.0.1:0" if importlib.util.find_spec("bokeh") else None
        with dask.config.set(_STRICT):
            return LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=board,
                silence_logs=logging.CRITICAL,
                env={"OMP_NUM_THREADS": "1", "TONEWOOD_CORES": "1"},
            )


def _do(work: Callable[[Model, Item], Result], digest: str, item: Item) -> Result:
    """What a worker does."""
    return work(_models[digest], item)
