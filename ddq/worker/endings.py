"""The requests that end an attempt, one for each."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from ddq.client import Client, TaskState
from ddq.durations import span_text
from ddq.errors import DdqError, InvalidArgument, OutcomeUnknown, SnoozeLimit
from ddq.worker.job import DeadLetter, Job, Retry, Snooze, Verdict
from ddq.worker.outcome import End, Outcome, error_text

log = logging.getLogger("ddq.worker")

STOP_TIMEOUT_S = 5.0
"""For a request that hands a lease back when the grace time is over already, in seconds."""

_UNSENDABLE = (TypeError, ValueError, AttributeError, OverflowError)
"""What it raises to put a value of the wrong type or size into a request."""


class Cut(enum.Enum):
    """Why the worker asked a handler to stop."""

    LOST = "the lease was lost"
    OVERRUN = "max_run was over"
    OVERTIME = "the worker stopped, and its grace time was over"


class Endings:
    """Tells the server how an attempt ended, in the worker's event loop.

    A handler that has returned is always acknowledged and one that has raised is always reported,
    whatever this worker believes about its lease: the server knows whether the token still holds.

    Args:
        max_run: of the worker.
        is_overtime: whether handlers may not run any longer.
    """

    def __init__(
        self, client: Client, max_run: timedelta | None, is_overtime: Callable[[], bool]
    ) -> None:
        self._client = client
        self._own_max_run = max_run
        self._is_overtime = is_overtime

    async def end(self, job: Job, cut: Cut | None, outcome: Outcome | None) -> Verdict:
        """Says how a handler ended, or that it was asked to stop and has not ended.

        Args:
            cut: why it was asked to stop; None: it was not.
        """
        try:
            return await self._end(job, cut, outcome)
        except (InvalidArgument, *_UNSENDABLE) as error:
            # What the handler asked for can not be sent, or is refused: a mistake of this handler,
            # for which no other task may pay.
            log.warning(
                "%(topic)s/%(task)s asked for what cannot be: %(error)s",
                {"topic": job.topic, "task": job.id, "error": error},
            )
            failure = outcome.error if outcome is not None else None
            text = f"{error_text(failure)}; " if failure is not None else ""
            return await self._nack(job, f"{text}what the handler asked for was refused: {error}")

    def max_run(self, job: Job) -> timedelta | None:
        """The smaller one of the worker's bound and the topic's."""
        own, of_topic = self._own_max_run, job.lease.max_run
        return min(own, of_topic) if own and of_topic else own or of_topic

    async def release(self, job: Job) -> Verdict:
        """Hands the lease back: the attempt does not count."""

        async def request() -> Verdict:
            await self._client.release(job.lease, timeout_s=STOP_TIMEOUT_S)
            return Verdict.RELEASED

        return await _verdict(job, request())

    async def _end(self, job: Job, cut: Cut | None, outcome: Outcome | None) -> Verdict:
        """Tells the server how the handler ended."""
        end = outcome.end if outcome is not None else None
        error = outcome.error if outcome is not None else None
        if end is End.NOT_STARTED:
            return await self.release(job)
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
            max_run = self.max_run(job)
            limit = span_text(max_run) if max_run is not None else "none"
            return await self._nack(job, f"the handler ran longer than max_run ({limit})")
        if cut is Cut.OVERTIME or self._is_overtime():
            return await self.release(job)
        return await self._fail(job, asyncio.CancelledError())

    async def _fail(self, job: Job, error: BaseException) -> Verdict:
        if not isinstance(error, Retry | DeadLetter):
            log.info(
                "%(topic)s/%(task)s failed", {"topic": job.topic, "task": job.id}, exc_info=error
            )
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


async def _verdict(job: Job, request: Awaitable[Verdict], *but: type[DdqError]) -> Verdict:
    """The verdict that a request brings, or the one that its failure means; raises ``but``."""
    try:
        return await request
    except but:
        raise
    except DdqError as error:
        return failed_verdict(job, error)


def failed_verdict(job: Job, error: DdqError) -> Verdict:
    """The verdict of a delivery whose last request failed, which is logged."""
    log.warning(
        "the end of %(topic)s/%(task)s was not taken: %(error)s",
        {"topic": job.topic, "task": job.id, "error": error},
    )
    return verdict_of(error)


def verdict_of(error: DdqError) -> Verdict:
    """The outcome of a delivery whose last request failed."""
    return Verdict.UNKNOWN if isinstance(error, OutcomeUnknown) else Verdict.LOST
