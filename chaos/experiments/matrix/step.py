"""One step of the sweep: write, hurt, heal, and look what is left of what was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from chaos.clusters import Cluster, ClusterError, StoreNode
from chaos.clusters.process import ShardedCluster
from chaos.clusters.resp import ReplyError, as_list, as_text
from chaos.experiments.deployment import Deployment
from chaos.faults.nemesis import FaultEvent, FaultPhase, Schedule, play
from ddq.client import Client, Durability, TopicSettings
from ddq.errors import DdqError

WRITERS = 16
WRITE_TIMEOUT_S = 3.0
LATER = timedelta(hours=1)
BEFORE_S, AFTER_S = 0.7, 1.0
SYNC_TIMEOUT_S = 90.0
_POLL_S = 0.02


class StepResult(msgspec.Struct):
    """What one step has shown.

    Attributes:
        happened: every fault of it was seen to; else it counts for nothing.
        outage_s: the longest time without an acknowledgement.
        back_s: from a new master's election to the first acknowledgement; None: no failover.
        lost: acknowledged, and not in the surviving store.
        refused: errors that say "it did not happen", by reason.
    """

    row: str
    mode: str
    rule: bool
    number: int
    of: int
    happened: bool
    acked: int = 0
    unknown: int = 0
    lost: int = 0
    outage_s: float = 0.0
    back_s: float | None = None
    refused: dict[str, int] = {}
    did_not_happen: list[str] = []
    problem: str = ""

    @property
    def key(self) -> tuple[str, str, bool, int, int]:
        """Names it among all."""
        return (self.row, self.mode, self.rule, self.number, self.of)


@dataclass(slots=True)
class _Written:
    acked_s: dict[str, float] = field(default_factory=dict)
    unknown: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Told:
    failed: list[str] = field(default_factory=list)

    def tell(self, event: FaultEvent) -> None:
        if event.phase in {FaultPhase.NOT_AVAILABLE, FaultPhase.DID_NOT_HAPPEN}:
            self.failed.append(f"{event.step.kind} {event.step.target}: {event.evidence['why']}")


async def measure(
    deployment: Deployment,
    clients: Sequence[Client],
    schedule: Schedule,
    topic: str,
    mode: Durability,
) -> StepResult:
    """Plays one schedule under writes; returns what was seen, without the names.

    Raises:
        ClusterError: the cluster did not recover.
    """
    await deployment.cluster.wait_until_in_sync(SYNC_TIMEOUT_S)
    await clients[0].create_topic(topic, settings=TopicSettings(durability=mode), timeout_s=20.0)
    written, told = _Written(), _Told()
    old = await deployment.cluster.master()
    began_s = time.monotonic()
    async with _writing(clients, topic, written), _electing(deployment.cluster, old) as elected_s:
        await asyncio.sleep(BEFORE_S)
        await play(schedule, deployment.context, told.tell)
        await deployment.cluster.wait_until_in_sync(SYNC_TIMEOUT_S)
        await asyncio.sleep(AFTER_S)
        ended_s = time.monotonic()
    held = await _held(deployment.cluster, topic)
    lost = sum(task_id not in held for task_id in written.acked_s)
    if lost:
        # It has noticed, and takes nothing more until an operator says so: the next step would
        # measure that.
        await deployment.system.accept_rollback()
    times = sorted([began_s, *written.acked_s.values(), ended_s])
    first_s = next((at for at in times[1:-1] if elected_s and at > elected_s[0]), None)
    return StepResult(
        "", "", True, 0, 0,
            happened=not told.failed,
            acked=len(written.acked_s),
            unknown=written.unknown,
            lost=lost,
            outage_s=round(max(b - a for a, b in itertools.pairwise(times)), 3),
            back_s=round(first_s - elected_s[0], 3) if elected_s and first_s else None,
        refused=dict(written.refused),
        did_not_happen=told.failed,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def _writing(clients: Sequence[Client], topic: str, written: _Written) -> AsyncIterator[None]:
    """Writers, each on one of the APIs, until the block ends."""
    stopping = asyncio.Event()

    async def write(number: int) -> None:
        client, count = clients[number % len(clients)], 0
        while not stopping.is_set():
            count += 1
            task_id = f"{number}-{count}"
            try:
                await client.enqueue(topic, task_id=task_id, delay=LATER, timeout_s=WRITE_TIMEOUT_S)
            except DdqError as error:
                if error.definite:
                    written.refused[error.reason] += 1
                    # Else a refusing server is all that this step would measure.
                    await asyncio.sleep(_POLL_S)
                else:
                    written.unknown += 1
            else:
                written.acked_s[task_id] = time.monotonic()

    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(write(number), name=f"sweep writer {number}")
        try:
            yield
        finally:
            stopping.set()


@contextlib.asynccontextmanager
async def _electing(cluster: Cluster, old: StoreNode) -> AsyncIterator[list[float]]:
    """When another master than this one was first named by a majority; empty if never."""
    seen: list[float] = []

    async def look() -> None:
        while not seen:
            with contextlib.suppress(ClusterError, OSError, ReplyError):
                if await cluster.master() != old:
                    seen.append(time.monotonic())
            await asyncio.sleep(_POLL_S)

    task = asyncio.create_task(look(), name="sweep election")
    try:
        yield seen
    finally:
        task.cancel()


async def _held(cluster: Cluster, topic: str) -> set[str]:
    """Ids of the tasks that the surviving master holds, read from its own key."""
    key = f"ddq:payloads:{{{topic}}}"
    if isinstance(cluster, ShardedCluster):
        master = await cluster.owner(cluster.slot_of(key))
    else:
        master = await cluster.wait_for_master()
    reply = await cluster.command(master, "HKEYS", key, timeout_s=10.0)
    return {as_text(word) for word in as_list(reply)}
