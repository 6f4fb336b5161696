"""Attempts: a handler runs while its lease is kept, and the server learns how it ended.

An attempt that ends by itself, as nearly all do, needs no asyncio task and no timer in the worker's
event loop: one timer serves all of them, and acks leave in batches. Only one that has to be
stopped, handed back, or reported in another way than by an ack gets a task.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from ddq.client import Client
from ddq.worker.acks import Acks
from ddq.worker.endings import STOP_TIMEOUT_S, Cut, Endings
from ddq.worker.execution import Execution
from ddq.worker.handlers import Handlers
from ddq.worker.heartbeats import Heartbeats
from ddq.worker.job import Job, Verdict
from ddq.worker.mailbox import Mailbox, Outbox
from ddq.worker.options import WorkerOptions
from ddq.worker.outcome import End, Outcome

log = logging.getLogger("ddq.worker")

CLEAN_UP_S = 5.0
"""How long a handler that was asked to stop may take, at most; a third of the lease if that is
less."""


class Attempts:
    """Runs attempts, in the worker's event loop.

    Args:
        program: to the program's event loop.
        settled: is called with what became of each job.
        changed: is called when an attempt has ended, or needs its place no longer.
        failed: is called with an error that is the worker's own.
    """

    def __init__(
        self,
        client: Client,
        handlers: Handlers,
        program: Outbox,
        options: WorkerOptions,
        settled: Callable[[Job, Verdict], None],
        changed: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._handlers = handlers
        self._program = program
        self._changed = changed
        self._failed = failed
        self._report = settled
        self._overtime = asyncio.Event()
        self._endings = Endings(client, options.max_run, self._overtime.is_set)
        self._acks = Acks(client, self._settled)
        self._heartbeats = Heartbeats(
            client, options.lease, options.margin_s, self._lost, self._check
        )
        self._clean_up_s = min(CLEAN_UP_S, options.lease.total_seconds() / 3)
        self._running: dict[Execution, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reports_count = 0
        self._timer: asyncio.TimerHandle | None = None
        handlers.report_to(Mailbox(self._loop), self._ended)

    @property
    def running_count(self) -> int:
        """Places that are taken: by handlers that run or are about to."""
        return len(self._running)

    @property
    def ending_count(self) -> int:
        """Attempts whose handler has ended, and the server has yet to take that."""
        return self._acks.count + self._reports_count

    @property
    def is_busy(self) -> bool:
        """Whether anything runs or is about to end."""
        return bool(self._running) or self.ending_count > 0

    def start(self, job: Job) -> None:
        """Starts the handler of a job, in a place that is free."""
        execution = Execution(job)
        self._running[execution] = None
        if self._overtime.is_set() and execution.withdraw():
            self._take_over(execution, self._hand_back(execution))
            return
        self._handlers.start(execution, self._program)
        now_s = self._loop.time()
        execution.beat_s = self._heartbeats.first_s(execution, now_s)
        max_run = self._endings.max_run(job)
        most_s = now_s + max_run.total_seconds() if max_run is not None else math.inf
        self._check_at(min(execution.beat_s, most_s))

    def end_grace(self) -> None:
        """Handlers may not run any longer: they are stopped, and their tasks handed back."""
        if self._overtime.is_set():
            return
        self._overtime.set()
        for execution in [*self._running]:
            if execution.task is not None:
                continue
            if execution.withdraw():
                log.warning(_NOT_STARTED, {"topic": execution.job.topic, "task": execution.job.id})
                self._take_over(execution, self._hand_back(execution))
            else:
                self._take_over(execution, self._stop(execution, Cut.OVERTIME))

    @property
    def is_overtime(self) -> bool:
        """Whether handlers may not run any longer."""
        return self._overtime.is_set()

    async def finish(self) -> None:
        """Ends the grace time, and all attempts within the time that this takes at most."""
        self.end_grace()
        ends_s = self._loop.time() + self._clean_up_s + STOP_TIMEOUT_S
        while self.is_busy:
            tasks = self._tasks | self._acks.tasks
            if not tasks:
                # Acks of this turn are sent in the next one.
                await asyncio.sleep(0)
                continue
            left_s = ends_s - self._loop.time()
            if left_s <= 0:
                # The requests that end the attempts get no more time.
                self._acks.give_up()
                for task in tasks:
                    task.cancel()
            await asyncio.wait(tasks, timeout=max(left_s, 0) or None)
            # The callbacks that take them out of the sets come one turn later.
            await asyncio.sleep(0)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._heartbeats.tasks:
            task.cancel()

    # The one timer

    def _check_at(self, at_s: float) -> None:
        if at_s < math.inf and (self._timer is None or at_s < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at_s, self._check)

    def _check(self) -> None:
        """Extends leases, and stops or hands back what has to be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = self._loop.time()
        beats: list[Execution] = []
        late: list[Execution] = []
        overrun: list[Execution] = []
        next_s = math.inf
        for execution in self._running:
            overruns_s = self._overruns_s(execution, now_s)
            if overruns_s <= now_s:
                overrun.append(execution)
            else:
                next_s = min(next_s, overruns_s)
            if not execution.keeps_lease:
                continue
            if execution.beat_s > now_s:
                next_s = min(next_s, execution.beat_s)
            elif execution.withdraw():
                late.append(execution)
            else:
                beats.append(execution)
        # A lease is only extended for a handler that runs: one that waits behind a blocked event
        # loop is given to a worker that can start it, and its attempt does not count.
        for execution in late:
            log.warning(_NOT_STARTED, {"topic": execution.job.topic, "task": execution.job.id})
            self._take_over(execution, self._hand_back(execution))
        for execution in overrun:
            self._take_over(execution, self._stop(execution, Cut.OVERRUN))
        for task in self._heartbeats.send(beats, now_s):
            task.add_done_callback(self._task_ended)
        self._check_at(next_s)

    def _overruns_s(self, execution: Execution, now_s: float) -> float:
        """When max_run is over, in the loop's time; not before then for one that has not begun."""
        if execution.task is not None:
            return math.inf
        max_run = self._endings.max_run(execution.job)
        if max_run is None:
            return math.inf
        # It may begin at any moment from now on.
        begun_s = execution.begun_s
        span_s = max_run.total_seconds()
        return begun_s + span_s if begun_s is not None else now_s + span_s

    # How attempts end

    def _ended(self, execution: Execution, outcome: Outcome) -> None:
        """The handler has ended, or will not begin."""
        execution.outcome = outcome
        if execution.ended is not None:
            execution.ended.set()
            return
        if self._running.pop(execution, self) is self:
            return
        execution.keeps_lease = False
        job = execution.job
        if outcome.end is End.RETURNED and job.next_run is None:
            self._acks.add(job)
        else:
            self._reports_count += 1
            self._run(self._end(job, outcome))
        self._changed()

    def _lost(self, execution: Execution) -> None:
        execution.keeps_lease = False
        if execution.task is None and execution in self._running:
            self._take_over(execution, self._stop(execution, Cut.LOST))

    def _take_over(self, execution: Execution, work: Coroutine[Any, Any, None]) -> None:
        """Leaves the rest of an attempt to a task, which has its place until it ends."""
        execution.ended = asyncio.Event()
        execution.task = self._run(work)
        execution.task.add_done_callback(lambda _: self._free(execution))

    def _free(self, execution: Execution) -> None:
        execution.keeps_lease = False
        self._running.pop(execution, None)
        self._changed()

    async def _end(self, job: Job, outcome: Outcome) -> None:
        """Reports the end of an attempt that has given up its place."""
        verdict = Verdict.UNKNOWN
        try:
            verdict = await self._endings.end(job, None, outcome)
        finally:
            self._reports_count -= 1
            self._settled(job, verdict)

    async def _hand_back(self, execution: Execution) -> None:
        """For one that was withdrawn before it began."""
        execution.keeps_lease = False
        verdict = Verdict.UNKNOWN
        try:
            verdict = await self._endings.release(execution.job)
        finally:
            self._settled(execution.job, verdict)

    async def _stop(self, execution: Execution, cut: Cut) -> None:
        """Stops a handler and reports that; returns when another job may take its place."""
        verdict = Verdict.UNKNOWN
        job, ended = execution.job, execution.ended
        assert ended is not None
        try:
            if ended.is_set():
                # It was about to end.
                cut_by = None
            else:
                cut_by = cut
                await self._cut_short(execution, cut, ended)
            execution.keeps_lease = False
            verdict = await self._endings.end(job, cut_by, execution.outcome)
        finally:
            self._settled(job, verdict)
        await self._first_of(ended, self._overtime)

    async def _cut_short(self, execution: Execution, cut: Cut, ended: asyncio.Event) -> None:
        """Asks the handler to stop and gives it a little time for that."""
        job = execution.job
        level = logging.INFO if cut is Cut.OVERTIME else logging.WARNING
        log.log(
            level,
            "%(topic)s/%(task)s is asked to stop: %(reason)s",
            {"topic": job.topic, "task": job.id, "reason": cut.value},
        )
        job.lose()
        self._handlers.cancel(execution)
        if cut is Cut.LOST:
            # It may finish all the same, and then its ack may still count.
            await self._first_of(ended, self._overtime)
        await self._first_of(ended, timeout_s=self._clean_up_s)
        if not ended.is_set():
            log.warning(
                "%(topic)s/%(task)s still runs; its place is taken until it returns",
                {"topic": job.topic, "task": job.id},
            )

    async def _first_of(self, *events: asyncio.Event, timeout_s: float | None = None) -> None:
        """Waits until one of the events is set."""
        if any(event.is_set() for event in events):
            return
        waits = [self._loop.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    # Tasks

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name="ddq attempt")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _settled(self, job: Job, verdict: Verdict) -> None:
        self._report(job, verdict)
        self._changed()


_NOT_STARTED = "%(topic)s/%(task)s was not started in time and is handed back"
