"""The worker: gets leases, keeps them alive while handlers run, and ends the attempts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any

from ddq.client import Backoff, Client, Lease, TaskState
from ddq.config import DEFAULTS, LIMITS, Settings
from ddq.entropy import SystemClock, SystemEntropy, uuid7
from ddq.errors import (
    DdqError,
    InvalidArgument,
    LeaseLost,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Unauthenticated,
    Unimplemented,
)
from ddq.worker.job import DeadLetter, Job, Retry, Verdict
from ddq.worker.storeclock import StoreClock

log = logging.getLogger("ddq.worker")

_HOPELESS = (InvalidArgument, Unauthenticated, PermissionDenied, Unimplemented)
"""Errors of a retrieve that no repeat will change: the worker ends with them."""

_CLOCK_SKEW = timedelta(milliseconds=Settings().max_clock_skew_ms)

_STOP_TIMEOUT_S = 5.0
"""For handing leases back when the grace time is over already."""


Handler = Callable[[Job], Awaitable[Any]] | Callable[[Job], Any]


@dataclass(slots=True)
class WorkerStats:
    """What a worker has done so far.

    Attributes:
        delivered: leases it got; always the sum of the verdicts and of what runs now.
        early: of those, delivered before their due time by the store's clock.
        running: handlers at work, or leases about to be ended.
    """

    delivered: int = 0
    early: int = 0
    running: int = 0
    verdicts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))


class Worker:
    """Leases tasks of some topics and runs a handler for each.

    A handler that returns acknowledges its task; one that raises ends the attempt, with the
    exception as the task's last error. ``raise Retry(delay=…)`` and ``raise DeadLetter(…)`` say
    more exactly what comes next. It may be async, or a plain function, which then runs in a
    thread::

        async with Client("127.0.0.1:50051") as client:
            await Worker(client, "mail", send_mail, concurrency=10).run()

    It holds no task that it cannot start at once, so nothing waits behind a busy worker.

    Args:
        topics: one or up to 16.
        concurrency: handlers at the same time.
        lease: how long a task is ours before the next heartbeat is needed; heartbeats come at a
            third of it. None: 30 s.
        grace: how long handlers may go on after stop(); then they are cancelled and their tasks
            handed back for another attempt.
        poll: longest wait of one retrieve, up to 60 s.
        max_jobs: stop by itself after so many deliveries; None: never.
        stop_when_idle: stop by itself when nothing was due for so long; None: never.
        clock_skew: how far the store's clock may jump at a failover. The worker takes a lease for
            lost this much before it expires, or a quarter of the lease if that is less.
        on_settled: is told what became of each delivery.

    A plain function cannot be stopped from outside: when its lease is lost it goes on, and its
    place is taken until it returns.
    """

    def __init__(
        self,
        client: Client,
        topics: str | Sequence[str],
        handler: Handler,
        *,
        concurrency: int = 10,
        lease: timedelta | None = None,
        grace: timedelta = timedelta(seconds=30),
        poll: timedelta = timedelta(seconds=20),
        max_jobs: int | None = None,
        stop_when_idle: timedelta | None = None,
        clock_skew: timedelta = _CLOCK_SKEW,
        on_settled: Callable[[Job, Verdict], None] | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; it has to be at least 1")
        if max_jobs is not None and max_jobs < 1:
            raise ValueError(f"max_jobs is {max_jobs}; it has to be at least 1")
        self.stats = WorkerStats()
        self._client = client
        self._topics = [topics] if isinstance(topics, str) else list(topics)
        self._handler = handler
        self._concurrency = concurrency
        self._lease = lease or timedelta(milliseconds=DEFAULTS.lease_ms)
        self._grace_s = grace.total_seconds()
        self._poll_s = poll.total_seconds()
        self._max_jobs = max_jobs
        self._idle_s = stop_when_idle.total_seconds() if stop_when_idle is not None else None
        self._margin_s = min(clock_skew, self._lease / 4).total_seconds()
        self._on_settled = on_settled
        self._entropy = SystemEntropy()
        self._backoff = Backoff()
        self._store_clock = StoreClock()
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._overtime = asyncio.Event()
        self._active_s = 0.0
        self._jobs: dict[asyncio.Task[None], Job] = {}
        self._threads: ThreadPoolExecutor | None = None

    async def run(self) -> None:
        """Works until stop(), max_jobs or stop_when_idle. Server restarts are waited out.

        Cancelling it stops at once: handlers are cancelled and their tasks handed back.

        Raises:
            InvalidArgument, Unauthenticated, PermissionDenied, Unimplemented: the server refuses
                what this worker asks for, and always will.
        """
        if not _is_async(self._handler):
            self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="ddq-worker")
        hopeless = None
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    await self._fetch(group)
                    await self._drain()
                except _HOPELESS as error:
                    hopeless = error
                    await self._drain()
                finally:
                    # Also when run() is cancelled: threads are left behind then.
                    self._overtime.set()
        finally:
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)
        if hopeless is not None:
            raise hopeless

    def stop(self) -> None:
        """Retrieve nothing more, let handlers finish within the grace time, then end run().

        May be called from a signal handler of the event loop, and more than once.
        """
        self._stop.set()
        self._changed.set()

    @property
    def stopping(self) -> bool:
        """Whether it takes no more tasks."""
        return self._stop.is_set()

    # Getting tasks

    async def _fetch(self, group: asyncio.TaskGroup) -> None:
        """One retrieve after the other, each for no more tasks than can start at once."""
        loop = asyncio.get_running_loop()
        self._active_s = loop.time()
        request_id, failures = self._new_id(), 0
        while not self._stop.is_set():
            credit = self._credit()
            if credit == 0:
                if self._max_jobs is not None and self.stats.delivered >= self._max_jobs:
                    self.stop()
                    return
                await self._until_changed(None)
                continue
            wait_s = self._wait_s(loop.time())
            if wait_s <= 0 and not self._jobs:
                self.stop()
                return
            try:
                leases = await self._retrieve(request_id, credit, max(wait_s, 0.0))
            except _HOPELESS:
                raise
            except DdqError as error:
                failures += 1
                log.warning("retrieve failed, trying again: %s", error)
                if not isinstance(error, OutcomeUnknown):
                    request_id = self._new_id()
                # After an unknown outcome the same request_id fetches the leases it was granted.
                await self._until_stop(
                    self._backoff.delay_s(failures, None, self._entropy.random())
                )
                # Not idle so far: nobody has said that nothing is due.
                self._active_s = loop.time()
                continue
            failures, request_id = 0, self._new_id()
            if leases is None:
                return
            for lease in leases:
                self._start(group, lease)

    def _credit(self) -> int:
        free = self._concurrency - len(self._jobs)
        if self._max_jobs is not None:
            free = min(free, self._max_jobs - self.stats.delivered)
        return max(0, min(free, LIMITS.retrieve_max_tasks))

    def _wait_s(self, now_s: float) -> float:
        """How long the next retrieve may wait; 0 or less: idle for long enough."""
        if self._idle_s is None:
            return self._poll_s
        left_s = self._active_s + self._idle_s - now_s
        # While something runs, its retry may yet come.
        return min(self._poll_s, self._idle_s if self._jobs else left_s)

    async def _retrieve(self, request_id: str, credit: int, wait_s: float) -> list[Lease] | None:
        """The leases of one retrieve, or None if stop() came first; they are handed back then."""
        asking = asyncio.create_task(
            self._client.retrieve(
                self._topics,
                max_tasks=credit,
                lease=self._lease,
                wait=timedelta(seconds=wait_s),
                request_id=request_id,
            ),
            name="ddq retrieve",
        )
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
        finally:
            stopping.cancel()
            if not asking.done():
                asking.cancel()
                # The reply may be on its way: leases that nobody knows of would keep their tasks
                # from everybody until they expire, and cost an attempt.
                await asyncio.wait({asking})
                await self._hand_back(request_id)
        return None

    async def _hand_back(self, request_id: str) -> None:
        """Asks what a cancelled retrieve was granted, and releases that."""
        try:
            leases = await self._client.retrieve(
                self._topics, request_id=request_id, timeout_s=_STOP_TIMEOUT_S
            )
            results = await self._client.release_batch(leases, timeout_s=_STOP_TIMEOUT_S)
        except DdqError as error:
            log.warning("leases of the last retrieve may run out unused: %s", error)
            return
        for lease, result in zip(leases, results, strict=True):
            self.stats.delivered += 1
            if result.error is not None:
                log.warning("%s/%s was not handed back: %s", lease.topic, lease.id, result.error)
            verdict = Verdict.RELEASED if result.error is None else _verdict_of(result.error)
            self._settled(self._job(lease), verdict)

    def _job(self, lease: Lease) -> Job:
        now_s = asyncio.get_running_loop().time()
        expiry_s = self._store_clock.local_expiry_s(lease, now_s)
        return Job(lease, expiry_s - self._margin_s)

    # Running them

    def _start(self, group: asyncio.TaskGroup, lease: Lease) -> None:
        job = self._job(lease)
        self.stats.delivered += 1
        self.stats.early += job.early
        task = group.create_task(self._run_job(job), name=f"ddq job {job.topic}/{job.id}")
        self._jobs[task] = job
        self.stats.running = len(self._jobs)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._jobs[task]
        self.stats.running = len(self._jobs)
        self._active_s = task.get_loop().time()
        self._changed.set()

    async def _run_job(self, job: Job) -> None:
        handling = asyncio.ensure_future(self._handle(job))
        ends = [asyncio.create_task(event.wait()) for event in (job.lost, self._overtime)]
        try:
            async with _Background(self._keep_alive(job)):
                await asyncio.wait({handling, *ends}, return_when=asyncio.FIRST_COMPLETED)
                await _cancelled(handling)
            await self._end(job, handling)
        except asyncio.CancelledError:
            if handling.done():
                self._settled(job, Verdict.UNKNOWN)
            else:
                await _cancelled(handling)
                await self._end(job, handling)
            raise
        finally:
            handling.cancel()
            for end in ends:
                end.cancel()

    async def _handle(self, job: Job) -> None:
        if self._threads is None:
            await self._handler(job)
            return
        thread = asyncio.get_running_loop().run_in_executor(
            self._threads, functools.partial(self._handler, job)
        )
        try:
            result = await asyncio.shield(thread)
        except asyncio.CancelledError:
            # Its place stays taken for as long as it runs, or there would be more handlers than
            # were asked for. Only a worker that stops leaves it behind.
            overtime = asyncio.create_task(self._overtime.wait())
            await asyncio.wait({thread, overtime}, return_when=asyncio.FIRST_COMPLETED)
            overtime.cancel()
            raise
        if inspect.isawaitable(result):
            # A plain function that returns a coroutine, as wrappers of async ones do: taken for
            # done, it would never have run.
            await result

    async def _end(self, job: Job, handling: asyncio.Future[None]) -> None:
        """Tells the server how the handler ended, if that is still ours to say."""
        failure = None if handling.cancelled() else handling.exception()
        if job.is_lost:
            # Somebody else may hold the task by now: this worker says nothing more about it, even
            # if the handler finished in the same moment.
            log.warning("the lease on %s/%s was lost while it ran", job.topic, job.id)
            self._settled(job, Verdict.LOST)
            return
        try:
            if handling.cancelled():
                verdict = await self._nack(
                    job,
                    "the worker stopped before the handler had finished",
                    delay=timedelta(0),
                    timeout_s=_STOP_TIMEOUT_S,
                )
            elif failure is None:
                await self._client.ack(job.lease)
                verdict = Verdict.ACKED
            else:
                if not isinstance(failure, Retry | DeadLetter):
                    log.info("%s/%s failed", job.topic, job.id, exc_info=failure)
                verdict = await self._nack(
                    job,
                    _error_text(failure),
                    delay=failure.delay if isinstance(failure, Retry) else None,
                    dead_letter=isinstance(failure, DeadLetter),
                )
        except DdqError as error:
            log.warning("the end of %s/%s was not taken: %s", job.topic, job.id, error)
            verdict = _verdict_of(error)
        self._settled(job, verdict)

    async def _nack(
        self,
        job: Job,
        error: str,
        *,
        delay: timedelta | None,
        dead_letter: bool = False,
        timeout_s: float | None = None,
    ) -> Verdict:
        result = await self._client.nack(
            job.lease, error=error, delay=delay, dead_letter=dead_letter, timeout_s=timeout_s
        )
        return Verdict.DEAD if result.state is TaskState.DEAD else Verdict.NACKED

    def _settled(self, job: Job, verdict: Verdict) -> None:
        self.stats.verdicts[verdict] += 1
        if self._on_settled is not None:
            self._on_settled(job, verdict)

    async def _keep_alive(self, job: Job) -> None:
        """Extends the lease until it is cancelled, or the lease is lost."""
        loop = asyncio.get_running_loop()
        lease_s = self._lease.total_seconds()
        # A third, so that a heartbeat may fail and others still come in time.
        pause_s = lease_s / 3
        while True:
            await asyncio.sleep(max(0.0, min(pause_s, job.deadline_s - loop.time())))
            left_s = job.deadline_s - loop.time()
            if left_s <= 0:
                job.lose()
                return
            asked_s = loop.time()
            try:
                extended = await self._client.extend(
                    job.lease, self._lease, timeout_s=min(left_s, lease_s / 3)
                )
            except (LeaseLost, NotFound):
                job.lose()
                return
            except DdqError as error:
                log.warning("heartbeat of %s/%s failed: %s", job.topic, job.id, error)
                pause_s = lease_s / 20
            else:
                pause_s = lease_s / 3
                # From when it was asked, not from when the answer came: the store counted from
                # some moment in between.
                job.prolong(asked_s + extended.remaining.total_seconds() - self._margin_s)

    # Stopping

    async def _drain(self) -> None:
        """Waits for the handlers, and cancels those that outlast the grace time."""
        deadline_s = asyncio.get_running_loop().time() + self._grace_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline_s):
                while self._jobs:
                    await self._until_changed(None)
        self._overtime.set()
        while self._jobs:
            await self._until_changed(None)

    async def _until_changed(self, timeout_s: float | None) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    async def _until_stop(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._stop.wait()

    def _new_id(self) -> str:
        return uuid7(SystemClock().now_ms(), self._entropy)


class _Background:
    """Runs a coroutine beside a block and ends it with the block."""

    def __init__(self, work: Awaitable[None]) -> None:
        self._task = asyncio.ensure_future(work)

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await _cancelled(self._task)
        if not self._task.cancelled() and (failure := self._task.exception()) is not None:
            raise failure


async def _cancelled(future: asyncio.Future[Any]) -> None:
    """Cancels it and waits until it has ended, however it does."""
    future.cancel()
    await asyncio.wait({future})


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - an object whose __call__ is async
    )


def _verdict_of(error: DdqError) -> Verdict:
    return Verdict.UNKNOWN if isinstance(error, OutcomeUnknown) else Verdict.LOST


def _error_text(failure: BaseException) -> str:
    if isinstance(failure, Retry | DeadLetter):
        return str(failure)
    return f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
