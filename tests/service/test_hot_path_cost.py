"""How many Python calls a task of a batch costs: a longer path fails here, on any machine.

The bounds are what was measured, and a little more. The time of a call differs between machines
and between runs; their number does not. docs/PERFORMANCE.md has the times.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

import ddq
from ddq.access import Caller, Guard, rule_of
from ddq.client import Client, NewTask, convert
from ddq.entropy import SystemClock, SystemEntropy
from ddq.server import wire
from ddq.server.new_tasks import TaskReader
from ddq.server.service import QueueService
from ddq.store.job_values import Leased
from ddq.store.jobstore import JobStore
from ddq.store.runner import Call, ScriptReply
from ddq.task import Durability, Receipt, RetryPolicy, Task, TaskState, Topic, TopicSettings
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.support.access import AccessFile, bearer

COUNT = 100
RECEIPT = Receipt(Durability.FAST, 0, b"lineage!", 1_700_000_000_000, 5)
TOPIC = Topic("mail", b"u" * 16, 1, 1, TopicSettings(), 0)
CALL = Call(deadline_s=1e12, not_after_ms=1)


class Topics:
    async def find_or_create(self, _name: str, _call: Call) -> tuple[Topic, bool]:
        return TOPIC, False

    async def require(self, _name: str, _call: Call) -> Topic:
        return TOPIC


class Scripts:
    """Answers each item of a script as done."""

    async def run(
        self, topic: Topic, _index: int, script: str, args: Any, _call: Call
    ) -> ScriptReply:
        args(topic)
        done: Sequence[Any] = {"enqueue": (b"CREATED", 1, 1, 1, 9_000), "ack": (b"OK", 4)}[script]
        return ScriptReply([[done] * COUNT], RECEIPT)


@pytest.fixture
def service() -> QueueService:
    made = QueueService.__new__(QueueService)
    entropy = SystemEntropy()
    made._jobs = JobStore(cast("Any", Topics()), cast("Any", Scripts()), entropy)
    made._read = TaskReader(SystemClock(), entropy)
    return made


def enqueued_items() -> list[pb.BatchEnqueueItem]:
    due_time = Timestamp(seconds=1_700_000_000, nanos=5_000_000)
    return [
        pb.BatchEnqueueItem(
            task=task_pb2.TaskSpec(id=f"t{n}", payload=b"x" * 256, due_time=due_time)
        )
        for n in range(COUNT)
    ]


_FOLDER = f"{Path(ddq.__file__).parent}/"


class Calls:
    """Counts the calls of ddq's functions in a block; others run too, such as hooks of a test."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _arg: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_FOLDER):
            self.count += 1

    @property
    def per_task(self) -> float:
        return self.count / COUNT


async def calls_of(work: Callable[[], Awaitable[Any]]) -> float:
    await work()  # what is remembered from the first time on is not part of the path
    with Calls() as calls:
        await work()
    return calls.per_task


async def test_a_server_enqueues_a_task_with_few_calls(service: QueueService) -> None:
    request = pb.BatchEnqueueRequest(topic="mail", items=enqueued_items())
    assert await calls_of(lambda: service.batch_enqueue(request, CALL)) <= 11


async def test_a_server_acks_a_task_with_few_calls(service: QueueService) -> None:
    items = [pb.BatchAckItem(id=f"t{n}", lease_token=b"t" * 16) for n in range(COUNT)]
    request = pb.BatchAckRequest(topic="mail", items=items)
    assert await calls_of(lambda: service.batch_ack(request, CALL)) <= 8


async def test_a_server_writes_a_lease_with_few_calls() -> None:
    task = Task(
        "mail", "t", TaskState.LEASED, 3, 1, 1, 1, 1, 5, 5,
        created_ms=5, lease_expiry_ms=9, retry_policy=RetryPolicy(), payload=b"x",
    )  # fmt: skip
    leases = [Leased(task, b"t" * 16, 9, RECEIPT)] * COUNT

    async def write() -> None:
        wire.put_leased_tasks(pb.RetrieveResponse().tasks, leases)

    assert await calls_of(write) <= 9


async def test_a_client_describes_a_task_with_few_calls() -> None:
    client = Client("127.0.0.1:1")
    task = NewTask(b"x" * 256, due=datetime(2030, 1, 1, tzinfo=UTC))

    async def describe() -> None:
        for _ in range(COUNT):
            client._enqueue_item("mail", task)

    assert await calls_of(describe) <= 12
    await client.close()


async def test_a_client_reads_results_and_leases_with_few_calls() -> None:
    result = pb.BatchEnqueueResult(receipt=wire.receipt(RECEIPT))
    result.result.id = "t"
    result.result.state = task_pb2.TASK_STATE_SCHEDULED
    wire.put_timestamp(result.result.due_time, 9_000)
    leased = pb.RetrieveResponse()
    task = Task(
        "mail", "t", TaskState.LEASED, 3, 1, 1, 1, 1, 5, 5,
        created_ms=5, lease_expiry_ms=9, retry_policy=RetryPolicy(), payload=b"x",
    )  # fmt: skip
    wire.put_leased_tasks(leased.tasks, [Leased(task, b"t" * 16, 9, RECEIPT)])

    async def read_results() -> None:
        for _ in range(COUNT):
            convert.enqueued(result.result, result.receipt)

    async def read_leases() -> None:
        for _ in range(COUNT):
            convert.lease(leased.tasks[0])

    assert await calls_of(read_results) <= 4
    assert await calls_of(read_leases) <= 3


class Context:
    """What the guard asks of gRPC."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        return self._metadata

    def auth_context(self) -> Any:
        return {}


def test_a_token_that_is_known_costs_a_call_little(tmp_path: Path) -> None:
    access = AccessFile(tmp_path)
    context = Context(("user-agent", "test"), *bearer(access.token("mail.*:read", "mail:produce")))
    guard = Guard(access.path)
    rule = rule_of("ddq.v1.DelayQueueService/Enqueue")
    request = pb.EnqueueRequest(topic="mail")

    def is_allowed() -> bool:
        caller = guard.caller(context)
        return isinstance(caller, Caller) and guard.refusal(rule, caller, request) is None

    assert is_allowed()
    with Calls() as calls:
        assert is_allowed()
    # None of them hashes: the first call has verified the token.
    assert calls.count <= 6
