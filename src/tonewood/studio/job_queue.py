"""Job queues of the studio: each runs its jobs in one worker process and reports their progress.

Processes are used instead of threads because a process can be stopped at any moment, and because
the server stays responsive while a job computes.
"""

import asyncio
import contextlib
import multiprocessing
import os
import queue
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, Literal, get_args

from tonewood.errors import OutputError, TonewoodError, explain_missing_torch
from tonewood.studio.database import SessionDatabase, StudioJob

QueueName = Literal["search", "long search", "render", "folders"]
QUEUE_BY_KIND: dict[str, QueueName] = {
    "enhance": "search", "again": "search", "explain": "search", "whole": "render",
    "audit": "folders", "train": "folders", "batch": "folders",
}  # fmt: skip
_LONG_RECORDING_S = 300.0  # searches of longer recordings have their own queue: short ones pass them
_STARTUP_S = 1.0  # of a job, whatever the length of its recording
_SECONDS_PER_SECOND = {"enhance": 0.03, "again": 0.05}  # of a recording, until a job was timed here
INTERNAL_ERROR = "internal error in Tonewood: {!r}: please report it"
_CANCEL_TIMEOUT_S = 1.5  # a job that has not stopped by then is killed with its process
_RECONNECT_GRACE_S = 4.0  # a page that is reloaded reconnects within this time

JobCallback = Callable[[StudioJob], None]


class _CancelledError(Exception):
    """The page cancelled the job that reports its progress."""


def _run_worker_process(connection: Connection) -> None:
    """Run jobs in the order of their arrival until the server ends."""
    import signal

    threading.Thread(target=_exit_with_server, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the server, which closes the pipe
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)  # the server answers pages first
    models: dict[str, Any] = {}
    with contextlib.suppress(EOFError, OSError):  # the server has ended
        while True:
            kind, request = connection.recv()
            if kind == "warm":
                from tonewood.studio import job_functions  # noqa: F401 - imports take seconds
            elif kind != "cancel":  # a "cancel" that arrives here is for a job that has ended
                connection.send(_run_with_progress(connection, kind, request, models))


def _exit_with_server() -> None:
    """End this process when the server ends: the next server may write the same files."""
    server = multiprocessing.parent_process()
    if server is not None:
        server.join()
        os._exit(1)


