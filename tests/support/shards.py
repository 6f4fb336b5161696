"""Topics and shards in memory, in virtual time, for tests of what one call does over several.

Each shard behaves as a test says: it answers, hangs, is away, or its slot is being moved.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum, auto
from types import SimpleNamespace
from typing import Any, TypeVar

from ddq.config import Settings
from ddq.entropy import SystemEntropy
from ddq.errors import DdqError, StoreUnreachable, TopicNotFound, WriteOutcomeUnknown
from ddq.server.notifier import ReadyNotifier
from ddq.server.service import QueueService
from ddq.store.job_values import Leased
from ddq.store.keys import ShardId
from ddq.store.router import SlotMovingError
from ddq.store.runner import Call
from ddq.store.topology import Node
from ddq.task import Durability, Receipt, RetryPolicy, Task, TaskState, Topic, TopicSettings
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.support.hints import NoHints
from tests.support.rpc import seconds

T = TypeVar("T")


class Mode(StrEnum):
    """How a shard behaves.

    AWAY: nothing is sent until the deadline. HANGING: it was sent, and no answer comes. MOVING: its
    slot is on its way, and a caller may wait for it. LOST: the connection breaks after the send.
    """

    WELL = auto()
    AWAY = auto()
    HANGING = auto()
    MOVING = auto()
    LOST = auto()


@dataclass
class FakeShard:
    """Ready tasks, and leases by request_id.

    Attributes:
        error: of every call; with ``errors_left_count`` only of so many.
    """

    mode: Mode = Mode.WELL
    error: DdqError | None = None
    errors_left_count: int | None = None
    ready: list[str] = field(default_factory=list)
    records: dict[str, list[Leased]] = field(default_factory=dict)

    async def wait_as_its_mode_says(self, call: Call) -> None:
        """Returns if the shard answers, else raises as the store's router does."""
        if self.error is not None and self.errors_left_count != 0:
            if self.errors_left_count is not None:
                self.errors_left_count -= 1
            raise self.error
        if self.mode is Mode.LOST:
            raise WriteOutcomeUnknown("the connection was reset")
        if self.mode is Mode.MOVING and not getattr(call, "waits_for_slot", True):
            raise SlotMovingError("its slot is being moved")
        if self.mode is not Mode.WELL:
            await asyncio.sleep(max(0.0, call.deadline_s - asyncio.get_running_loop().time()))
            kind = WriteOutcomeUnknown if self.mode is Mode.HANGING else StoreUnreachable
            raise kind(f"the shard is {self.mode}")


class FakeShards:
    """The parts of a store that Retrieve needs, and a service in front of them.

    Attributes:
        nodes: the node of each shard; one of its own, unless a test says otherwise.
        latency_s: how long a question takes to a shard.
        late_s: how long the answer takes back.
    """

    def __init__(self, **shards_counts: int) -> None:
        self.topics = {
            name: Topic(name, bytes(16), 1, count, TopicSettings(), 0)
            for name, count in shards_counts.items()
        }
        self.shards = {
            ShardId(name, index): FakeShard()
            for name, count in shards_counts.items()
            for index in range(count)
        }
        self.registry = FakeShard()
        self.nodes = {shard: Node(shard.tag, 6379) for shard in self.shards}
        self.latency_s = 0.0
        self.late_s = 0.0
        self.asked: Counter[ShardId] = Counter()
        self.notifier = ReadyNotifier(NoHints())
        store: Any = SimpleNamespace(
            topics=SimpleNamespace(find=self._find, load=self._load),
            jobs=SimpleNamespace(retrieve=self._retrieve),
            clock=None,
            router=SimpleNamespace(topology=SimpleNamespace(known_node=self._known_node)),
            settings=Settings(),
            entropy=SystemEntropy(),
        )
        self.service = QueueService(store, self.notifier)

    def _known_node(self, key: str) -> Node | None:
        return next(node for shard, node in self.nodes.items() if shard.key("control") == key)

    async def _find(self, name: str, call: Call) -> Topic | None:
        return self.topics[name] if name in self.topics else await self._load(name, call)

    async def _load(self, name: str, call: Call) -> Topic | None:
        await self.registry.wait_as_its_mode_says(call)
        return self.topics.get(name)

    async def _retrieve(
        self,
        topic: Topic,
        index: int,
        *,
        max_tasks: int,
        call: Call,
        recall_only: bool = False,
        **_: Any,
    ) -> tuple[list[Leased], bool, int]:
        if topic.name not in self.topics:
            raise TopicNotFound(f"topic {topic.name!r} does not exist")
        shard = self.shards[ShardId(topic.name, index)]
        self.asked[ShardId(topic.name, index)] += 1
        await shard.wait_as_its_mode_says(call)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if call.request_id in shard.records:
            return shard.records[call.request_id], True, 0
        count = 0 if recall_only else max_tasks
        taken, shard.ready = shard.ready[:count], shard.ready[count:]
        leases = [self._lease(topic.name, task_id) for task_id in taken]
        if leases and call.request_id:
            shard.records[call.request_id] = leases
        ready_count = len(shard.ready)
        if self.late_s:
            await asyncio.sleep(self.late_s)
        return leases, False, ready_count

    @staticmethod
    def _lease(topic: str, task_id: str) -> Leased:
        task = Task(
            topic, task_id, TaskState.LEASED, 1, 1, 1, 1, 1, 0, 0,
            retry_policy=RetryPolicy(), payload=b"",
        )  # fmt: skip
        receipt = Receipt(Durability.QUORUM, 2, b"lineage!", 0, 1)
        return Leased(task, b"t" * 16, 10_000, receipt)

    def make_ready(self, shard: ShardId, *task_ids: str) -> None:
        """Tasks become ready, and the hint of it arrives."""
        self.shards[shard].ready += task_ids
        self.notifier.notify(shard, len(task_ids))

    async def take(
        self,
        *topics: str,
        wait_s: float = 0.0,
        deadline_s: float = 12.0,
        request_id: str = "",
        count: int = 1,
    ) -> tuple[list[str], float]:
        """One Retrieve: the ids that it leased, and how long it took."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        request = pb.RetrieveRequest(
            topics=topics, max_tasks=count, wait=seconds(wait_s), request_id=request_id
        )
        reply = await self.service.retrieve(request, Call(began_s + deadline_s, 0, request_id))
        return [lease.task.id for lease in reply.tasks], loop.time() - began_s

    async def close(self) -> None:
        """Ends what the service does in the background."""
        close = getattr(self.service, "close", None)
        if close is not None:
            await close()
