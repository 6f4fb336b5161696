"""One attempt: its lease is kept, its handler runs, and the server learns how it ended."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from ddq.client import Client, TaskState
from ddq.durations import span_text
from ddq.errors import DdqError, InvalidArgument, OutcomeUnknown, SnoozeLimit
from ddq.worker.handlers import Execution, Handlers
from ddq.worker.heartbeats import keep_alive
from ddq.worker.job import DeadLetter, Job, Retry, Snooze, Verdict
from ddq.worker.options import WorkerOptions
from ddq.worker.outcome import End, Outcome, error_text

log = logging.getLogger("ddq.worker")

STOP_TIMEOUT_S = 5.0
"""For a request that hands a lease back when the grace time is over already, in seconds."""

CLEAN_UP_S = 5.0
"""How long a handler that was asked to stop may take, at most; a third of the lease if that is
less."""


_UNSENDABLE = (TypeError, ValueError, AttributeError, OverflowError)
"""What it raises to put a value of the wrong type or size into a request."""


class Cut(enum.Enum):
    """Why the worker asked a handler to stop."""

    LOST = "the lease was lost"
    OVERRUN = "max_run was over"
    OVERTIME = "the worker stopped, and its grace time was over"


class Attempts:
    """Runs attempts, in the worker's event loop.

    A handler that has returned is always acknowledged and one that has raised is always reported,
    whatever this worker believes about its lease: the server knows whether the token still holds.

    Args:
        overtime: is set when handlers may not run any longer.
        settled: is called with what became of each job.
    """

    def __init__(
        self,
        client: Client,
        handlers: Handlers,
        options: WorkerOptions,
        overtime: asyncio.Event,
        settled: Callable[[Job, Verdict], None],
    ) -> None:
        self._client = client
        self._handlers = handlers
        self._options = options
        self._overtime = overtime
        self._settled = settled
        self._clean_up_s = min(CLEAN_UP_S, options.lease.total_seconds() / 3)

    @property
    def stop_limit_s(self) -> float:
        """How long attempts may take to end once handlers may not run any longer, in seconds."""
        return self._clean_up_s + STOP_TIMEOUT_S

    async def run(self, job: Job) -> None:
        """Returns when another job may take this one's place.

        Cancelling it means that the request which ends the attempt gets no more time.
        """
        settled = False
        try:
            execution = self._handlers.start(job)
            if not await self._has_started(execution):
                verdict = await self._release(job)
            else:
                verdict = await self._run_started(execution)
            self._settled(job, verdict)
            settled = True
            if not execution.outcome.done() and not execution.withdraw():
                await _first_of(execution.outcome, self._overtime.wait())
        except asyncio.CancelledError:
            if not settled:
                self._settled(job, Verdict.UNKNOWN)
            raise

    async def _has_started(self, execution: Execution) -> bool:
        """Whether the handler began; if not, it never will.

        A lease is only extended for a handler that runs: one that waits behind a blocked event
        loop is given to a worker that can start it, and its attempt does not count.
        """
        job = execution.job
        timeout_s = self._options.lease.total_seconds() / 3
        await _first_of(
            execution.started.wait(),
            execution.outcome,
            self._overtime.wait(),
            timeout_s=timeout_s,
        )
        if execution.withdraw():
            log.warning("%s/%s was not started in time and is handed back", job.topic, job.id)
            return False
        return True

    async def _run_started(self, execution: Execution) -> Verdict:
        job, options = execution.job, self._options
        heartbeats = asyncio.create_task(
            keep_alive(self._client, job, options.lease, options.margin_s),
            name=f"ddq heartbeats {job.topic}/{job.id}",
        )
        max_run = self._max_run(job)
        max_run_s = max_run.total_seconds() if max_run is not None else None
        try:
            await _first_of(
                execution.outcome, heartbeats, self._overtime.wait(), timeout_s=max_run_s
            )
            if execution.outcome.done():
                cut = None
            elif heartbeats.done():
                heartbeats.result()
                cut = Cut.LOST
            else:
                cut = Cut.OVERTIME if self._overtime.is_set() else Cut.OVERRUN
            if cut is not None:
                await self._cut_short(execution, cut)
        finally:
            heartbeats.cancel()
        outcome = execution.outcome.result() if execution.outcome.done() else None
        try:
            return await self._end(job, cut, outcome)
        except (InvalidArgument, *_UNSENDABLE) as error:
            # What the handler asked for can not be sent, or is refused: a mistake of this handler,
            # for which no other task may pay.
            log.warning("%s/%s asked for what cannot be: %s", job.topic, job.id, error)
            failure = outcome.error if outcome is not None else None
            text = f"{error_text(failure)}; " if failure is not None else ""
            return await self._nack(job, f"{text}what the handler asked for was refused: {error}")

    def _max_run(self, job: Job) -> timedelta | None:
        """The smaller one of the worker's bound and the topic's."""
        bounds = [bound for bound in (self._options.max_run, job.lease.max_run) if bound]
        return min(bounds, default=None)

    async def _cut_short(self, execution: Execution, cut: Cut) -> None:
        """Asks the handler to stop and gives it a little time for that."""
        job = execution.job
        level = logging.INFO if cut is Cut.OVERTIME else logging.WARNING
        log.log(level, "%s/%s is asked to stop: %s", job.topic, job.id, cut.value)
        job.lose()
        self._handlers.cancel(execution)
        if cut is Cut.LOST:
            # It may finish all the same, and then its ack may still count.
            await _first_of(execution.outcome, self._overtime.wait())
        if not execution.outcome.done():
            await _first_of(execution.outcome, timeout_s=self._clean_up_s)
        if not execution.outcome.done():
            log.warning("%s/%s still runs; its place is taken until it returns", job.topic, job.id)

    async def _end(self, job: Job, cut: Cut | None, outcome: Outcome | None) -> Verdict:
        """Tells the server how the handler ended."""
        end = outcome.end if outcome is not None else None
        error = outcome.error if outcome is not None else None
        if end is End.NOT_STARTED:
            return await self._release(job)
        if end is End.RETURNED:
            return await self._ack(job)
        if isinstance(error, Snooze):
            return await self._snooze(job, error)
        if isinstance(error, Retry | DeadLetter) or (error is not None and cut is None):
            return await self._fail(job, error)
        # It was cut short, or cancelled by other code.
        if cut is Cut.LOST:
            return Verdict.LOST
        if cut is Cut.OVERRUN:
            max_run = self._max_run(job)
            limit = span_text(max_run) if max_run is not None else "none"
            return await self._nack(job, f"the handler ran longer than max_run ({limit})")
        if cut is Cut.OVERTIME or self._overtime.is_set():
            return await self._release(job)
        return await self._fail(job, asyncio.CancelledError())

    async def _fail(self, job: Job, error: BaseException) -> Verdict:
        if not isinstance(error, Retry | DeadLetter):
            log.info("%s/%s failed", job.topic, job.id, exc_info=error)
        return await self._nack(
            job,
            error_text(error),
            delay=error.delay if isinstance(error, Retry) else None,
            dead_letter=isinstance(error, DeadLetter),
        )

    async def _ack(self, job: Job) -> Verdict:
        planned = job.next_run

        async def request() -> Verdict:
            if planned is None:
                await self._client.ack(job.lease)
            else:
                await self._client.run_again(
                    job.lease,
                    delay=planned.delay,
                    due=planned.due,
                    payload=planned.payload,
                    headers=planned.headers,
                )
            return Verdict.ACKED

        try:
            return await _verdict(job, request(), InvalidArgument)
        except InvalidArgument as error:
            # What the handler planned is refused: its mistake, as any exception is. An ack alone
            # would end the series.
            return await self._nack(job, f"the next run was refused: {error}")

    async def _snooze(self, job: Job, asked: Snooze) -> Verdict:
        async def request() -> Verdict:
            await self._client.snooze(job.lease, asked.delay)
            return Verdict.SNOOZED

        try:
            return await _verdict(job, request(), InvalidArgument, SnoozeLimit)
        except SnoozeLimit as error:
            return await self._nack(job, str(asked) or str(error), delay=asked.delay)
        except InvalidArgument as error:
            return await self._nack(job, f"the snooze was refused: {error}")

    async def _nack(
        self,
        job: Job,
        error: str,
        *,
        delay: timedelta | None = None,
        dead_letter: bool = False,
    ) -> Verdict:
        async def request() -> Verdict:
            result = await self._client.nack(
                job.lease, error=error, delay=delay, dead_letter=dead_letter
            )
            return Verdict.DEAD if result.state is TaskState.DEAD else Verdict.NACKED

        # Only what the handler chose can be out of bounds, and only then is there another way.
        return await _verdict(job, request(), *([] if delay is None else [InvalidArgument]))

    async def _release(self, job: Job) -> Verdict:
        async def request() -> Verdict:
            await self._client.release(job.lease, timeout_s=STOP_TIMEOUT_S)
            return Verdict.RELEASED

        return await _verdict(job, request())


async def _verdict(job: Job, request: Awaitable[Verdict], *but: type[DdqError]) -> Verdict:
    """The verdict that a request brings, or the one that its failure means; raises ``but``."""
    try:
        return await request
    except but:
        raise
    except DdqError as error:
        log.warning("the end of %s/%s was not taken: %s", job.topic, job.id, error)
        return verdict_of(error)


async def _first_of(*waits: Awaitable[Any], timeout_s: float | None = None) -> None:
    """Waits for the first of some futures and coroutines; ends the coroutines."""
    futures = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future, wait in zip(futures, waits, strict=True):
            if future is not wait:
                future.cancel()


def verdict_of(error: DdqError) -> Verdict:
    """What became of a delivery whose last request failed."""
    return Verdict.UNKNOWN if isinstance(error, OutcomeUnknown) else Verdict.LOST
