"""Every bounded field, at its bound and one beyond; and every violation is named at once.

The table is held against ddq.config.LIMITS: a limit without a row is a failure.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from ddq.config import LIMITS, UNLIMITED_ATTEMPTS, Settings, retention_min_ms
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2, topic_pb2
from tests.support.rpc import (
    DEADLINE_S,
    Failure,
    failure_from,
    failure_in,
    failure_of,
    moment,
    seconds,
)
from tests.support.server import RunningServer

TOKEN = bytes(16)


def ms(value: int, nanos: int = 0) -> Duration:
    return Duration(seconds=value // 1_000, nanos=value % 1_000 * 1_000_000 + nanos)


def method(server: RunningServer, request: Any) -> Any:
    """The RPC that takes this message."""
    name = type(request).__name__.removesuffix("Request")
    return getattr(server.admin if hasattr(server.admin, name) else server.queue, name)


async def send(server: RunningServer, request: Any) -> Failure | None:
    """How the request failed; None if it was served."""
    try:
        await method(server, request)(request, timeout=DEADLINE_S)
    except grpc.aio.AioRpcError as error:
        return failure_from(error)
    return None


def plain(**values: Any) -> pb.EnqueueRequest:
    return pb.EnqueueRequest(**({"topic": "jobs"} | values))


def update(*paths: str) -> admin_pb.UpdateTopicRequest:
    return admin_pb.UpdateTopicRequest(name="jobs", update_mask=FieldMask(paths=paths))


def enqueue(topic: str = "jobs", **spec: Any) -> pb.EnqueueRequest:
    return pb.EnqueueRequest(topic=topic, task=task_pb2.TaskSpec(**spec))


def policy(**values: Any) -> pb.EnqueueRequest:
    return enqueue(retry_policy=task_pb2.RetryPolicy(**values))


def settings(**values: Any) -> admin_pb.CreateTopicRequest:
    return admin_pb.CreateTopicRequest(name="made", settings=topic_pb2.TopicSettings(**values))


def retrieve(**values: Any) -> pb.RetrieveRequest:
    return pb.RetrieveRequest(**({"topics": ["jobs"]} | values))


def listing(**values: Any) -> pb.ListTasksRequest:
    defaults: dict[str, Any] = {"topic": "jobs", "state": task_pb2.TASK_STATE_READY}
    return pb.ListTasksRequest(**(defaults | values))


def batch(payloads: list[bytes]) -> pb.BatchEnqueueRequest:
    items = [pb.BatchEnqueueItem(task=task_pb2.TaskSpec(payload=payload)) for payload in payloads]
    return pb.BatchEnqueueRequest(topic="jobs", items=items)


def acks(count: int) -> pb.BatchAckRequest:
    items = [pb.BatchAckItem(id=f"t{i}", lease_token=TOKEN) for i in range(count)]
    return pb.BatchAckRequest(topic="jobs", items=items)


def ack(token: bytes) -> pb.AckRequest:
    return pb.AckRequest(topic="jobs", id="a", lease_token=token)


def snooze(delay: Duration) -> pb.SnoozeRequest:
    return pb.SnoozeRequest(topic="jobs", id="a", lease_token=bytes(16), delay=delay)


def debounced(limit: Duration, task_id: str = "a", **options: Any) -> pb.EnqueueRequest:
    chosen = {"request_id": "r", **options}
    return pb.EnqueueRequest(
        topic="jobs", task=task_pb2.TaskSpec(id=task_id), on_conflict=pb.ON_CONFLICT_DEBOUNCE,
        debounce_limit=limit, **chosen,
    )  # fmt: skip


def again(**following: Any) -> pb.RunAgainRequest:
    return pb.RunAgainRequest(
        topic="jobs", id="a", lease_token=bytes(16), next=pb.NextRun(**following)
    )


def nack_delay(value: Duration) -> pb.NackRequest:
    verdict = pb.NackVerdict(delay=value)
    return pb.NackRequest(topic="jobs", id="a", lease_token=TOKEN, verdict=verdict)


def headers(count: int) -> dict[str, str]:
    return {f"{i}": "" for i in range(count)}


def redrive(count: int) -> admin_pb.RedriveDeadTasksRequest:
    ids = [f"t{i}" for i in range(count)]
    return admin_pb.RedriveDeadTasksRequest(topic="jobs", ids=ids, request_id="r")


def twice() -> pb.BatchAckRequest:
    request = acks(1)
    request.items.append(request.items[0])
    return request


@dataclass(frozen=True)
class Bound:
    """A field with a bound.

    Attributes:
        limit: of LIMITS; empty for bounds that are none of them.
        field: as the BadRequest names it.
        at: a request at the bound.
        beyond: one beyond it.
    """

    limit: str
    field: str
    at: Callable[[], Any]
    beyond: Callable[[], Any]


L = LIMITS
RETENTION_MIN_MS = retention_min_ms(Settings())
BOUNDS = (
    Bound("topic_name_max_chars", "topic", lambda: enqueue("t" * 128), lambda: enqueue("t" * 129)),
    Bound("", "topic", lambda: enqueue("A-z_.9"), lambda: enqueue("")),
    Bound("", "topic", lambda: enqueue("a"), lambda: enqueue("a{b}")),
    Bound("", "topic", lambda: enqueue("a.b"), lambda: enqueue("a:b")),
    Bound("", "topic", lambda: enqueue("e"), lambda: enqueue("é")),
    Bound("", "topic", lambda: enqueue("e"), lambda: enqueue("e\n")),
    Bound("task_id_max_bytes", "task.id", lambda: enqueue(id="é" * 128),
          lambda: enqueue(id="é" * 128 + "x")),
    Bound("", "task.id", lambda: enqueue(id=" :{}\U0001f600"), lambda: enqueue(id="a\x00b")),
    Bound("", "task.id", lambda: enqueue(id="~"), lambda: enqueue(id="a\x7f")),
    Bound("request_id_max_bytes", "request_id", lambda: retrieve(request_id="é" * 32),
          lambda: retrieve(request_id="é" * 32 + "x")),
    Bound("payload_max_bytes", "task.payload", lambda: enqueue(payload=bytes(2**20)),
          lambda: enqueue(payload=bytes(2**20 + 1))),
    Bound("headers_max_count", "task.headers", lambda: enqueue(headers=headers(64)),
          lambda: enqueue(headers=headers(65))),
    Bound("header_key_max_bytes", "task.headers", lambda: enqueue(headers={"é" * 64: ""}),
          lambda: enqueue(headers={"é" * 64 + "x": ""})),
    Bound("", "task.headers", lambda: enqueue(headers={"k": ""}),
          lambda: enqueue(headers={"": "v"})),
    Bound("headers_max_bytes", "task.headers", lambda: enqueue(headers={"k": "v" * (2**14 - 1)}),
          lambda: enqueue(headers={"k": "v" * 2**14})),
    Bound("batch_max_items", "items", lambda: acks(1_000), lambda: acks(1_001)),
    Bound("", "items", lambda: acks(1), lambda: acks(0)),
    Bound("batch_max_bytes", "items", lambda: batch([bytes(2**20)] * 3),
          lambda: batch([bytes(2**20)] * 3 + [b"x"])),
    Bound("delay_max_ms", "task.delay", lambda: enqueue(delay=ms(L.delay_max_ms)),
          lambda: enqueue(delay=ms(L.delay_max_ms, nanos=1))),
    Bound("", "task.delay", lambda: enqueue(delay=Duration()),
          lambda: enqueue(delay=Duration(nanos=-1))),
    Bound("", "task.delay", lambda: enqueue(delay=Duration(nanos=999_999_999)),
          lambda: enqueue(delay=Duration(nanos=1_000_000_000))),
    Bound("", "task.delay", lambda: enqueue(delay=Duration(seconds=1, nanos=5)),
          lambda: enqueue(delay=Duration(seconds=1, nanos=-5))),
    Bound("", "task.due_time", lambda: enqueue(due_time=Timestamp(seconds=-5)),
          lambda: enqueue(due_time=Timestamp(seconds=253_402_300_800))),
    Bound("", "task.due_time", lambda: enqueue(due_time=moment(0)),
          lambda: enqueue(due_time=Timestamp(seconds=253_402_300_799))),
    Bound("", "task.due_time", lambda: enqueue(due_time=Timestamp(nanos=999_999_999)),
          lambda: enqueue(due_time=Timestamp(nanos=-1))),
    Bound("", "verdict.delay", lambda: nack_delay(ms(L.delay_max_ms)),
          lambda: nack_delay(ms(L.delay_max_ms + 1))),
    Bound("debounce_limit_min_ms", "debounce_limit", lambda: debounced(ms(1)),
          lambda: debounced(Duration())),
    Bound("", "debounce_limit", lambda: debounced(ms(L.delay_max_ms)),
          lambda: debounced(ms(L.delay_max_ms + 1))),
    Bound("", "debounce_limit", plain, lambda: plain(debounce_limit=ms(1))),
    Bound("", "task.id", lambda: debounced(ms(1)), lambda: debounced(ms(1), "")),
    Bound("", "request_id", lambda: debounced(ms(1)), lambda: debounced(ms(1), request_id="")),
    Bound("", "expected_revision", lambda: debounced(ms(1)),
          lambda: debounced(ms(1), expected_revision=0)),
    Bound("", "next.delay", lambda: again(delay=ms(L.delay_max_ms)),
          lambda: again(delay=ms(L.delay_max_ms + 1))),
    Bound("", "next.due_time", lambda: again(due_time=moment(0)),
          lambda: again(due_time=Timestamp(nanos=-1))),
    Bound("", "next.content.headers", lambda: again(content=pb.TaskContent(headers={"k": ""})),
          lambda: again(content=pb.TaskContent(headers={"": ""}))),
    Bound("retrieve_topics_max_count", "topics",
          lambda: retrieve(topics=[f"t{i}" for i in range(16)]),
          lambda: retrieve(topics=[f"t{i}" for i in range(17)])),
    Bound("", "topics", lambda: retrieve(topics=["a"]), lambda: retrieve(topics=[])),
    Bound("", "topics[1]", lambda: retrieve(topics=["a", "b"]),
          lambda: retrieve(topics=["a", "b c"])),
    Bound("", "topics[1]", lambda: retrieve(topics=["a", "b"]),
          lambda: retrieve(topics=["a", "a"])),
    Bound("retrieve_max_tasks", "max_tasks", lambda: retrieve(max_tasks=1_000),
          lambda: retrieve(max_tasks=1_001)),
    Bound("retrieve_max_bytes", "max_bytes", lambda: retrieve(max_bytes=3 * 2**20),
          lambda: retrieve(max_bytes=3 * 2**20 + 1)),
    Bound("", "wait", lambda: retrieve(wait=ms(0)), lambda: retrieve(wait=Duration(nanos=-1))),
    Bound("lease_min_ms", "lease_duration", lambda: retrieve(lease_duration=ms(100)),
          lambda: retrieve(lease_duration=ms(99))),
    Bound("lease_max_ms", "lease_duration", lambda: retrieve(lease_duration=ms(L.lease_max_ms)),
          lambda: retrieve(lease_duration=ms(L.lease_max_ms + 1))),
    Bound("lease_token_bytes", "lease_token", lambda: ack(bytes(16)), lambda: ack(bytes(17))),
    Bound("", "lease_token", lambda: ack(bytes(16)), lambda: ack(b"")),
    Bound("topic_uid_bytes", "uid",
          lambda: admin_pb.DeleteTopicRequest(name="gone", uid=bytes(16)),
          lambda: admin_pb.DeleteTopicRequest(name="gone", uid=bytes(15))),
    Bound("shards_max_count", "shards",
          lambda: admin_pb.CreateTopicRequest(name="made", shards=64),
          lambda: admin_pb.CreateTopicRequest(name="made", shards=65)),
    Bound("page_max_count", "page_size", lambda: listing(page_size=1_000),
          lambda: listing(page_size=1_001)),
    Bound("", "page_size", lambda: admin_pb.ListTopicsRequest(page_size=1_000),
          lambda: admin_pb.ListTopicsRequest(page_size=1_001)),
    Bound("", "page_size", lambda: admin_pb.ListDeadTasksRequest(topic="jobs", page_size=1_000),
          lambda: admin_pb.ListDeadTasksRequest(topic="jobs", page_size=1_001)),
    Bound("page_token_max_bytes", "page_token", lambda: listing(page_token=page_token(1_024)),
          lambda: listing(page_token=page_token(1_028))),
    Bound("", "page_token", listing, lambda: listing(page_token="!!!")),
    Bound("", "page_token", listing, lambda: listing(page_token=encode([0, 10**400, ""]))),
    Bound("", "page_token", listing, lambda: listing(page_token=encode([0, "nan", ""]))),
    Bound("", "page_token", listing, lambda: listing(page_token=encode([-1, "", ""]))),
    Bound("", "page_token", listing, lambda: listing(page_token=encode({"a": 1}))),
    Bound("", "page_token", listing, lambda: listing(page_token=encode([[]] * 3))),
    Bound("max_attempts_max_count", "task.retry_policy.max_attempts",
          lambda: policy(max_attempts=10_000), lambda: policy(max_attempts=10_001)),
    Bound("", "task.retry_policy.max_attempts", lambda: policy(max_attempts=UNLIMITED_ATTEMPTS),
          lambda: policy(max_attempts=UNLIMITED_ATTEMPTS - 1)),
    Bound("", "task.retry_policy.max_attempts", lambda: policy(max_attempts=1),
          lambda: policy(max_attempts=0)),
    Bound("snooze_min_ms", "delay", lambda: snooze(ms(1)), lambda: snooze(Duration())),
    Bound("", "delay", lambda: snooze(ms(L.delay_max_ms)),
          lambda: snooze(ms(L.delay_max_ms + 1))),
    Bound("initial_backoff_max_ms", "task.retry_policy.initial_backoff",
          lambda: policy(initial_backoff=ms(L.initial_backoff_max_ms)),
          lambda: policy(initial_backoff=ms(L.initial_backoff_max_ms + 1))),
    Bound("max_backoff_max_ms", "task.retry_policy.max_backoff",
          lambda: policy(max_backoff=ms(L.max_backoff_max_ms)),
          lambda: policy(max_backoff=ms(L.max_backoff_max_ms + 1))),
    Bound("", "task.retry_policy.max_backoff",
          lambda: policy(initial_backoff=ms(500), max_backoff=ms(500)),
          lambda: policy(initial_backoff=ms(500), max_backoff=ms(499))),
    Bound("multiplier_max", "task.retry_policy.multiplier", lambda: policy(multiplier=100.0),
          lambda: policy(multiplier=100.0001)),
    Bound("", "task.retry_policy.multiplier", lambda: policy(multiplier=1.0),
          lambda: policy(multiplier=0.999)),
    Bound("", "task.retry_policy.multiplier", lambda: policy(multiplier=1.0),
          lambda: policy(multiplier=float("nan"))),
    Bound("", "task.retry_policy.jitter", lambda: policy(jitter=1.0),
          lambda: policy(jitter=1.0001)),
    Bound("", "task.retry_policy.jitter", lambda: policy(jitter=0.0),
          lambda: policy(jitter=-0.1)),
    Bound("", "task.retry_policy.jitter", lambda: policy(jitter=0.0),
          lambda: policy(jitter=float("nan"))),
    Bound("tombstone_retention_max_ms", "settings.tombstone_retention",
          lambda: settings(tombstone_retention=ms(L.tombstone_retention_max_ms)),
          lambda: settings(tombstone_retention=ms(L.tombstone_retention_max_ms + 1))),
    Bound("", "settings.tombstone_retention",
          lambda: settings(tombstone_retention=ms(RETENTION_MIN_MS)),
          lambda: settings(tombstone_retention=ms(RETENTION_MIN_MS - 1))),
    Bound("max_run_max_ms", "settings.max_run",
          lambda: settings(max_run=ms(L.max_run_max_ms)),
          lambda: settings(max_run=ms(L.max_run_max_ms + 1))),
    Bound("journal_entries_min_count", "settings.journal_max_entries",
          lambda: settings(journal_max_entries=1_000), lambda: settings(journal_max_entries=999)),
    Bound("journal_entries_max_count", "settings.journal_max_entries",
          lambda: settings(journal_max_entries=10**8),
          lambda: settings(journal_max_entries=10**8 + 1)),
    Bound("max_tasks_max_count", "settings.max_tasks", lambda: settings(max_tasks=10**12),
          lambda: settings(max_tasks=10**12 + 1)),
    Bound("topic_max_bytes", "settings.max_bytes", lambda: settings(max_bytes=2**50),
          lambda: settings(max_bytes=2**50 + 1)),
    Bound("", "settings.default_lease_duration",
          lambda: settings(default_lease_duration=ms(100)),
          lambda: settings(default_lease_duration=ms(99))),
    Bound("", "settings.default_retry_policy.max_attempts",
          lambda: settings(default_retry_policy=task_pb2.RetryPolicy(max_attempts=1)),
          lambda: settings(default_retry_policy=task_pb2.RetryPolicy(max_attempts=0))),
    Bound("", "settings.durability",
          lambda: settings(durability=task_pb2.DURABILITY_FAST),
          lambda: settings(durability=9)),
    Bound("", "on_conflict", lambda: plain(on_conflict=1),
          lambda: plain(on_conflict=9)),
    Bound("", "view", lambda: listing(view=2), lambda: listing(view=3)),
    Bound("", "state", listing,
          lambda: listing(state=99)),
    Bound("", "state", listing, lambda: pb.ListTasksRequest(topic="jobs")),
    Bound("", "ids", lambda: redrive(1_000), lambda: redrive(1_001)),
    Bound("", "request_id", lambda: redrive(1),
          lambda: admin_pb.RedriveDeadTasksRequest(topic="jobs")),
    Bound("", "request_id", lambda: admin_pb.PurgeTopicRequest(name="jobs", request_id="p"),
          lambda: admin_pb.PurgeTopicRequest(name="jobs")),
    Bound("", "request_id",
          lambda: pb.RescheduleRequest(topic="jobs", id="a", request_id="r"),
          lambda: pb.RescheduleRequest(topic="jobs", id="a")),
    Bound("", "request_id",
          lambda: plain(on_conflict=3, request_id="r"),
          lambda: plain(on_conflict=3)),
    Bound("", "expected_revision",
          lambda: plain(on_conflict=3, request_id="r", expected_revision=0),
          lambda: plain(expected_revision=0)),
    Bound("", "update_mask",
          lambda: update("journal"),
          update),
    Bound("", "update_mask",
          lambda: update("journal"),
          lambda: update("shards")),
    Bound("", "not_after",
          lambda: pb.CancelRequest(topic="jobs", id="a", not_after=in_minutes(9)),
          lambda: pb.CancelRequest(topic="jobs", id="a", not_after=in_minutes(11))),
    Bound("", "items[1]", lambda: acks(2), twice),
)  # fmt: skip

# Limits that no BadRequest speaks of, and the test that holds them.
ELSEWHERE = {
    "snoozes_max_count": "tests/store/test_snooze.py: SNOOZE_LIMIT",
    "error_max_bytes": "tests/store/test_retries.py: cut, not refused",
    "retrieve_wait_max_ms": "test_the_longest_wait, which does not wait that long",
    "stream_credit_max_tasks": "tests/service/test_streaming.py",
    "stream_credit_max_bytes": "tests/service/test_streaming.py",
    "request_max_bytes": "test_a_message_that_is_too_large_ends_in_the_transport",
}


def encode(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def page_token(size: int) -> str:
    """A page token of so many characters."""
    head = base64.urlsafe_b64encode(b'[0, "", ""' + b" " * (size * 3 // 4 - 11) + b"]").decode()
    assert len(head) == size
    return head


def in_minutes(minutes: int) -> Timestamp:
    return moment((int(time.time()) + 60 * minutes) * 1_000)


def test_every_limit_has_a_row() -> None:
    rows = {bound.limit for bound in BOUNDS if bound.limit}
    assert rows | set(ELSEWHERE) == {field.name for field in fields(LIMITS)}
    assert not rows & set(ELSEWHERE)


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: f"{bound.limit}-{bound.field}")
async def test_a_field_is_accepted_at_its_bound_and_named_beyond(
    server: RunningServer, bound: Bound
) -> None:
    await server.admin.CreateTopic(admin_pb.CreateTopicRequest(name="jobs"))
    failure = await send(server, bound.at())
    assert failure is None or not failure.fields, failure
    failure = await send(server, bound.beyond())
    assert failure is not None
    assert failure.code == "INVALID_ARGUMENT"
    assert failure.fields == (bound.field,)
    assert failure.message.startswith(f"{bound.field}: ")
    large = bound.limit == "payload_max_bytes"
    assert failure.reason == ("PAYLOAD_TOO_LARGE" if large else "INVALID_ARGUMENT")


async def test_the_longest_wait(server: RunningServer) -> None:
    longest = LIMITS.retrieve_wait_max_ms
    failure = await send(server, retrieve(wait=ms(longest, nanos=1)))
    assert failure is not None
    assert failure.fields == ("wait",)
    waiting = server.queue.Retrieve(retrieve(wait=ms(longest)), timeout=DEADLINE_S)
    await server.queue.Enqueue(enqueue(id="a"))
    assert [leased.task.id for leased in (await waiting).tasks] == ["a"]


async def test_a_message_that_is_too_large_ends_in_the_transport(server: RunningServer) -> None:
    failure = await send(server, enqueue(payload=bytes(10_000_000)))
    assert failure is not None
    assert (failure.code, failure.reason) == ("RESOURCE_EXHAUSTED", "")
    # Of the largest that is allowed, only the payload is wrong.
    failure = await send(server, enqueue(payload=bytes(LIMITS.request_max_bytes - 100)))
    assert failure is not None
    assert failure.reason == "PAYLOAD_TOO_LARGE"


async def test_all_that_is_wrong_is_said_at_once(server: RunningServer) -> None:
    request = pb.EnqueueRequest(
        topic="a b",
        task=task_pb2.TaskSpec(
            id="\x00",
            payload=bytes(2**20 + 1),
            headers={"": ""},
            delay=Duration(seconds=-1),
            retry_policy=task_pb2.RetryPolicy(max_attempts=0, jitter=2, multiplier=0),
        ),
        on_conflict=7,  # type: ignore[arg-type]
        request_id="r" * 65,
    )
    failure = await send(server, request)
    assert failure is not None
    assert set(failure.fields) == {
        "topic",
        "task.id",
        "task.payload",
        "task.headers",
        "task.delay",
        "task.retry_policy.max_attempts",
        "task.retry_policy.jitter",
        "task.retry_policy.multiplier",
        "on_conflict",
        "request_id",
    }
    assert failure.reason == "INVALID_ARGUMENT"
    assert "(and 9 more)" in failure.message


async def test_a_bad_item_of_a_batch_is_named_and_the_others_are_served(
    server: RunningServer,
) -> None:
    items = [
        pb.BatchEnqueueItem(task=task_pb2.TaskSpec(id="good")),
        pb.BatchEnqueueItem(task=task_pb2.TaskSpec(id="bad", payload=bytes(2**20 + 1))),
        pb.BatchEnqueueItem(task=task_pb2.TaskSpec(id="worse", delay=Duration(seconds=-1))),
        pb.BatchEnqueueItem(task=task_pb2.TaskSpec(id="fine")),
        pb.BatchEnqueueItem(task=task_pb2.TaskSpec(id="odd"), on_conflict=9),  # type: ignore[arg-type]
    ]
    reply = await server.queue.BatchEnqueue(pb.BatchEnqueueRequest(topic="jobs", items=items))
    failures = [failure_in(result.status) for result in reply.results]
    assert [failure.reason for failure in failures] == [
        "",
        "PAYLOAD_TOO_LARGE",
        "INVALID_ARGUMENT",
        "",
        "INVALID_ARGUMENT",
    ]
    assert [failure.fields for failure in failures] == [
        (),
        ("task.payload",),
        ("task.delay",),
        (),
        ("on_conflict",),
    ]
    assert [result.result.id for result in reply.results] == ["good", "", "", "fine", ""]
    assert not reply.results[1].HasField("result")


async def test_a_batch_of_nothing_but_bad_items_makes_no_topic(server: RunningServer) -> None:
    items = [pb.BatchEnqueueItem(task=task_pb2.TaskSpec(id="a", delay=Duration(seconds=-1)))]
    await server.queue.BatchEnqueue(pb.BatchEnqueueRequest(topic="jobs", items=items))
    failure = await failure_of(server.admin.GetTopic(admin_pb.GetTopicRequest(name="jobs")))
    assert failure.reason == "TOPIC_NOT_FOUND"


async def test_a_bad_item_of_a_settling_batch_refuses_the_batch(server: RunningServer) -> None:
    """An id or a token that no reply can have contained is a mistake of the caller's code."""
    request = acks(3)
    request.items[1].lease_token = b"short"
    failure = await send(server, request)
    assert failure is not None
    assert failure.fields == ("items[1].lease_token",)


