"""The parent of several processes: it starts them, replaces those that end, and stops them."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ddq.health import STOPPING, Readiness
from ddq.metrics import ParentMetrics
from ddq.processes.figures import Snapshot, lasting, merged, metrics_of, snapshot
from ddq.processes.link import Child

log = logging.getLogger(__name__)

BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 10.0
STABLE_S = 10.0
"""A process that worked for so long is replaced without the delay of those before it."""
SHOW_TIMEOUT_S = 2.0
"""Longest wait for the metrics of a process; then those that it sent last count."""
HURRY_S = 5.0
"""From the second signal to SIGKILL."""


class ChildFailedError(Exception):
    """A process ended before it worked, and has said why.

    Attributes:
        status: its exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


class ChildKilledError(Exception):
    """A process ended in a way that it could not report; one line says which and how."""


@dataclass(frozen=True, slots=True)
class Supervised:
    """The processes of one parent.

    Attributes:
        command: starts one; its number and a descriptor follow.
        options: its standard input.
        count: how many.
        stop_s: from SIGTERM to SIGKILL, in seconds.
    """

    command: Sequence[str]
    options: bytes
    count: int
    stop_s: float


class Supervisor(Collector):
    """Keeps a number of processes running until it is stopped.

    Attributes:
        registry: the metrics of all of them, read in a thread of its own.
    """

    def __init__(self, supervised: Supervised) -> None:
        self._supervised = supervised
        self._metrics = ParentMetrics()
        self._alive: set[Child] = set()
        self._places: dict[int, Child] = {}
        self._locks = {number: asyncio.Lock() for number in range(1, supervised.count + 1)}
        self._failures = dict.fromkeys(self._locks, 0)
        self._counted: Snapshot = ()
        self._reload = asyncio.Event()
        self._ending = False
        self._collecting: set[asyncio.Task[None]] = set()
        self._keeping: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._loop = asyncio.get_running_loop()
        self._metrics.processes.set_function(lambda: len(self._working()))
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def reload(self) -> None:
        """Replaces each process by a new one, which works before the old one drains."""
        self._reload.set()

    async def run(self, stop: asyncio.Event, on_ready: Callable[[dict[str, Any]], None]) -> None:
        """Keeps the processes running until ``stop`` is set; then they drain.

        Args:
            on_ready: is given what the first one said, when all are ready.

        Raises:
            ChildFailedError: one ended before all were ready.
            ChildKilledError: one was killed before all were ready, or did not end in time.
        """
        hurry = False
        try:
            if await self._start_all(stop):
                first = self._places[1].info
                assert first is not None
                on_ready(first)
                await self._keep_all(stop)
        except asyncio.CancelledError:
            # The second signal.
            hurry = True
            raise
        finally:
            await self._end_all(hurry=hurry)

    # Starting ------------------------------------------------------------------------------

    async def _start_all(self, stop: asyncio.Event) -> bool:
        """Whether all are ready; False if they are to stop meanwhile.

        The first one alone: what is wrong with the options or the store is then said once.
        """
        first, *others = self._locks
        for numbers in ([first], others):
            for number in numbers:
                self._places[number] = await self._start(number)
            for number in numbers:
                await self._settled(self._places[number], stop)
        return not stop.is_set()

    async def _settled(self, child: Child, stop: asyncio.Event) -> None:
        """Waits until it is ready, or all are to stop."""
        stopping = asyncio.create_task(stop.wait(), name="ddq stop")
        settled = asyncio.create_task(child.settled.wait(), name="ddq process starts")
        try:
            await asyncio.wait({stopping, settled}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                child.signal(signal.SIGTERM)
                await settled
        finally:
            stopping.cancel()
            settled.cancel()
        if child.info is None:
            status = await child.ended()
            if status > 0:
                raise ChildFailedError(status)
            if not stop.is_set():
                raise ChildKilledError(
                    f"{_name(child)} {_end(status)} before it worked; start again"
                )

    async def _start(self, number: int) -> Child:
        child = await Child.start(self._supervised.command, number, self._supervised.options)
        self._alive.add(child)
        task = asyncio.create_task(self._collect(child), name=f"ddq end of process {number}")
        self._collecting.add(task)
        task.add_done_callback(self._collecting.discard)
        return child

    async def _collect(self, child: Child) -> None:
        """What a process has counted is kept when it has ended."""
        await child.ended()
        self._alive.discard(child)
        self._counted = merged([self._counted, lasting(child.figures)])

    # Keeping them running --------------------------------------------------------------------

    async def _keep_all(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._keep(self._reload_when_asked())
            for child in self._places.values():
                self._keep(self._replace_at_end(child))
            await stop.wait()
            for task in self._keeping:
                task.cancel()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs until the processes are to stop."""
        assert self._group is not None
        task = self._group.create_task(work, name="ddq processes")
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _replace_at_end(self, child: Child) -> None:
        """Starts another process when this one has ended, unless a reload has done so."""
        status = await child.ended()
        async with self._locks[child.number]:
            if self._places[child.number] is not child:
                return
            worked_s = self._loop.time() - child.ready_s if child.info is not None else 0.0
            if worked_s >= STABLE_S:
                self._failures[child.number] = 0
            self._metrics.ended.inc()
            await self._start_again(child.number, f"{_name(child)} {_end(status)}")

    async def _start_again(self, number: int, why: str) -> None:
        while True:
            delay_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(self._failures[number], 10))
            self._failures[number] += 1
            log.error(
                "%(reason)s; another starts in %(delay_s).1f s", {"reason": why, "delay_s": delay_s}
            )
            await asyncio.sleep(delay_s)
            try:
                child = await self._start_ready(number)
            except (ChildKilledError, OSError) as error:
                why = str(error)
            else:
                log.info("%(child)s works", {"child": _name(child)})
                return

    async def _start_ready(self, number: int) -> Child:
        """Starts a process, and gives it its place when it is ready.

        Raises:
            ChildKilledError: it ended before.
            OSError: the machine does not start any.
        """
        child = await self._start(number)
        await child.settled.wait()
        if child.info is None:
            raise ChildKilledError(f"{_name(child)} {_end(await child.ended())} before it worked")
        self._places[number] = child
        self._keep(self._replace_at_end(child))
        return child

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            log.info(
                "reload: %(processes_count)d processes are replaced, one after the other",
                {"processes_count": len(self._locks)},
            )
            try:
                await self._replace_all()
            except (ChildKilledError, OSError) as error:
                log.error(  # noqa: TRY400 - no bug of ours
                    "reload: it ends here, and the processes that work stay: %(error)s",
                    {"error": error},
                )
            else:
                log.info("reload: done")

    async def _replace_all(self) -> None:
        for number, lock in self._locks.items():
            async with lock:
                old = self._places[number]
                new = await self._start_ready(number)
            log.info(
                "reload: %(new)s works, %(old)s drains", {"new": _name(new), "old": _name(old)}
            )
            self._keep(self._drain(old))

    async def _drain(self, child: Child) -> None:
        child.signal(signal.SIGTERM)
        if await self._left([child], self._supervised.stop_s):
            await self._kill([child])

    # Stopping ------------------------------------------------------------------------------

    async def _end_all(self, *, hurry: bool) -> None:
        """Returns when every process has ended, however often this is cancelled.

        Raises:
            ChildKilledError: one had to be killed.
            CancelledError: this was cancelled; the processes have ended all the same.
        """
        self._ending = True
        ending = asyncio.create_task(self._drain_all(), name="ddq end")
        interruption: asyncio.CancelledError | None = None
        if hurry:
            self._hurry()
        while not ending.done():
            try:
                await asyncio.wait({ending})
            except asyncio.CancelledError as error:
                interruption = error
                self._hurry()
        if interruption is not None:
            raise interruption from ending.exception()
        ending.result()

    def _hurry(self) -> None:
        """Their second signal."""
        for child in self._alive:
            # Another one than the first: two equal ones may arrive as one.
            child.signal(signal.SIGINT)
        self._loop.call_later(HURRY_S, self._kill_left)

    def _kill_left(self) -> None:
        for child in self._alive:
            child.signal(signal.SIGKILL)

    async def _drain_all(self) -> None:
        for child in self._alive:
            child.signal(signal.SIGTERM)
        left = await self._left(self._alive, self._supervised.stop_s)
        if left:
            names = ", ".join(_name(child) for child in left)
            await self._kill(left)
            raise ChildKilledError(
                f"{names} did not end within {self._supervised.stop_s:g} s and was killed; nothing "
                "that was acknowledged is lost"
            )
        for task in [*self._collecting]:
            await task

    async def _left(self, children: Iterable[Child], timeout_s: float) -> list[Child]:
        """Those that still run after a time."""
        ends = {asyncio.create_task(child.ended()): child for child in children}
        if not ends:
            return []
        _, pending = await asyncio.wait(ends, timeout=timeout_s)
        for task in pending:
            task.cancel()
        return [ends[task] for task in pending]

    async def _kill(self, children: Iterable[Child]) -> None:
        for child in children:
            log.error(
                "%(child)s did not end within %(timeout_s)g s: it is killed",
                {"child": _name(child), "timeout_s": self._supervised.stop_s},
            )
            child.signal(signal.SIGKILL)
            await child.ended()

    # Metrics -------------------------------------------------------------------------------

    def _working(self) -> list[Child]:
        return [child for child in self._alive if child.info is not None]

    def collect(self) -> list[Metric]:
        """For Prometheus, in a thread of its own."""
        reading = asyncio.run_coroutine_threadsafe(self._figures(), self._loop)
        return metrics_of(reading.result(2 * SHOW_TIMEOUT_S))

    def readiness(self) -> Readiness:
        """Ready if one of the processes is; in a thread of its own. See Reporting."""
        asking = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
        try:
            asking.result(2 * SHOW_TIMEOUT_S)
        except TimeoutError:
            return Readiness(ready=False, reasons={"parent": "it does not answer"})
        working = self._working()
        reasons = {
            f"process {child.number} (pid {child.pid}): {part}": reason
            for child in working
            for part, reason in child.reasons.items()
        }
        if len(working) < self._supervised.count:
            reasons["processes"] = f"{len(working)} of {self._supervised.count} work"
        if self._ending:
            reasons["stop"] = STOPPING
        ready = not self._ending and any(not child.reasons for child in working)
        return Readiness(ready, reasons)

    async def _figures(self) -> Snapshot:
        await self._ask()
        # Without a pause in between: a process that ends is in one of the two.
        now = [child.figures for child in self._alive]
        return merged([snapshot(self._metrics.registry), self._counted, *now])

    async def _ask(self) -> None:
        """Has each process send its metrics and its health, if it does so in time."""
        shows = [asyncio.create_task(child.show()) for child in self._working()]
        if shows:
            _, late = await asyncio.wait(shows, timeout=SHOW_TIMEOUT_S)
            for task in late:
                task.cancel()


def _name(child: Child) -> str:
    return f"process {child.number} (pid {child.pid})"


def _end(status: int) -> str:
    """How it ended."""
    if status >= 0:
        return f"ended with exit status {status}"
    return f"was killed by {signal.Signals(-status).name}"