def _run_with_progress(
    connection: Connection, kind: str, request: dict[str, Any], models: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Run one job, send its progress and return its final state and last progress."""
    from tonewood.studio import job_functions

    def report(progress: dict[str, Any]) -> None:
        connection.send(("progress", progress))
        if connection.poll():  # a busy worker receives nothing but "cancel"
            connection.recv()
            raise _CancelledError

    try:
        with explain_missing_torch(kind):
            for progress in job_functions.run_job(kind, request, models, report):
                report(progress)
    except _CancelledError:
        return "cancelled", {}
    except TonewoodError as error:
        return "failed", {"error": str(error)}
    except MemoryError:
        return "failed", {
            "error": "there is not enough memory for this job: use a shorter recording or fewer files"
        }
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:
        return "failed", {"error": INTERNAL_ERROR.format(error)}
    return "done", {}


class _WorkerQueue:
    """A queue of jobs, its worker process, and a thread that passes jobs from one to the other."""

    def __init__(self, name: str, notify: Callable[[StudioJob], None], on_finished: JobCallback) -> None:
        self.notify, self.on_finished = notify, on_finished
        self.pending: queue.Queue[StudioJob | None] = queue.Queue()
        self.current: StudioJob | None = None
        self.cancelled_at: float | None = None
        self.process: Any = None
        self.connection: Connection | None = None
        self.stopping = False
        self.context = multiprocessing.get_context("spawn")
        self.thread = threading.Thread(target=self._run_loop, name=f"queue-{name}", daemon=True)
        self.thread.start()

    def warm_up(self) -> None:
        """Start the worker process before the first job."""
        self._ensure_process().send(("warm", {}))

    def stop(self) -> None:
        """Kill the worker process and end the thread."""
        self.stopping = True
        self.pending.put(None)
        self._kill()

    def cancel(self, job: StudioJob) -> None:
        """Stop the running job, or remove a waiting one."""
        if self.current is job and self.cancelled_at is None:
            self.cancelled_at = time.monotonic()
            with contextlib.suppress(OSError, AttributeError):
                self.connection.send(("cancel", {}))  # type: ignore[union-attr]
        elif job.state == "queued":
            job.state = "cancelled"
            self.notify(job)

    def _run_loop(self) -> None:
        while (job := self.pending.get()) is not None and not self.stopping:
            if job.state != "queued":
                continue
            self.current, self.cancelled_at = job, None
            job.state, job.started, job.ahead = "running", time.time(), 0
            self.notify(job)
            try:
                state, last = self._execute(job)
            except Exception as error:  # without this thread, no later job would start
                state, last = "failed", {"error": INTERNAL_ERROR.format(error)}
            if self.stopping:
                return
            self.current = None
            job.progress.update(last)
            if state == "done":
                job.progress["took_s"] = round(time.time() - (job.started or time.time()), 3)
                try:
                    self.on_finished(job)
                except TonewoodError as error:
                    state = "failed"
                    job.progress["error"] = str(error)
            job.state = state
            self.notify(job)

    def _execute(self, job: StudioJob) -> tuple[str, dict[str, Any]]:
        try:
            connection = self._ensure_process()
            connection.send((job.kind, job.request))
            while True:
                if connection.poll(0.1):
                    state, progress = connection.recv()
                    if state != "progress":
                        return state, progress
                    job.progress.update(progress)
                    if "row" in progress:  # a row of the batch's table changed
                        number, row = progress["row"]
                        job.progress["rows"][number] = row
                    self.notify(job)
                elif (
                    self.cancelled_at is not None and time.monotonic() - self.cancelled_at > _CANCEL_TIMEOUT_S
                ):
                    self._kill()
                    return "cancelled", {}
        except (EOFError, OSError):  # the process has ended
            self._kill()
            if self.cancelled_at is not None:
                return "cancelled", {}
            return "failed", {
                "error": "the worker process ended unexpectedly, possibly because memory ran out: "
                "try a shorter recording"
            }

    def _ensure_process(self) -> Connection:
        if self.process is None or not self.process.is_alive():
            ours, theirs = self.context.Pipe()
            self.process = self.context.Process(target=_run_worker_process, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
            self.connection = ours
        assert self.connection is not None
        return self.connection

    def _kill(self) -> None:
        process, connection = self.process, self.connection
        self.process = self.connection = None
        if process is not None:
            process.kill()
            process.join(2)
            if process.exitcode is not None:  # on a busy machine it may still be ending
                process.close()
        if connection is not None:
            connection.close()


class JobQueue:
    """Job queues, and the pages that subscribe to their progress."""

    def __init__(self, database: SessionDatabase, on_finished: JobCallback) -> None:
        self.database = database
        self.loop: asyncio.AbstractEventLoop | None = None
        self.active: dict[str, StudioJob] = {}
        self.subscribers: dict[asyncio.Queue[StudioJob], str | None] = {}
        names: tuple[QueueName, ...] = get_args(QueueName)
        self.queues = {name: _WorkerQueue(name, self._publish, on_finished) for name in names}

    def start(self) -> None:
        """Connect to the server's event loop and start the search worker."""
        self.loop = asyncio.get_running_loop()
        threading.Thread(target=self.queues["search"].warm_up, daemon=True).start()

    def stop(self) -> None:
        """Stop all workers; their jobs are marked as interrupted at the next start."""
        for worker_queue in self.queues.values():
            worker_queue.stop()

    def submit(self, kind: str, request: dict[str, Any], session: str | None = None) -> StudioJob:
        """Queue a job; it replaces the session's older jobs in the same queue.

        The exception: an explanation waits behind an enhancement instead of replacing it.
        """
        if session is not None:
            for job in self.active_for(session):
                # All jobs of a session have the same recording, so the length does not matter here.
                same_queue = QUEUE_BY_KIND[job.kind] == QUEUE_BY_KIND[kind]
                if same_queue and (kind, job.kind) != ("explain", "enhance"):
                    self.cancel(job.id)
        job = StudioJob(secrets.token_hex(8), session, kind, "queued", request, {}, time.time())
        job.expected_s = self._expected_duration(job)
        self.database.save_job(job)
        self.active[job.id] = job
        self._publish(job)
        self._queue_of(job).pending.put(job)
        return job

    def _queue_of(self, job: StudioJob) -> _WorkerQueue:
        name = QUEUE_BY_KIND[job.kind]
        is_long = (job.recording_seconds or 0.0) > _LONG_RECORDING_S
        return self.queues["long search" if name == "search" and is_long else name]

    def _expected_duration(self, job: StudioJob) -> float | None:
        """Return how long a search will take, by the last one of its kind."""
        seconds, rate = job.recording_seconds, _SECONDS_PER_SECOND.get(job.kind)
        if seconds is None or rate is None:
            return None
        last = self.database.last_done_job(job.kind)
        if last is not None and last.recording_seconds and "took_s" in last.progress:
            rate = max(last.progress["took_s"] - _STARTUP_S, 0.0) / last.recording_seconds
        return round(_STARTUP_S + rate * seconds, 1)

    def _update_places(self) -> None:
        """Count the jobs ahead of each waiting job; pages are informed of changes."""
        waiting: dict[int, int] = {}
        for job in list(self.active.values()):  # in the order of their arrival
            if job.state != "queued":
                continue
            worker_queue = self._queue_of(job)
            ahead = waiting.get(id(worker_queue), int(worker_queue.current is not None))
            waiting[id(worker_queue)] = ahead + 1
            if job.ahead != ahead:
                job.ahead = ahead
                self._send(job)

    def active_for(self, session: str) -> list[StudioJob]:
        """Return the unfinished jobs of a session."""
        return [job for job in list(self.active.values()) if job.session == session and not job.is_finished]

    def get(self, name: str) -> StudioJob:
        """Return a job, active or stored; raise NotFoundError if it does not exist."""
        return self.active.get(name) or self.database.get_job(name)

    def cancel(self, name: str) -> None:
        """Cancel a job; a finished one stays unchanged."""
        job = self.active.get(name)
        if job is not None and not job.is_finished:
            self._queue_of(job).cancel(job)

    async def wait_until_finished(self, job: StudioJob) -> StudioJob:
        """Wait until a job is finished and return it."""
        while not job.is_finished:
            await asyncio.sleep(0.05)
        return job

    async def subscribe(self, session: str | None) -> AsyncIterator[StudioJob | None]:
        """Yield jobs of a session, and those of no session, as they change; None every ten seconds.

        When a session's last page disconnects and does not return soon, its jobs are cancelled.
        """
        updates: asyncio.Queue[StudioJob] = asyncio.Queue()
        self.subscribers[updates] = session
        try:
            for job in list(self.active.values()):
                if not job.is_finished and job.session in (None, session):
                    yield job
            while True:
                try:
                    yield await asyncio.wait_for(updates.get(), 10)
                except TimeoutError:
                    yield None
        finally:
            del self.subscribers[updates]
            if session is not None and self.loop is not None:
                self.loop.call_later(_RECONNECT_GRACE_S, self._cancel_abandoned, session)

    def _cancel_abandoned(self, session: str) -> None:
        if session not in self.subscribers.values():
            for job in self.active_for(session):
                self.cancel(job.id)

    def _publish(self, job: StudioJob) -> None:
        """Store a job that starts or ends, and send every change to the pages."""
        if job.is_finished or not job.progress:
            with contextlib.suppress(OutputError):  # pages are informed even if the disk is full
                self.database.save_job(job)
        if job.is_finished:
            self.active.pop(job.id, None)
        self._update_places()
        self._send(job)

    def _send(self, job: StudioJob) -> None:
        if self.loop is None or self.loop.is_closed():
            return
        snapshot = replace(job, progress=dict(job.progress))  # the job changes before pages read it
        for updates, session in list(self.subscribers.items()):
            if job.session in (None, session):
                with contextlib.suppress(RuntimeError):  # the loop may close at this moment
                    self.loop.call_soon_threadsafe(updates.put_nowait, snapshot)
