"""Keeping leases alive: one request extends all those of a topic that are due for it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from datetime import timedelta

from ddq.client import Client, Extended
from ddq.errors import DdqError, LeaseLost, NotFound
from ddq.worker.execution import Execution

log = logging.getLogger("ddq.worker")


class Heartbeats:
    """Extends leases every third of their duration, in the worker's event loop.

    No handler can block that loop.

    Args:
        lease: what each heartbeat asks for.
        margin_s: how long before its expiry a lease is taken for lost, in seconds.
        lost: is called with each execution whose lease is lost.
        rearm: is called when there are new times of next heartbeats.
    """

    def __init__(
        self,
        client: Client,
        lease: timedelta,
        margin_s: float,
        lost: Callable[[Execution], None],
        rearm: Callable[[], None],
    ) -> None:
        self._client = client
        self._lease = lease
        self._lease_s = lease.total_seconds()
        self._margin_s = margin_s
        self._lost = lost
        self._rearm = rearm
        self.tasks: set[asyncio.Task[None]] = set()

    def first_s(self, execution: Execution, now_s: float) -> float:
        """When the first heartbeat is due, or the handler has begun too late."""
        # A third, so that a heartbeat may fail and others still come in time.
        return max(now_s, min(now_s + self._lease_s / 3, execution.job.deadline_s))

    def send(self, executions: Iterable[Execution], now_s: float) -> list[asyncio.Task[None]]:
        """Extends the leases, and calls ``lost`` for those that have run out.

        Returns:
            The new tasks among ``tasks``.
        """
        groups: dict[tuple[str, float], list[Execution]] = {}
        for execution in executions:
            job = execution.job
            left_s = job.deadline_s - now_s
            if left_s <= 0:
                log.warning(
                    "the lease on %(topic)s/%(task)s ran out before it was extended",
                    {"topic": job.topic, "task": job.id},
                )
                self._lost(execution)
                continue
            execution.beat_s = math.inf
            # One that is about to run out leaves less time for the answer: not to the others.
            timeout_s = min(left_s, self._lease_s / 3)
            groups.setdefault((job.topic, timeout_s), []).append(execution)
        started = [
            asyncio.create_task(self._extend(group, timeout_s), name="ddq heartbeats")
            for (_, timeout_s), group in groups.items()
        ]
        self.tasks.update(started)
        for task in started:
            task.add_done_callback(self.tasks.discard)
        return started

    async def _extend(self, executions: list[Execution], timeout_s: float) -> None:
        asked_s = asyncio.get_running_loop().time()
        try:
            results = await self._client.extend_batch(
                [execution.job.lease for execution in executions], self._lease, timeout_s=timeout_s
            )
        except DdqError as error:
            for execution in executions:
                self._take(execution, None, error, asked_s)
        else:
            for execution, result in zip(executions, results, strict=True):
                self._take(execution, result.value, result.error, asked_s)
        self._rearm()

    def _take(
        self,
        execution: Execution,
        extended: Extended | None,
        error: DdqError | None,
        asked_s: float,
    ) -> None:
        if not execution.keeps_lease:
            return
        job = execution.job
        now_s = asyncio.get_running_loop().time()
        if isinstance(error, LeaseLost | NotFound):
            log.warning(
                "the lease on %(topic)s/%(task)s is lost: %(error)s",
                {"topic": job.topic, "task": job.id, "error": error},
            )
            self._lost(execution)
            return
        if extended is None:
            log.warning(
                "heartbeat of %(topic)s/%(task)s failed: %(error)s",
                {"topic": job.topic, "task": job.id, "error": error},
            )
            next_s = now_s + self._lease_s / 20
        else:
            # From when it was asked, not from when the answer came: the store counted from some
            # moment in between.
            job.prolong(asked_s + extended.remaining.total_seconds() - self._margin_s)
            next_s = asked_s + self._lease_s / 3
        execution.beat_s = max(now_s, min(next_s, job.deadline_s))
