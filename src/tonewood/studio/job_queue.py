"""Jobs in queues: one process for each, told of as it goes, cancelled at once.

A process and not a thread: a search that must stop is stopped, and no page waits for it.
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
from typing import Any, Literal

from tonewood.errors import OutputError, TonewoodError
from tonewood.studio.database import SessionDatabase, StudioJob

QueueName = Literal["search", "render", "folders"]
QUEUE_BY_KIND: dict[str, QueueName] = {
    "enhance": "search", "again": "search", "explain": "search", "whole": "render",
    "audit": "folders", "train": "folders", "batch": "folders",
}  # fmt: skip
_INTERNAL_ERROR = "something went wrong in Tonewood itself: {!r}"
_CANCEL_TIMEOUT_S = 1.5  # for a job to stop by itself
_RECONNECT_GRACE_S = 4.0  # for a page to come back, as it does when it is loaded again

JobCallback = Callable[[StudioJob], None]


def _run_worker_process(connection: Connection) -> None:
    """Run jobs one after the other as they come, until the server goes."""
    import signal

    threading.Thread(target=_exit_with_server, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's own; it will close the pipe
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)  # pages come first
    models: dict[str, Any] = {}
    with contextlib.suppress(EOFError, BrokenPipeError, OSError):
        while True:
            kind, asked = connection.recv()
            if kind == "warm":
                from tonewood.studio import job_functions  # noqa: F401 - seconds of imports, ahead of need
            elif kind != "cancel":  # one that came too late is no matter
                connection.send(_run_with_progress(connection, kind, asked, models))


def _exit_with_server() -> None:
    """End at once when the server does: the next one may do the same work, under the same names."""
    server = multiprocessing.parent_process()
    if server is not None:
        server.join()
        os._exit(1)


def _run_with_progress(
    connection: Connection, kind: str, request: dict[str, Any], models: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Do one job, telling as it goes; its state and what is last told of it."""
    from tonewood.studio import job_functions

    try:
        for told in job_functions.run_job(kind, request, models):
            connection.send(("told", told))
            if connection.poll():  # nothing but a wish to cancel is sent to one at work
                connection.recv()
                return "cancelled", {}
    except TonewoodError as error:
        return "failed", {"error": str(error)}
    except MemoryError:
        return "failed", {"error": "this needs more memory than there is: give less at once"}
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:
        return "failed", {"error": _INTERNAL_ERROR.format(error)}
    return "done", {}


class _WorkerQueue:
    """One queue and its process, minded by a thread."""

    def __init__(self, name: str, notify: Callable[[StudioJob], None], on_finished: JobCallback) -> None:
        self.notify, self.on_finished = notify, on_finished
        self.pending: queue.Queue[StudioJob | None] = queue.Queue()
        self.current: StudioJob | None = None
        self.cancelled_at: float | None = None
        self.process: Any = None
        self.connection: Connection | None = None
        self.stopping = False
        self.context = multiprocessing.get_context("spawn")
        self.thread = threading.Thread(target=self._run_loop, name=f"lane-{name}", daemon=True)
        self.thread.start()

    def warm_up(self) -> None:
        """Start the process before there is work."""
        self._ensure_process().send(("warm", {}))

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.stopping = True
        self.pending.put(None)
        self._kill()

    def cancel(self, job: StudioJob) -> None:
        """Cancel a job: one that waits never starts, one that runs stops."""
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
            job.state = "running"
            self.notify(job)
            try:
                state, last = self._execute(job)
            except Exception as error:  # the thread must live: all later jobs wait for it
                state, last = "failed", {"error": _INTERNAL_ERROR.format(error)}
            if self.stopping:
                return
            self.current = None
            job.progress.update(last)
            if state == "done":
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
                    state, told = connection.recv()
                    if state != "told":
                        return state, told
                    job.progress.update(told)
                    if "row" in told:  # one of the rows of a table changed
                        at, row = told["row"]
                        job.progress["rows"][at] = row
                    self.notify(job)
                elif self._cancel_timed_out():
                    self._kill()
                    return "cancelled", {}
        except (EOFError, BrokenPipeError, ConnectionResetError, OSError):
            self._kill()
            if self.cancelled_at is not None:
                return "cancelled", {}
            return "failed", {
                "error": "the process that did the work has ended, perhaps for want of memory: "
                "try a shorter recording"
            }

    def _cancel_timed_out(self) -> bool:
        at = self.cancelled_at
        return at is not None and time.monotonic() - at > _CANCEL_TIMEOUT_S

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
            if process.exitcode is not None:  # a busy machine may take longer to end it
                process.close()
        if connection is not None:
            connection.close()


