"""What callers notice of each failure: the longest time without an answer, and the errors in it.

One after the other, each for some seconds, on a store that is healthy before it. At each durability
a client enqueues all the time, with half a second for each request, as in ``failovers.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from chaos.checker.availability import UNSERVED
from chaos.clusters import StoreNode
from chaos.experiments.maintenance.procedure import Procedure
from chaos.experiments.recorded import RecordedSession
from chaos.experiments.topics import create_topic
from chaos.faults import Mode
from ddq.client import Client
from ddq.errors import DdqError

HOLD_S = 5.0
SHORT_S = 1.0
_PAUSE_S = 0.02
_TIMEOUT_S = 0.5
_REST_S = 2.0

Failure = Callable[[RecordedSession], Awaitable[None]]


async def _down(session: RecordedSession, nodes: list[StoreNode], hold_s: float = HOLD_S) -> None:
    for node in nodes:
        await session.sentinel.kill(node)
    await asyncio.sleep(hold_s)
    for node in nodes:
        await session.sentinel.restart(node)


async def _master(session: RecordedSession) -> StoreNode:
    return await session.sentinel.wait_for_master()


async def _replicas(session: RecordedSession) -> list[StoreNode]:
    master = await _master(session)
    return [node for node in session.sentinel.data if node != master]


async def _paused(session: RecordedSession, hold_s: float) -> None:
    master = await _master(session)
    await session.sentinel.pause(master)
    try:
        await asyncio.sleep(hold_s)
    finally:
        await session.sentinel.resume(master)


async def an_api_dies(session: RecordedSession) -> None:
    api = session.ddq.apis[0]
    await api.kill()
    await asyncio.sleep(HOLD_S)
    await api.restart()


async def a_scheduler_dies(session: RecordedSession) -> None:
    leader = await session.ddq.leader()
    await leader.kill()
    await asyncio.sleep(HOLD_S)
    await leader.restart()


async def a_replica_dies(session: RecordedSession) -> None:
    await _down(session, (await _replicas(session))[:1])


async def both_replicas_die(session: RecordedSession) -> None:
    await _down(session, await _replicas(session))


async def a_sentinel_dies(session: RecordedSession) -> None:
    await _down(session, session.sentinel.sentinels[:1])


async def a_majority_of_sentinels_dies(session: RecordedSession) -> None:
    await _down(session, session.sentinel.sentinels[:2])


async def the_master_dies(session: RecordedSession) -> None:
    await _down(session, [await _master(session)])


async def the_master_is_paused_shortly(session: RecordedSession) -> None:
    await _paused(session, SHORT_S)


async def the_master_is_paused_for_long(session: RecordedSession) -> None:
    await _paused(session, 2 * HOLD_S)


async def the_master_dies_without_a_majority_of_sentinels(session: RecordedSession) -> None:
    await _down(session, [*session.sentinel.sentinels[:2], await _master(session)])


async def all_data_nodes_die(session: RecordedSession) -> None:
    await _down(session, list(session.sentinel.data))


FAILURES: tuple[Failure, ...] = (
    an_api_dies,
    a_scheduler_dies,
    a_replica_dies,
    both_replicas_die,
    a_sentinel_dies,
    a_majority_of_sentinels_dies,
    the_master_is_paused_shortly,
    the_master_is_paused_for_long,
    the_master_dies,
    the_master_dies_without_a_majority_of_sentinels,
    all_data_nodes_die,
)


def topic_of(mode: Mode) -> str:
    """Where its caller enqueues."""
    return f"caller-{mode.value}"


def name_of(failure: Failure) -> str:
    """In words."""
    return failure.__name__.replace("_", " ")


@dataclass(eq=False, slots=True)
class Caller:
    """One that enqueues all the time.

    Attributes:
        longest_s: between two answers since ``begin``.
        reasons: of the errors in between.
    """

    mode: Mode
    client: Client
    longest_s: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    _last_s: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Forgets what was."""
        self.longest_s, self._last_s = 0.0, time.monotonic()
        self.reasons.clear()

    async def run(self) -> None:
        """Until it is cancelled."""
        topic = topic_of(self.mode)
        await create_topic(self.client, topic, self.mode, timeout_s=30.0)
        number = 0
        while True:
            number += 1
            try:
                await self.client.enqueue(topic, task_id=f"{number}", timeout_s=_TIMEOUT_S)
            except DdqError as error:
                why = error.metadata.get("last_reason", error.reason)
                if why in UNSERVED:
                    self.reasons[why] += 1
            else:
                now_s = time.monotonic()
                self.longest_s = max(self.longest_s, now_s - self._last_s)
                self._last_s = now_s
            await asyncio.sleep(_PAUSE_S)

    @property
    def cell(self) -> str:
        """The longest time without an answer, and the most frequent errors."""
        most = [f"`{reason}`" for reason, _ in self.reasons.most_common(2)]
        return ", ".join([f"{self.longest_s:.1f} s", *most])


def failures(rows: list[str], only: Sequence[str] = ()) -> Procedure:
    """Makes them happen, all or those that are named, and adds a row for each, in Markdown."""
    chosen = [each for each in FAILURES if not only or name_of(each) in only]
    rows += [f"| failure | {' | '.join(mode.name for mode in Mode)} |", "|---" * 4 + "|"]

    async def drive(session: RecordedSession) -> None:
        callers = [Caller(mode, session.client) for mode in Mode]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(caller.run(), name=f"chaos caller {caller.mode}")
                for caller in callers
            ]
            for failure in chosen:
                name = name_of(failure)
                await session.check_health()
                await asyncio.sleep(_REST_S)
                for caller in callers:
                    caller.begin()
                async with session.step("failure", name):
                    await failure(session)
                    await session.check_health()
                await asyncio.sleep(_REST_S)
                rows.append(f"| {name} | {' | '.join(caller.cell for caller in callers)} |")
            for task in tasks:
                task.cancel()

    other_topics = tuple(topic_of(mode) for mode in Mode)
    return Procedure(
        "what callers notice of each failure", drive, other_topics=other_topics, fails_none=False
    )


__all__ = ["FAILURES", "failures", "name_of"]
