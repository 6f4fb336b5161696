"""One step of the durability matrix: write, play a fault, heal, and count what was lost."""

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
from chaos.clusters.resp import ReplyError
from chaos.eventually import eventually
from chaos.experiments.deployment import Deployment
from chaos.experiments.lifecycle import Driver, Timing, run_lifecycle
from chaos.experiments.topics import create_topic
from chaos.faults import Mode
from chaos.faults.nemesis import FaultEvent, FaultPhase, Schedule, play
from ddq.client import Client
from ddq.errors import DdqError

WRITERS = 16
WRITE_TIMEOUT_S = 3.0
FAR_DELAY = timedelta(hours=1)
TIMING = Timing(before_s=0.7, after_s=1.0)
SYNC_TIMEOUT_S = 90.0
_CREATE_TIMEOUT_S = 20.0
_POLL_S = 0.02


class StepResult(msgspec.Struct):
    """What one step has shown.

    Attributes:
        happened: every fault of it was verified; else it counts for nothing.
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


class StepSession:
    """The session of a step: writers that count acknowledgements, without a history.

    Args:
        clients: each on one API, so that an API that does not answer shows as an outage.
        topic: created for this step; of one shard.

    Attributes:
        did_not_happen: a line for each fault that was not verified.
    """

    def __init__(
        self, deployment: Deployment, clients: Sequence[Client], topic: str, mode: Mode
    ) -> None:
        self.deployment = deployment
        self.did_not_happen: list[str] = []
        self._clients = clients
        self._topic = topic
        self._mode = mode
        self._written = _Written()
        self._elected_s: list[float] = []
        self._began_s = self._ended_s = 0.0
        self._lost = 0

    def enter(self, phase: str) -> None:
        """A step shows no phases."""

    async def start(self) -> None:
        """The store in sync, and a topic for this step."""
        await self.deployment.cluster.wait_until_in_sync(SYNC_TIMEOUT_S)
        await create_topic(self._clients[0], self._topic, self._mode, timeout_s=_CREATE_TIMEOUT_S)

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Writers at work; the election of a new master is timed."""
        old = await self.deployment.cluster.master()
        self._began_s = time.monotonic()
        async with (
            _writing(self._clients, self._topic, self._written),
            _timing_election(self.deployment.cluster, old, self._elected_s),
        ):
            yield

    @contextlib.asynccontextmanager
    async def fault_windows(self) -> AsyncIterator[None]:
        """The writers themselves show when writes are acknowledged again."""
        yield

    async def heal(self) -> None:
        """See ``fault_windows``."""

    def record(self, event: FaultEvent) -> None:
        """An event of the nemesis."""
        if event.phase in {FaultPhase.NOT_AVAILABLE, FaultPhase.DID_NOT_HAPPEN}:
            step = event.step
            self.did_not_happen.append(f"{step.kind} {step.target}: {event.evidence['why']}")

    async def settle(self) -> None:
        """The store in sync; ClusterError if not in time."""
        await self.deployment.cluster.wait_until_in_sync(SYNC_TIMEOUT_S)

    async def drain(self) -> None:
        """Nothing is drained: every task is due far later."""
        self._ended_s = time.monotonic()

    async def collect(self) -> None:
        """Counts what was acknowledged and is not in the surviving store."""
        held = await self.deployment.system.stored_ids(self._topic)
        self._lost = sum(task_id not in held for task_id in self._written.acked_s)
        if self._lost:
            # ddq has detected the rollback and refuses writes until an operator accepts it: the
            # next step would measure that.
            await self.deployment.system.accept_rollback()

    @property
    def result(self) -> StepResult:
        """What was seen, without the names of row and step."""
        written, elected_s = self._written, self._elected_s
        times = sorted([self._began_s, *written.acked_s.values(), self._ended_s])
        first_s = next((at for at in times[1:-1] if elected_s and at > elected_s[0]), None)
        return StepResult(
            "",
            "",
            True,
            0,
            0,
            happened=not self.did_not_happen,
            acked=len(written.acked_s),
            unknown=written.unknown,
            lost=self._lost,
            outage_s=round(max(b - a for a, b in itertools.pairwise(times)), 3),
            back_s=round(first_s - elected_s[0], 3) if elected_s and first_s else None,
            refused=dict(written.refused),
            did_not_happen=self.did_not_happen,
        )


async def measure(
    deployment: Deployment, clients: Sequence[Client], schedule: Schedule, topic: str, mode: Mode
) -> StepResult:
    """Plays one schedule under writes; returns what was seen, without the names.

    Raises:
        ClusterError: the cluster did not recover.
    """
    session = StepSession(deployment, clients, topic, mode)
    await run_lifecycle(session, _nemesis(schedule), TIMING)
    return session.result


def _nemesis(schedule: Schedule) -> Driver[StepSession]:
    async def drive(session: StepSession) -> None:
        await play(schedule, session.deployment.context, session.record)

    return drive


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
                await client.enqueue(
                    topic, task_id=task_id, delay=FAR_DELAY, timeout_s=WRITE_TIMEOUT_S
                )
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
            group.create_task(write(number), name=f"matrix writer {number}")
        try:
            yield
        finally:
            stopping.set()


@contextlib.asynccontextmanager
async def _timing_election(
    cluster: Cluster, old: StoreNode, elected_s: list[float]
) -> AsyncIterator[None]:
    """Adds when another master than this one was first named by a majority; nothing if never."""

    async def changed() -> bool:
        return await cluster.master() != old

    async def watch() -> None:
        await eventually(
            changed, None, ignoring=(ClusterError, OSError, ReplyError), poll_s=_POLL_S
        )
        elected_s.append(time.monotonic())

    task = asyncio.create_task(watch(), name="matrix election")
    try:
        yield
    finally:
        task.cancel()
