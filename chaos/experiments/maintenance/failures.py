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
from chaos.experiments.maintenance.story import Stage, Story
from chaos.faults import Mode
from ddq.client import Client, Durability, TopicSettings
from ddq.errors import DdqError

HOLD_S = 5.0
SHORT_S = 1.0
_PAUSE_S = 0.02
_TIMEOUT_S = 0.5
_REST_S = 2.0

Failure = Callable[[Stage], Awaitable[None]]


async def _down(stage: Stage, nodes: list[StoreNode], hold_s: float = HOLD_S) -> None:
    for node in nodes:
        await stage.sentinel.kill(node)
    await asyncio.sleep(hold_s)
    for node in nodes:
        await stage.sentinel.restart(node)


async def _master(stage: Stage) -> StoreNode:
    return await stage.sentinel.wait_for_master()


async def _replicas(stage: Stage) -> list[StoreNode]:
    master = await _master(stage)
    return [node for node in stage.sentinel.data if node != master]


async def _paused(stage: Stage, hold_s: float) -> None:
    master = await _master(stage)
    await stage.sentinel.pause(master)
    try:
        await asyncio.sleep(hold_s)
    finally:
        await stage.sentinel.resume(master)


async def an_api_dies(stage: Stage) -> None:
    api = stage.deployment.system.apis[0]
    await api.kill()
    await asyncio.sleep(HOLD_S)
    await api.restart()


async def a_scheduler_dies(stage: Stage) -> None:
    leader = await stage.deployment.system.leader()
    await leader.kill()
    await asyncio.sleep(HOLD_S)
    await leader.restart()


async def a_replica_dies(stage: Stage) -> None:
    await _down(stage, (await _replicas(stage))[:1])


async def both_replicas_die(stage: Stage) -> None:
    await _down(stage, await _replicas(stage))


async def a_sentinel_dies(stage: Stage) -> None:
    await _down(stage, stage.sentinel.sentinels[:1])


async def a_majority_of_sentinels_dies(stage: Stage) -> None:
    await _down(stage, stage.sentinel.sentinels[:2])


async def the_master_dies(stage: Stage) -> None:
    await _down(stage, [await _master(stage)])


async def the_master_is_paused_shortly(stage: Stage) -> None:
    await _paused(stage, SHORT_S)


async def the_master_is_paused_for_long(stage: Stage) -> None:
    await _paused(stage, 2 * HOLD_S)


async def the_master_dies_without_a_majority_of_sentinels(stage: Stage) -> None:
    await _down(stage, [*stage.sentinel.sentinels[:2], await _master(stage)])


async def all_data_nodes_die(stage: Stage) -> None:
    await _down(stage, list(stage.sentinel.data))


FAILURES: tuple[Failure, ...] = (
    an_api_dies, a_scheduler_dies, a_replica_dies, both_replicas_die, a_sentinel_dies,
    a_majority_of_sentinels_dies, the_master_is_paused_shortly, the_master_is_paused_for_long,
    the_master_dies, the_master_dies_without_a_majority_of_sentinels, all_data_nodes_die,
)  # fmt: skip


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
        settings = TopicSettings(durability=Durability[self.mode.value.upper()])
        topic = topic_of(self.mode)
        await self.client.create_topic(topic, settings=settings, timeout_s=30.0)
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
    def told(self) -> str:
        """For a cell."""
        most = [f"`{reason}`" for reason, _ in self.reasons.most_common(2)]
        return ", ".join([f"{self.longest_s:.1f} s", *most])


def failures(rows: list[str], only: Sequence[str] = ()) -> Story:
    """Goes through them, all or those that are named, and adds a row for each, in Markdown."""
    chosen = [each for each in FAILURES if not only or name_of(each) in only]
    rows += [f"| failure | {' | '.join(mode.name for mode in Mode)} |", "|---" * 4 + "|"]

    async def recipe(stage: Stage) -> None:
        callers = [Caller(mode, stage.client) for mode in Mode]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(caller.run(), name=f"chaos caller {caller.mode}")
                for caller in callers
            ]
            for failure in chosen:
                name = name_of(failure)
                await stage.check_health()
                await asyncio.sleep(_REST_S)
                for caller in callers:
                    caller.begin()
                async with stage.step("failure", name):
                    await failure(stage)
                    await stage.check_health()
                await asyncio.sleep(_REST_S)
                rows.append(f"| {name} | {' | '.join(caller.told for caller in callers)} |")
            for task in tasks:
                task.cancel()

    beside = tuple(topic_of(mode) for mode in Mode)
    return Story("what callers notice of each failure", recipe, beside=beside, fails_none=False)


__all__ = ["FAILURES", "failures", "name_of"]
