"""Acknowledges finished tasks in batches, in the worker's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ddq.client import Acked, Client, ItemResult
from ddq.client.coalesce import IN_FLIGHT_MAX_COUNT
from ddq.config import LIMITS
from ddq.errors import DdqError
from ddq.worker.endings import failed_verdict
from ddq.worker.job import Job, Verdict


class Acks:
    """Sends the acks that wait in one request as soon as one of the requests under way is answered.

    Args:
        settled: is called with what became of each job.
    """

    def __init__(self, client: Client, settled: Callable[[Job, Verdict], None]) -> None:
        self._client = client
        self._settled = settled
        self._topics: dict[str, _TopicAcks] = {}
        self.count = 0
        """Jobs whose outcome is open."""

    def add(self, job: Job) -> None:
        """Acknowledges a job, together with others of this turn of the loop."""
        self.count += 1
        topic = job.lease.topic
        acks = self._topics.get(topic)
        if acks is None:
            acks = self._topics[topic] = _TopicAcks(self._client, self._settle)
        acks.add(job)

    def _settle(self, job: Job, verdict: Verdict) -> None:
        self.count -= 1
        self._settled(job, verdict)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Those that send requests."""
        return {task for acks in self._topics.values() for task in acks.tasks}

    def give_up(self) -> None:
        """Sends nothing more, and waits for no answer: the outcome of what is open is unknown."""
        for acks in self._topics.values():
            acks.give_up()


class _TopicAcks:
    """The same for one topic: a shard that does not answer holds up its own topic only."""

    def __init__(self, client: Client, settled: Callable[[Job, Verdict], None]) -> None:
        self._client = client
        self._settled = settled
        self._waiting: list[Job] = []
        self._unanswered_count = 0
        self._woken = False
        self.tasks: set[asyncio.Task[None]] = set()

    def add(self, job: Job) -> None:
        self._waiting.append(job)
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._send_waiting)

    def give_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            self._settled(job, Verdict.UNKNOWN)
        for task in self.tasks:
            task.cancel()

    def _send_waiting(self) -> None:
        self._woken = False
        while self._waiting and self._unanswered_count < IN_FLIGHT_MAX_COUNT:
            jobs = self._waiting[: LIMITS.batch_max_items]
            del self._waiting[: LIMITS.batch_max_items]
            self._unanswered_count += 1
            task = asyncio.create_task(self._send(jobs), name="ddq acks")
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _send(self, jobs: list[Job]) -> None:
        waits = True
        open_jobs: dict[int, Job] = dict(enumerate(jobs))

        def answered() -> None:
            nonlocal waits
            if waits:
                waits = False
                self._unanswered_count -= 1
                self._send_waiting()

        def on_result(index: int, result: ItemResult[Acked]) -> None:
            if waits:
                # Those that have to be repeated hold up no others.
                answered()
            job, error = open_jobs.pop(index), result.error
            self._settled(job, Verdict.ACKED if error is None else failed_verdict(job, error))

        try:
            await self._client.ack_batch([job.lease for job in jobs], on_result=on_result)
        except DdqError as error:
            while open_jobs:
                _, job = open_jobs.popitem()
                self._settled(job, failed_verdict(job, error))
        finally:
            for job in open_jobs.values():
                self._settled(job, Verdict.UNKNOWN)
            answered()
