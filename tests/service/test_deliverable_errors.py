"""Every answer reaches its client, whatever the request has in it.

The client is gRPC's own with its own bounds: 8 KiB of trailers, 4 MiB of a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from ddq.server.validation import VIOLATIONS_MAX_COUNT
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.support.rpc import Producer, failure_in, failure_of, seconds
from tests.support.server import RunningServer

HOSTILE = {
    "long": "a" * 300,
    "accents": "\u00e9" * 300,
    "control": "\x00" * 200,
    "astral": "\U0010ffff" * 80,
    "percent": "%" * 300,
}
"""Each as an id: too long, or not to be shown as it is."""
COUNT = 1_000


def ids(text: str) -> list[str]:
    """A thousand ids that cannot be used."""
    return [f"{text}{number}" for number in range(COUNT)]


TOKEN = b"short"

Build = Callable[[str], Any]

REQUESTS: dict[str, Build] = {
    "BatchAck": lambda text: pb.BatchAckRequest(
        topic=text, items=[pb.BatchAckItem(id=i, lease_token=TOKEN) for i in ids(text)]
    ),
    "BatchNack": lambda text: pb.BatchNackRequest(
        topic=text, items=[pb.BatchNackItem(id=i, lease_token=TOKEN) for i in ids(text)]
    ),
    "BatchExtend": lambda text: pb.BatchExtendRequest(
        topic=text, items=[pb.BatchExtendItem(id=i, lease_token=TOKEN) for i in ids(text)]
    ),
    "BatchRelease": lambda text: pb.BatchReleaseRequest(
        topic=text, items=[pb.BatchReleaseItem(id=i, lease_token=TOKEN) for i in ids(text)]
    ),
    "BatchSnooze": lambda text: pb.BatchSnoozeRequest(
        topic=text, items=[pb.BatchSnoozeItem(id=i, lease_token=TOKEN) for i in ids(text)]
    ),
    "BatchCancel": lambda text: pb.BatchCancelRequest(
        topic=text, items=[pb.BatchCancelItem(id=i) for i in ids(text)], request_id=text
    ),
    "BatchEnqueue": lambda text: pb.BatchEnqueueRequest(
        topic=text,
        items=[pb.BatchEnqueueItem(task=task_pb2.TaskSpec(id=i)) for i in ids(text)],
    ),
    "Retrieve": lambda text: pb.RetrieveRequest(topics=ids(text)),
    "Cancel": lambda text: pb.CancelRequest(topic=text * 1_000, id=text * 1_000),
    "Enqueue": lambda text: pb.EnqueueRequest(
        topic=text,
        task=task_pb2.TaskSpec(id=text * 1_000, headers={i: i for i in ids(text)}),
        on_conflict=99,  # type: ignore[arg-type]
    ),
    "ListTasks": lambda text: pb.ListTasksRequest(topic=text, state=77, page_token=text * 99),  # type: ignore[arg-type]
    "RedriveDeadTasks": lambda text: admin_pb.RedriveDeadTasksRequest(topic=text, ids=ids(text)),
    "UpdateTopic": lambda text: admin_pb.UpdateTopicRequest(
        name="jobs", update_mask=FieldMask(paths=ids(text))
    ),
    "CreateTopic": lambda text: admin_pb.CreateTopicRequest(name=text * 1_000),
}


def test_every_batch_is_among_them() -> None:
    service = pb.DESCRIPTOR.services_by_name["DelayQueueService"]
    batches = {method.name for method in service.methods if method.name.startswith("Batch")}
    assert batches <= REQUESTS.keys()


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_request_full_of_bad_fields_gets_its_error(
    server: RunningServer, kind: str
) -> None:
    text = HOSTILE[kind]
    for name, build in REQUESTS.items():
        stub: Any = server.queue if hasattr(server.queue, name) else server.admin
        failure = await failure_of(getattr(stub, name)(build(text)))
        assert (failure.code, failure.reason) == ("INVALID_ARGUMENT",) * 2, name
        assert 1 <= len(failure.fields) <= VIOLATIONS_MAX_COUNT, name
        assert len(failure.message.encode()) <= 512, name


async def test_a_batch_whose_items_all_fail_gets_an_answer_for_each(server: RunningServer) -> None:
    """In the reply itself, not in its trailers."""
    await Producer(server.queue).add("there")
    bad = task_pb2.TaskSpec(
        id="",
        headers={f"{number}{'h' * 200}": "" for number in range(5)},
        retry_policy=task_pb2.RetryPolicy(
            max_attempts=10**6, multiplier=1e9, jitter=7, max_backoff=seconds(1e8)
        ),
        delay=seconds(1e9),
    )
    items = []
    for number in range(COUNT):
        bad.id = f"{'i' * 300}{number}"
        items.append(pb.BatchEnqueueItem(task=bad, on_conflict=99))  # type: ignore[arg-type]
    reply = await server.queue.BatchEnqueue(pb.BatchEnqueueRequest(topic="jobs", items=items))
    assert {failure_in(result.status).reason for result in reply.results} == {"INVALID_ARGUMENT"}
    unknown = ids("\u00e9" * 120)
    acks = [pb.BatchAckItem(id=i, lease_token=bytes(16)) for i in unknown]
    acked = await server.queue.BatchAck(pb.BatchAckRequest(topic="jobs", items=acks))
    assert {failure_in(result.status).reason for result in acked.results} == {"TASK_NOT_FOUND"}


@pytest.mark.parametrize("count", [3_000, 100_000])
async def test_more_items_than_may_be_are_not_looked_at(server: RunningServer, count: int) -> None:
    """A message holds two million empty strings; looking at each would take seconds."""
    await Producer(server.queue).add("there")
    empty = [""] * count
    for name, request, field in (
        ("Retrieve", pb.RetrieveRequest(topics=empty), "topics"),
        ("RedriveDeadTasks", admin_pb.RedriveDeadTasksRequest(topic="jobs", ids=empty), "ids"),
        (
            "UpdateTopic",
            admin_pb.UpdateTopicRequest(name="jobs", update_mask=FieldMask(paths=empty)),
            "update_mask",
        ),
        (
            "BatchAck",
            pb.BatchAckRequest(topic="jobs", items=[pb.BatchAckItem()] * count),
            "items",
        ),
    ):
        stub: Any = server.queue if hasattr(server.queue, name) else server.admin
        failure = await failure_of(getattr(stub, name)(request))
        assert [each for each in failure.fields if each != "request_id"] == [field]


async def test_a_page_of_long_headers_and_errors_fits(server: RunningServer) -> None:
    """Without payloads too: headers alone may be 16 KiB, an error 2 KiB, and there is more."""
    await server.admin.CreateTopic(admin_pb.CreateTopicRequest(name="jobs", shards=4))
    headers = {f"{number:03}": "h" * 250 for number in range(60)}
    specs = [task_pb2.TaskSpec(id=f"{n:0200}", headers=headers) for n in range(400)]
    for start in range(0, len(specs), 100):
        items = [pb.BatchEnqueueItem(task=spec) for spec in specs[start : start + 100]]
        await server.queue.BatchEnqueue(pb.BatchEnqueueRequest(topic="jobs", items=items))
    dead = 0
    while dead < len(specs):
        request = pb.RetrieveRequest(topics=["jobs"], max_tasks=100, wait=seconds(20))
        tasks = (await server.queue.Retrieve(request)).tasks
        verdict = pb.NackVerdict(error="e" * 2_048, dead_letter=True)
        nacks = [
            pb.BatchNackItem(id=task.task.id, lease_token=task.lease_token, verdict=verdict)
            for task in tasks
        ]
        await server.queue.BatchNack(pb.BatchNackRequest(topic="jobs", items=nacks))
        dead += len(nacks)
    seen, token = 0, ""
    async with asyncio.timeout(60):
        while seen < len(specs):
            page = await server.queue.ListTasks(
                pb.ListTasksRequest(
                    topic="jobs",
                    state=task_pb2.TASK_STATE_DEAD,
                    page_size=1_000,
                    page_token=token,
                )
            )
            assert page.ByteSize() < 4 * 1024 * 1024
            seen, token = seen + len(page.tasks), page.next_page_token
    assert seen == len(specs)
