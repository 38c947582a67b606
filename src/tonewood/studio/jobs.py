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
from tonewood.studio.entries import Job
from tonewood.studio.store import Store

LaneName = Literal["search", "render", "folders"]
LANES: dict[str, LaneName] = {
    "enhance": "search", "again": "search", "explain": "search", "whole": "render",
    "audit": "folders", "train": "folders", "batch": "folders",
}  # fmt: skip
_OURS = "something went wrong in Tonewood itself: {!r}"
_PATIENCE_S = 1.5  # for a job to stop by itself
_GRACE_S = 4.0  # for a page to come back, as it does when it is loaded again

Finished = Callable[[Job], None]


def _process(connection: Connection) -> None:
    """Run jobs one after the other as they come, until the server goes."""
    import signal

    threading.Thread(target=_end_with_server, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's own; it will close the pipe
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)  # pages come first
    models: dict[str, Any] = {}
    with contextlib.suppress(EOFError, BrokenPipeError, OSError):
        while True:
            kind, asked = connection.recv()
            if kind == "warm":
                from tonewood.studio import work  # noqa: F401 - seconds of imports, ahead of need
            elif kind != "cancel":  # one that came too late is no matter
                connection.send(_done(connection, kind, asked, models))


def _end_with_server() -> None:
    """End at once when the server does: the next one may do the same work, under the same names."""
    server = multiprocessing.parent_process()
    if server is not None:
        server.join()
        os._exit(1)


