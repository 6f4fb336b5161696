"""The worker's own event loop: it gets leases and starts an attempt for each."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import Callable, Sequence
from datetime import timedelta

from ddq.client import Client, ItemResult, Lease, LeaseStream
from ddq.client.streaming import HOPELESS
from ddq.errors import DdqError
from ddq.worker.attempts import Attempts
from ddq.worker.endings import STOP_TIMEOUT_S, verdict_of
from ddq.worker.handlers import Handlers
from ddq.worker.job import Job, Verdict
from ddq.worker.mailbox import Mailbox, Outbox
from ddq.worker.monitor import LoopMonitor
from ddq.worker.options import WorkerOptions
from ddq.worker.storeclock import StoreClock

log = logging.getLogger("ddq.worker")


class Reports:
    """What the worker reports to the program, whose event loop calls each of these."""

    def __init__(
        self, delivered: Callable[[Job], None], settled: Callable[[Job, Verdict], None]
    ) -> None:
        self.delivered = delivered
        self.settled = settled


class Control:
    """Takes no more tasks than can start at once, and runs an attempt for each.

    It lives in a thread and an event loop of its own, so that no handler can keep it from
    extending leases, reading replies and sending acks.

    Args:
        client: of the worker's loop, not the program's.
        program: of the program's event loop.
        monitor: of the program's event loop; None where no handler needs that loop.
    """

    def __init__(
        self,
        client: Client,
        handlers: Handlers,
        options: WorkerOptions,
        reports: Reports,
        program: Mailbox,
        monitor: LoopMonitor | None,
    ) -> None:
        self._client = client
        self._options = options
        self._reports = reports
        self._program = program.loop
        self._outbox = Outbox(program, self.fail)
        self._settled = functools.partial(self._outbox.post, reports.settled)
        self._monitor = monitor
        self._store_clock = StoreClock()
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._attempts = Attempts(
            client, handlers, self._outbox, options, self._settled, self._on_change, self.fail
        )
        self._delivered_count = 0
        self._active_s = 0.0
        self._is_idle = False
        self._is_blocked = False
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Works until it is stopped, has had max_jobs, or was idle for long enough.

        Raises:
            InvalidArgument, Unauthenticated, PermissionDenied, Unimplemented: the server refuses
                what this worker asks for, and always will.
            BaseException: what was given to fail().
        """
        watch = asyncio.create_task(self._watch(), name="ddq watch")
        try:
            await self._fetch()
        except HOPELESS as error:
            self._failure = self._failure or error
        except Exception:
            self.stop_now()
            raise
        finally:
            await self._drain()
            watch.cancel()
            self._outbox.flush()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Retrieve nothing more, and let handlers finish within the grace time."""
        self._stop.set()
        self._changed.set()

    def stop_now(self) -> None:
        """Like stop, without the grace time."""
        self.stop()
        self._attempts.end_grace()

    def fail(self, error: BaseException) -> None:
        """Stops at once; run() ends with the first error that it was given."""
        self._failure = self._failure or error
        self.stop_now()

    # Getting tasks

    async def _fetch(self) -> None:
        """Streams of leases, one after the other, each for no more tasks than can start at once."""
        self._active_s = self._loop.time()
        while not self._stop.is_set():
            if self._is_blocked:
                await self._until_changed()
                continue
            self._is_idle = False
            stream = self._client.stream_retrieve(
                self._options.topics,
                lease=self._options.lease,
                poll=timedelta(seconds=min(self._options.poll_s, self._options.idle_s or math.inf)),
                on_change=self._changed.set,
            )
            try:
                await self._feed(stream)
            finally:
                leases = await stream.close()
                if self._stop.is_set():
                    await self._hand_back(leases)
                else:
                    self._start(leases)
            if stream.failures:
                # Not idle so far: no reply has said that nothing is due.
                self._active_s = self._loop.time()
            elif self._is_idle and not leases:
                self.stop()

    async def _feed(self, stream: LeaseStream) -> None:
        """Starts what arrives, and gives credit for what can be started.

        Tasks that are leased for a loop that is blocked would only be kept from other workers, so
        no credit is given before the loop has answered.

        Returns when the stream is to be closed: at the end, when nothing was due for long enough,
        and when the program's loop is blocked.
        """
        answering: asyncio.Task[None] | None = None
        try:
            while not self._stop.is_set():
                self._changed.clear()
                self._start(stream.take())
                if self._has_had_all():
                    self.stop()
                    return
                if self._is_blocked:
                    return
                credit = self._credit() - stream.credit
                if answering is not None and answering.done():
                    answering.result()
                    answering = None
                    if credit > 0:
                        stream.add_credit(credit)
                elif answering is None and credit > 0:
                    if self._monitor is None:
                        stream.add_credit(credit)
                    else:
                        answering = asyncio.create_task(self._monitor.answers())
                        answering.add_done_callback(lambda _: self._changed.set())
                if await self._until_changed_or_idle(stream):
                    self._is_idle = True
                    return
        finally:
            if answering is not None:
                answering.cancel()

    def _start(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._attempts.start(self._deliver(lease))
        if leases:
            # Before the program's loop is asked whether it answers: it may not, once they run.
            self._outbox.flush()

    def _credit(self) -> int:
        """How many tasks may be on their way, at most."""
        attempts, concurrency = self._attempts, self._options.concurrency
        # Twice as many as can run are held at most: half of them wait for their acks only.
        free = concurrency - max(attempts.running_count, attempts.ending_count)
        if self._options.max_jobs is not None:
            free = min(free, self._options.max_jobs - self._delivered_count)
        return max(0, free)

    def _has_had_all(self) -> bool:
        most = self._options.max_jobs
        return most is not None and self._delivered_count >= most

    async def _until_changed_or_idle(self, stream: LeaseStream) -> bool:
        """Waits for something to do; whether nothing was due for long enough instead."""
        idle_s = self._options.idle_s
        # While something runs, its retry may yet come.
        if idle_s is None or self._attempts.is_busy:
            await self._changed.wait()
            return False
        if stream.failures:
            self._active_s = self._loop.time()
        try:
            async with asyncio.timeout_at(self._active_s + idle_s):
                await self._changed.wait()
        except TimeoutError:
            return not stream.failures
        return False

    async def _hand_back(self, leases: Sequence[Lease]) -> None:
        """Releases what came too late to be started."""
        if not leases:
            return
        try:
            results = await self._client.release_batch(leases, timeout_s=STOP_TIMEOUT_S)
        except DdqError as error:
            results = [ItemResult(lease.id, error=error) for lease in leases]
        for lease, result in zip(leases, results, strict=True):
            job = self._deliver(lease)
            if result.error is not None:
                log.warning(
                    "%(topic)s/%(task)s was not handed back: %(error)s",
                    {"topic": job.topic, "task": job.id, "error": result.error},
                )
            verdict = Verdict.RELEASED if result.error is None else verdict_of(result.error)
            self._settled(job, verdict)

    def _deliver(self, lease: Lease) -> Job:
        now_s = self._loop.time()
        expiry_s = self._store_clock.local_expiry_s(lease, now_s)
        job = Job(lease, expiry_s - self._options.margin_s, self._program)
        self._delivered_count += 1
        self._outbox.post(self._reports.delivered, job)
        return job

    def _on_change(self) -> None:
        self._active_s = self._loop.time()
        self._changed.set()

    async def _watch(self) -> None:
        """Notices when the program's loop is blocked while handlers run, or wait to: no task is
        taken then, and a warning names the handler."""
        if self._monitor is None:
            return
        while True:
            if self._attempts.running_count:
                try:
                    await self._monitor.check(self._blocked)
                except RuntimeError as error:
                    self.fail(error)
                    return
                if self._is_blocked:
                    self._is_blocked = False
                    self._changed.set()
            await asyncio.sleep(self._monitor.limit_s / 10)

    def _blocked(self) -> None:
        self._is_blocked = True
        self._changed.set()

    # Stopping

    async def _drain(self) -> None:
        """Waits for the attempts, and cuts short those that outlast the grace time."""
        deadline_s = asyncio.get_running_loop().time() + self._options.grace_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline_s):
                while self._attempts.is_busy and not self._attempts.is_overtime:
                    await self._until_changed()
        await self._attempts.finish()

    async def _until_changed(self) -> None:
        self._changed.clear()
        await self._changed.wait()
