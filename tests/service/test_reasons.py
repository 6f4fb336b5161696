"""Every error reason that the server can give: its code, and RetryInfo where it helps."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ddq.config import LIMITS, Settings
from ddq.errors import BY_REASON
from ddq.store.keys import ShardId
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2, topic_pb2
from tests.support.rpc import DEADLINE_S, Failure, Producer, failure_in, failure_of, moment, seconds
from tests.support.server import RunningServer, serving
from tests.support.store import StoreServer, own_store

Case = Callable[[StoreServer], Awaitable[Failure]]
CASES: dict[str, Case] = {}
TOKEN = bytes(16)
QUICK = Settings(drain_ms=1, store_timeout_ms=500)

# Branches of the tree, what only the client raises, and what this version has no cause for.
NOT_FROM_THIS_SERVER = {
    "UNKNOWN",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "UNAVAILABLE",
    "OUTCOME_UNKNOWN",
    "TRANSPORT_ERROR",
    "NOT_CONNECTED",
    "ROLLBACK_DETECTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "UNIMPLEMENTED",
    "STORE_START_FAILED",
    "TOPIC_CHANGED",
}


def reason(case: Case) -> Case:
    """Registers the case of the reason of its name, which is in lower case."""
    CASES[case.__name__.upper()] = case
    return case


def test_every_reason_has_a_case() -> None:
    assert set(CASES) == set(BY_REASON) - NOT_FROM_THIS_SERVER


async def with_server(store: StoreServer, case: Callable[[RunningServer], Any]) -> Failure:
    async with serving(store) as server:
        failure: Failure = await case(server)
        return failure


def plain(inner: Callable[[RunningServer], Awaitable[Failure]]) -> Case:
    """Registers a case that needs nothing but a server."""

    async def case(store: StoreServer) -> Failure:
        return await with_server(store, inner)

    case.__name__ = inner.__name__
    return reason(case)


def one(task_id: str = "a", **values: Any) -> pb.EnqueueRequest:
    return pb.EnqueueRequest(topic="jobs", task=task_pb2.TaskSpec(id=task_id), **values)


def ack(task_id: str = "a", token: bytes = TOKEN) -> pb.AckRequest:
    return pb.AckRequest(topic="jobs", id=task_id, lease_token=token)


def cancel(task_id: str = "a", **values: Any) -> pb.CancelRequest:
    return pb.CancelRequest(topic="jobs", id=task_id, **values)


def replace(**values: Any) -> pb.EnqueueRequest:
    spec = task_pb2.TaskSpec(id="a", payload=b"other")
    return pb.EnqueueRequest(
        topic="jobs",
        task=spec,
        on_conflict=pb.ON_CONFLICT_REPLACE_IF_SCHEDULED,
        request_id="r",
        **values,
    )


@plain
async def invalid_argument(server: RunningServer) -> Failure:
    return await failure_of(server.queue.Enqueue(pb.EnqueueRequest()))


@plain
async def payload_too_large(server: RunningServer) -> Failure:
    return await failure_of(Producer(server.queue).add(payload=bytes(2**20 + 1)))


@plain
async def task_not_found(server: RunningServer) -> Failure:
    await Producer(server.queue).add()
    failures = [
        await failure_of(server.queue.GetTask(pb.GetTaskRequest(topic="jobs", id="x"))),
        await failure_of(server.queue.Cancel(cancel("x"))),
        await failure_of(server.queue.Ack(ack("x"))),
    ]
    assert {failure.reason for failure in failures} == {"TASK_NOT_FOUND"}
    return failures[0]


@plain
async def topic_not_found(server: RunningServer) -> Failure:
    calls = [
        server.queue.Cancel(cancel()),
        server.queue.Ack(ack()),
        server.queue.GetTask(pb.GetTaskRequest(topic="jobs", id="a")),
        server.queue.ListTasks(pb.ListTasksRequest(topic="jobs", state=1)),  # type: ignore[arg-type]
        server.admin.GetTopic(admin_pb.GetTopicRequest(name="jobs")),
        server.admin.PauseTopic(admin_pb.PauseTopicRequest(name="jobs")),
        server.admin.PurgeTopic(admin_pb.PurgeTopicRequest(name="jobs", request_id="r")),
        server.admin.GetTopicStats(admin_pb.GetTopicStatsRequest(topic="jobs")),
        server.admin.ListDeadTasks(admin_pb.ListDeadTasksRequest(topic="jobs")),
    ]
    failures = [await failure_of(call) for call in calls]
    assert {failure.reason for failure in failures} == {"TOPIC_NOT_FOUND"}
    return failures[0]


@plain
async def task_id_conflict(server: RunningServer) -> Failure:
    producer = Producer(server.queue)
    await producer.add("a", payload=b"one", delay=seconds(60))
    differing: list[dict[str, Any]] = [
        {"payload": b"two", "delay": seconds(60)},
        {"payload": b"one", "delay": seconds(61)},
        {"payload": b"one", "due_time": moment(60_000)},
        {"payload": b"one"},
        {"payload": b"one", "delay": seconds(60), "headers": {"k": "v"}},
        {
            "payload": b"one",
            "delay": seconds(60),
            "retry_policy": task_pb2.RetryPolicy(max_attempts=5),
        },
    ]
    failures = [await failure_of(producer.add("a", **spec)) for spec in differing]
    assert {failure.reason for failure in failures} == {"TASK_ID_CONFLICT"}
    assert not (await producer.add("a", payload=b"one", delay=seconds(60))).result.created
    return failures[0]


@plain
async def topic_exists(server: RunningServer) -> Failure:
    await server.admin.CreateTopic(admin_pb.CreateTopicRequest(name="jobs"))
    return await failure_of(
        server.admin.CreateTopic(admin_pb.CreateTopicRequest(name="jobs", shards=2))
    )


@plain
async def lease_lost(server: RunningServer) -> Failure:
    leased = await Producer(server.queue).take_one()
    await server.queue.Cancel(cancel(revoke_lease=True))
    return await failure_of(server.queue.Ack(ack("a", leased.lease_token)))


@plain
async def snooze_limit(server: RunningServer) -> Failure:
    leased = await Producer(server.queue).take_one()
    key = ShardId("jobs", 0).key("states")
    record = server.store.sync.hget(key, "a")
    assert isinstance(record, bytes)
    # As after so many snoozes: nothing else follows the last error.
    server.store.sync.hset(key, "a", record + LIMITS.snoozes_max_count.to_bytes(4, "big"))
    request = pb.SnoozeRequest(topic="jobs", id="a", lease_token=leased.lease_token)
    request.delay.FromMilliseconds(1)
    return await failure_of(server.queue.Snooze(request))


@plain
async def task_ready(server: RunningServer) -> Failure:
    producer = Producer(server.queue)
    leased = await producer.take_one()
    await server.queue.Release(
        pb.ReleaseRequest(topic="jobs", id="a", lease_token=leased.lease_token)
    )
    return await failure_of(server.queue.Enqueue(replace()))


@plain
async def task_leased(server: RunningServer) -> Failure:
    await Producer(server.queue).take_one()
    failures = [
        await failure_of(server.queue.Cancel(cancel())),
        await failure_of(server.queue.Enqueue(replace())),
        await failure_of(
            server.queue.Reschedule(pb.RescheduleRequest(topic="jobs", id="a", request_id="r"))
        ),
    ]
    assert {failure.reason for failure in failures} == {"TASK_LEASED"}
    return failures[0]


@plain
async def task_finished(server: RunningServer) -> Failure:
    leased = await Producer(server.queue).take_one()
    await server.queue.Ack(ack("a", leased.lease_token))
    return await failure_of(server.queue.Cancel(cancel()))


@plain
async def task_not_dead(server: RunningServer) -> Failure:
    await Producer(server.queue).add()
    request = admin_pb.RedriveDeadTasksRequest(topic="jobs", ids=["a"], request_id="r")
    reply = await server.admin.RedriveDeadTasks(request)
    assert failure_in(reply.results[0].status).reason == "TASK_NOT_DEAD"
    return await failure_of(
        server.admin.DeleteDeadTask(admin_pb.DeleteDeadTaskRequest(topic="jobs", id="a"))
    )


@plain
async def request_expired(server: RunningServer) -> Failure:
    await Producer(server.queue).add()
    failure = await failure_of(server.queue.Cancel(cancel(not_after=moment(1))))
    assert await failure_of(server.queue.Cancel(cancel(not_after=moment(0)))) == failure
    return failure


@plain
async def topic_full(server: RunningServer) -> Failure:
    settings = topic_pb2.TopicSettings(max_tasks=1)
    await server.admin.CreateTopic(admin_pb.CreateTopicRequest(name="jobs", settings=settings))
    await Producer(server.queue).add("a")
    return await failure_of(Producer(server.queue).add("b"))


@plain
async def store_full(server: RunningServer) -> Failure:
    await Producer(server.queue).add("a")
    server.store.sync.config_set("maxmemory", 1_000_000)
    try:
        leased = (await Producer(server.queue).take())[0]
        failure = await failure_of(Producer(server.queue).add("b"))
        await server.queue.Ack(ack("a", leased.lease_token))
        return failure
    finally:
        server.store.sync.config_set("maxmemory", 0)


@plain
async def revision_mismatch(server: RunningServer) -> Failure:
    await Producer(server.queue).add("a", delay=seconds(60))
    topic = admin_pb.UpdateTopicRequest(name="jobs", expected_revision=9)
    topic.update_mask.paths.append("journal")
    assert (await failure_of(server.admin.UpdateTopic(topic))).reason == "REVISION_MISMATCH"
    request = pb.RescheduleRequest(topic="jobs", id="a", request_id="r", expected_revision=99)
    assert (await failure_of(server.queue.Reschedule(request))).reason == "REVISION_MISMATCH"
    return await failure_of(server.queue.Enqueue(replace(expected_revision=99)))


@plain
async def clock_unsafe(server: RunningServer) -> Failure:
    await Producer(server.queue).add("a", delay=seconds(600))
    seconds_now, _ = server.store.read("TIME")
    control = ShardId("jobs", 0).key("control")
    server.store.sync.hset(control, "mark_ms", (int(seconds_now) + 3_600) * 1_000)
    return await failure_of(server.queue.Cancel(cancel()))


@plain
async def store_malformed(server: RunningServer) -> Failure:
    await Producer(server.queue).add("a", delay=seconds(600))
    server.store.sync.hset(ShardId("jobs", 0).key("payloads"), "a", b"\xff")
    failure = await failure_of(server.queue.GetTask(pb.GetTaskRequest(topic="jobs", id="a")))
    # A store that is still damaged must not stop the next test's server from starting.
    server.store.sync.flushall()
    return failure


@plain
async def not_enough_replicas(server: RunningServer) -> Failure:
    await Producer(server.queue).add("a")
    server.store.sync.config_set("min-replicas-to-write", 1)
    try:
        return await failure_of(server.queue.Enqueue(one("b"), timeout=DEADLINE_S))
    finally:
        server.store.sync.config_set("min-replicas-to-write", 0)


@asynccontextmanager
async def frozen(store: StoreServer) -> AsyncIterator[None]:
    """A store that hangs, and continues in the end."""
    info: Any = store.sync.info("server")
    os.kill(info["process_id"], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(info["process_id"], signal.SIGCONT)


@reason
async def write_outcome_unknown(store: StoreServer) -> Failure:
    async with serving(store, QUICK, scheduler=False) as server:
        await Producer(server.queue).add("a", delay=seconds(60))
        async with frozen(store):
            return await failure_of(server.queue.Cancel(cancel(), timeout=DEADLINE_S))


@reason
async def overloaded(store: StoreServer) -> Failure:
    settings = Settings(drain_ms=1, store_queue_max_count=1, store_timeout_ms=2_000)
    async with serving(store, settings, scheduler=False) as server:
        await Producer(server.queue).add("a", delay=seconds(60))
        async with frozen(store):
            calls = [server.queue.Cancel(cancel(), timeout=DEADLINE_S) for _ in range(5)]
            failures = await asyncio.gather(*(failure_of(call) for call in calls))
    return next(failure for failure in failures if failure.reason == "OVERLOADED")


@reason
async def store_unreachable(store: StoreServer) -> Failure:
    async with own_store() as own, serving(own, QUICK, scheduler=False) as server:
        await Producer(server.queue).add("a", delay=seconds(60))
        own_process: Any = own.sync.info("server")
        os.kill(own_process["process_id"], signal.SIGKILL)
        # What is sent before the break is noticed is unknown.
        failure = await failure_of(server.queue.Cancel(cancel(), timeout=DEADLINE_S))
        if failure.reason == "WRITE_OUTCOME_UNKNOWN":
            failure = await failure_of(server.queue.Cancel(cancel(), timeout=DEADLINE_S))
        return failure


# Last, when all cases are registered.
@pytest.mark.parametrize("name", sorted(CASES))
async def test_reason(store_server: StoreServer, name: str) -> None:
    failure = await CASES[name](store_server)
    assert failure.reason == name
    kind = BY_REASON[name]
    assert failure.code == kind.code.name
    assert failure.retry_s == kind.retry_delay_s
    assert failure.message
    assert "\n" not in failure.message