def _done(
    connection: Connection, kind: str, asked: dict[str, Any], models: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Do one job, telling as it goes; its state and what is last told of it."""
    from tonewood.studio import work

    try:
        for told in work.run(kind, asked, models):
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
        return "failed", {"error": _OURS.format(error)}
    return "done", {}


class _Lane:
    """One queue and its process, minded by a thread."""

    def __init__(self, name: str, tell: Callable[[Job], None], finished: Finished) -> None:
        self.tell, self.finished = tell, finished
        self.waiting: queue.Queue[Job | None] = queue.Queue()
        self.current: Job | None = None
        self.cancelled_at: float | None = None
        self.process: Any = None
        self.connection: Connection | None = None
        self.stopping = False
        self.context = multiprocessing.get_context("spawn")
        self.thread = threading.Thread(target=self._mind, name=f"lane-{name}", daemon=True)
        self.thread.start()

    def warm(self) -> None:
        """Start the process before there is work."""
        self._ready().send(("warm", {}))

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.stopping = True
        self.waiting.put(None)
        self._kill()

    def cancel(self, job: Job) -> None:
        """Cancel a job: one that waits never starts, one that runs stops."""
        if self.current is job and self.cancelled_at is None:
            self.cancelled_at = time.monotonic()
            with contextlib.suppress(OSError, AttributeError):
                self.connection.send(("cancel", {}))  # type: ignore[union-attr]
        elif job.state == "queued":
            job.state = "cancelled"
            self.tell(job)

    def _mind(self) -> None:
        while (job := self.waiting.get()) is not None and not self.stopping:
            if job.state != "queued":
                continue
            self.current, self.cancelled_at = job, None
            job.state = "running"
            self.tell(job)
            try:
                state, last = self._work(job)
            except Exception as error:  # the thread must live: all later jobs wait for it
                state, last = "failed", {"error": _OURS.format(error)}
            if self.stopping:
                return
            self.current = None
            job.told.update(last)
            if state == "done":
                try:
                    self.finished(job)
                except TonewoodError as error:
                    state = "failed"
                    job.told["error"] = str(error)
            job.state = state
            self.tell(job)

    def _work(self, job: Job) -> tuple[str, dict[str, Any]]:
        try:
            connection = self._ready()
            connection.send((job.kind, job.asked))
            while True:
                if connection.poll(0.1):
                    state, told = connection.recv()
                    if state != "told":
                        return state, told
                    job.told.update(told)
                    if "row" in told:  # one of the rows of a table changed
                        at, row = told["row"]
                        job.told["rows"][at] = row
                    self.tell(job)
                elif self._overdue():
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

    def _overdue(self) -> bool:
        at = self.cancelled_at
        return at is not None and time.monotonic() - at > _PATIENCE_S

    def _ready(self) -> Connection:
        if self.process is None or not self.process.is_alive():
            ours, theirs = self.context.Pipe()
            self.process = self.context.Process(target=_process, args=(theirs,), daemon=True)
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


class Jobs:
    """All queues, and the pages that listen to them."""

    def __init__(self, store: Store, finished: Finished) -> None:
        self.store = store
        self.loop: asyncio.AbstractEventLoop | None = None
        self.live: dict[str, Job] = {}
        self.pages: dict[asyncio.Queue[Job], str | None] = {}
        self.lanes = {
            name: _Lane(name, self._tell, finished) for name in ("search", "render", "folders")
        }

    def start(self) -> None:
        """Begin, in the event loop that pages listen in."""
        self.loop = asyncio.get_running_loop()
        threading.Thread(target=self.lanes["search"].warm, daemon=True).start()

    def stop(self) -> None:
        """End all work; what was under way is told to be interrupted at the next start."""
        for lane in self.lanes.values():
            lane.stop()

    def add(self, kind: str, asked: dict[str, Any], session: str | None = None) -> Job:
        """Queue a job; a newer one of the same kind for the same session takes its place."""
        if session is not None:
            for job in self.of(session):
                if LANES[job.kind] == LANES[kind] and (kind, job.kind) != ("explain", "enhance"):
                    self.cancel(job.id)
        job = Job(secrets.token_hex(8), session, kind, "queued", asked, {}, time.time())
        self.store.keep(job)
        self.live[job.id] = job
        self._tell(job)
        self.lanes[LANES[kind]].waiting.put(job)
        return job

    def of(self, session: str) -> list[Job]:
        """Jobs of a session that are not over."""
        return [job for job in list(self.live.values()) if job.session == session and not job.over]

    def get(self, name: str) -> Job:
        """A job, live or as it was kept."""
        return self.live.get(name) or self.store.job(name)

    def cancel(self, name: str) -> None:
        """Cancel a job; one that is over stays what it is."""
        job = self.live.get(name)
        if job is not None and not job.over:
            self.lanes[LANES[job.kind]].cancel(job)

    async def ended(self, job: Job) -> Job:
        """Wait until a job is over."""
        while not job.over:
            await asyncio.sleep(0.05)
        return job

    async def listen(self, session: str | None) -> AsyncIterator[Job | None]:
        """Jobs of a session and those of none, as they change; None every ten seconds.

        A session whose last page goes, and does not come back soon, has its work cancelled.
        """
        mine: asyncio.Queue[Job] = asyncio.Queue()
        self.pages[mine] = session
        try:
            for job in list(self.live.values()):
                if not job.over and job.session in (None, session):
                    yield job
            while True:
                try:
                    yield await asyncio.wait_for(mine.get(), 10)
                except TimeoutError:
                    yield None
        finally:
            del self.pages[mine]
            if session is not None and self.loop is not None:
                self.loop.call_later(_GRACE_S, self._leave, session)

    def _leave(self, session: str) -> None:
        if session not in self.pages.values():
            for job in self.of(session):
                self.cancel(job.id)

    def _tell(self, job: Job) -> None:
        """Write down a job that begins or ends, and tell the pages."""
        if job.over or not job.told:
            with contextlib.suppress(OutputError):  # a full disk; the pages are told all the same
                self.store.keep(job)
        if job.over:
            self.live.pop(job.id, None)
        if self.loop is None or self.loop.is_closed():
            return
        as_now = replace(job, told=dict(job.told))  # it may go on before it is heard
        for page, session in list(self.pages.items()):
            if job.session in (None, session):
                with contextlib.suppress(RuntimeError):  # the loop may close meanwhile
                    self.loop.call_soon_threadsafe(page.put_nowait, as_now)
