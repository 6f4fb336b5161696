"""The worker's own event loop: it gets leases and starts an attempt for each."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable
from datetime import timedelta

from ddq.client import Backoff, Client, Lease
from ddq.config import LIMITS
from ddq.entropy import SystemClock, SystemEntropy, uuid7
from ddq.errors import (
    DdqError,
    InvalidArgument,
    OutcomeUnknown,
    PermissionDenied,
    Unauthenticated,
    Unimplemented,
)
from ddq.worker.attempts import Attempts
from ddq.worker.endings import STOP_TIMEOUT_S, verdict_of
from ddq.worker.handlers import Handlers
from ddq.worker.job import Job, Verdict
from ddq.worker.mailbox import Mailbox, Outbox
from ddq.worker.monitor import LoopMonitor
from ddq.worker.options import WorkerOptions
from ddq.worker.storeclock import StoreClock

log = logging.getLogger("ddq.worker")

_HOPELESS = (InvalidArgument, Unauthenticated, PermissionDenied, Unimplemented)
"""Errors of a retrieve that no repeat will change: the worker ends with them."""


class Reports:
    """What the worker reports to the program, whose event loop calls each of these."""

    def __init__(
        self, delivered: Callable[[Job], None], settled: Callable[[Job, Verdict], None]
    ) -> None:
        self.delivered = delivered
        self.settled = settled


class Control:
    """Retrieves no more tasks than can start at once, and runs an attempt for each.

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
        self._entropy = SystemEntropy()
        self._backoff = Backoff()
        self._store_clock = StoreClock()
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._attempts = Attempts(
            client, handlers, self._outbox, options, self._settled, self._on_change, self.fail
        )
        self._delivered_count = 0
        self._active_s = 0.0
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
        except _HOPELESS as error:
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
        """One retrieve after the other, each for no more tasks than can start at once."""
        loop = asyncio.get_running_loop()
        self._active_s = loop.time()
        request_id, failures_count = self._new_id(), 0
        while not self._stop.is_set():
            credit = self._credit()
            if credit == 0:
                if self._has_had_all():
                    self.stop()
                    return
                await self._until_changed()
                continue
            wait_s = self._wait_s(loop.time())
            if wait_s <= 0 and not self._attempts.is_busy:
                self.stop()
                return
            if not await self._can_start():
                return
            try:
                leases = await self._retrieve(request_id, credit, max(wait_s, 0.0))
            except _HOPELESS:
                raise
            except DdqError as error:
                failures_count += 1
                log.warning("retrieve failed, trying again: %s", error)
                if not isinstance(error, OutcomeUnknown):
                    request_id = self._new_id()
                # After an unknown outcome the same request_id fetches the leases it was granted.
                await self._until_stop(
                    self._backoff.delay_s(failures_count, None, self._entropy.random())
                )
                # Not idle so far: no reply has said that nothing is due.
                self._active_s = loop.time()
                continue
            failures_count, request_id = 0, self._new_id()
            if leases is None:
                return
            for lease in leases:
                self._attempts.start(self._deliver(lease))
            # Before the program's loop is asked whether it answers: it may not, once they run.
            self._outbox.flush()

    def _credit(self) -> int:
        attempts, concurrency = self._attempts, self._options.concurrency
        # Twice as many as can run are held at most: half of them wait for their acks only.
        free = concurrency - max(attempts.running_count, attempts.ending_count)
        if self._options.max_jobs is not None:
            free = min(free, self._options.max_jobs - self._delivered_count)
        return max(0, min(free, LIMITS.retrieve_max_tasks))

    def _has_had_all(self) -> bool:
        most = self._options.max_jobs
        return most is not None and self._delivered_count >= most

    def _wait_s(self, now_s: float) -> float:
        """How long the next retrieve may wait; 0 or less: idle for long enough."""
        idle_s, poll_s = self._options.idle_s, self._options.poll_s
        if idle_s is None:
            return poll_s
        # While something runs, its retry may yet come.
        return min(poll_s, idle_s if self._attempts.is_busy else self._active_s + idle_s - now_s)

    async def _can_start(self) -> bool:
        """Waits until the program's loop could start a handler; False if stop() came first.

        Tasks that are leased for a loop that is blocked would only be kept from other workers.
        """
        if self._monitor is None:
            return True
        answering = asyncio.ensure_future(self._monitor.answers())
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
            return not self._stop.is_set()
        finally:
            answering.cancel()
            stopping.cancel()

    async def _retrieve(self, request_id: str, credit: int, wait_s: float) -> list[Lease] | None:
        """The leases of one retrieve, or None if stop() came first; they are handed back then."""
        asking = asyncio.create_task(
            self._client.retrieve(
                self._options.topics,
                max_tasks=credit,
                lease=self._options.lease,
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
                # The reply may be on its way: leases that no worker knows of would keep their tasks
                # from all of them until they expire, and cost an attempt.
                await asyncio.wait({asking})
                await self._hand_back(request_id)
        return None

    async def _hand_back(self, request_id: str) -> None:
        """Asks what a cancelled retrieve was granted, and releases that."""
        try:
            leases = await self._client.retrieve(
                self._options.topics, request_id=request_id, timeout_s=STOP_TIMEOUT_S
            )
            results = await self._client.release_batch(leases, timeout_s=STOP_TIMEOUT_S)
        except DdqError as error:
            log.warning("leases of the last retrieve may run out unused: %s", error)
            return
        for lease, result in zip(leases, results, strict=True):
            job = self._deliver(lease)
            if result.error is not None:
                log.warning("%s/%s was not handed back: %s", job.topic, job.id, result.error)
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
        """Warns when the program's loop is blocked while handlers run, or wait to."""
        if self._monitor is None:
            return
        while True:
            if self._attempts.running_count:
                try:
                    await self._monitor.check()
                except RuntimeError as error:
                    self.fail(error)
                    return
            await asyncio.sleep(self._monitor.limit_s / 10)

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

    async def _until_stop(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._stop.wait()

    def _new_id(self) -> str:
        return uuid7(SystemClock().now_ms(), self._entropy)