class JobQueue:
    """All queues, and the pages that listen to them."""

    def __init__(self, database: SessionDatabase, on_finished: JobCallback) -> None:
        self.database = database
        self.loop: asyncio.AbstractEventLoop | None = None
        self.active: dict[str, StudioJob] = {}
        self.subscribers: dict[asyncio.Queue[StudioJob], str | None] = {}
        self.queues = {
            name: _WorkerQueue(name, self._publish, on_finished) for name in ("search", "render", "folders")
        }

    def start(self) -> None:
        """Begin, in the event loop that pages listen in."""
        self.loop = asyncio.get_running_loop()
        threading.Thread(target=self.queues["search"].warm_up, daemon=True).start()

    def stop(self) -> None:
        """End all work; what was under way is told to be interrupted at the next start."""
        for lane in self.queues.values():
            lane.stop()

    def submit(self, kind: str, request: dict[str, Any], session: str | None = None) -> StudioJob:
        """Queue a job; a newer one of the same kind for the same session takes its place."""
        if session is not None:
            for job in self.active_for(session):
                if QUEUE_BY_KIND[job.kind] == QUEUE_BY_KIND[kind] and (kind, job.kind) != (
                    "explain",
                    "enhance",
                ):
                    self.cancel(job.id)
        job = StudioJob(secrets.token_hex(8), session, kind, "queued", request, {}, time.time())
        self.database.save_job(job)
        self.active[job.id] = job
        self._publish(job)
        self.queues[QUEUE_BY_KIND[kind]].pending.put(job)
        return job

    def active_for(self, session: str) -> list[StudioJob]:
        """Jobs of a session that are not over."""
        return [job for job in list(self.active.values()) if job.session == session and not job.is_finished]

    def get(self, name: str) -> StudioJob:
        """A job, live or as it was kept."""
        return self.active.get(name) or self.database.get_job(name)

    def cancel(self, name: str) -> None:
        """Cancel a job; one that is over stays what it is."""
        job = self.active.get(name)
        if job is not None and not job.is_finished:
            self.queues[QUEUE_BY_KIND[job.kind]].cancel(job)

    async def wait_until_finished(self, job: StudioJob) -> StudioJob:
        """Wait until a job is over."""
        while not job.is_finished:
            await asyncio.sleep(0.05)
        return job

    async def subscribe(self, session: str | None) -> AsyncIterator[StudioJob | None]:
        """Jobs of a session and those of none, as they change; None every ten seconds.

        A session whose last page goes, and does not come back soon, has its work cancelled.
        """
        mine: asyncio.Queue[StudioJob] = asyncio.Queue()
        self.subscribers[mine] = session
        try:
            for job in list(self.active.values()):
                if not job.is_finished and job.session in (None, session):
                    yield job
            while True:
                try:
                    yield await asyncio.wait_for(mine.get(), 10)
                except TimeoutError:
                    yield None
        finally:
            del self.subscribers[mine]
            if session is not None and self.loop is not None:
                self.loop.call_later(_RECONNECT_GRACE_S, self._cancel_abandoned, session)

    def _cancel_abandoned(self, session: str) -> None:
        if session not in self.subscribers.values():
            for job in self.active_for(session):
                self.cancel(job.id)

    def _publish(self, job: StudioJob) -> None:
        """Write down a job that begins or ends, and tell the pages."""
        if job.is_finished or not job.progress:
            with contextlib.suppress(OutputError):  # a full disk; the pages are told all the same
                self.database.save_job(job)
        if job.is_finished:
            self.active.pop(job.id, None)
        if self.loop is None or self.loop.is_closed():
            return
        as_now = replace(job, progress=dict(job.progress))  # it may go on before it is heard
        for page, session in list(self.subscribers.items()):
            if job.session in (None, session):
                with contextlib.suppress(RuntimeError):  # the loop may close meanwhile
                    self.loop.call_soon_threadsafe(page.put_nowait, as_now)