@pytest.mark.parametrize(("nanos", "ms_later"), [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1)])
async def test_due_times_are_rounded_up(server: RunningServer, nanos: int, ms_later: int) -> None:
    delayed = await server.queue.Enqueue(enqueue(delay=Duration(seconds=60, nanos=nanos)))
    gap_ms = delayed.result.due_time.ToMilliseconds() - delayed.receipt.store_time.ToMilliseconds()
    assert gap_ms == 60_000 + ms_later
    base = in_minutes(5)
    exact = await server.queue.Enqueue(
        enqueue(due_time=Timestamp(seconds=base.seconds, nanos=nanos))
    )
    assert exact.result.due_time.ToMilliseconds() == base.seconds * 1_000 + ms_later


async def test_unknown_fields_are_ignored(server: RunningServer) -> None:
    raw = enqueue(id="a").SerializeToString() + b"\xfa\x3f\x03new"
    call: Any = server.channel.unary_unary(
        "/ddq.v1.DelayQueueService/Enqueue",
        request_serializer=bytes,
        response_deserializer=pb.EnqueueResponse.FromString,
    )
    reply = await call(raw)
    assert reply.result.created


async def test_a_verdict_that_contradicts_itself_is_refused(server: RunningServer) -> None:
    request = nack_delay(seconds(1))
    request.verdict.dead_letter = True
    failure = await send(server, request)
    assert failure is not None
    assert failure.fields == ("verdict.delay",)
