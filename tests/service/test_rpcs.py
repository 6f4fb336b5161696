"""Every RPC, once, the way it is meant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from ddq.task import TaskState as State
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2, topic_pb2
from tests.support.rpc import DEADLINE_S, Producer, failure_in, moment, seconds
from tests.support.server import RunningServer

Case = Callable[[RunningServer], Awaitable[None]]
CASES: dict[str, Case] = {}


def rpc(case: Case) -> Case:
    """Registers the case of the RPC of its name."""
    CASES[case.__name__] = case
    return case


def test_every_rpc_has_a_case() -> None:
    services = (
        pb.DESCRIPTOR.services_by_name["DelayQueueService"],
        admin_pb.DESCRIPTOR.services_by_name["DelayQueueAdminService"],
    )
    names = [method.name for service in services for method in service.methods]
    assert len(names) > 25
    assert set(CASES) == set(names)


def ok(*results: object) -> None:
    assert results
    for result in results:
        assert result.status.code == 0, failure_in(result.status)  # type: ignore[attr-defined]


@rpc
async def Enqueue(server: RunningServer) -> None:  # noqa: N802 - named as its RPC
    reply = await Producer(server.queue).add("a", payload=b"\x00\xff", delay=seconds(60))
    result = reply.result
    assert (result.id, result.created, result.state) == ("a", True, task_pb2.TASK_STATE_SCHEDULED)
    assert reply.receipt.durability == task_pb2.DURABILITY_QUORUM
    assert len(reply.receipt.lineage_id) == 8
    due_ms = result.due_time.ToMilliseconds()
    assert due_ms - reply.receipt.store_time.ToMilliseconds() == 60_000
    unnamed = await Producer(server.queue).add("")
    assert unnamed.result.id[14] == "7", "a UUIDv7"


@rpc
async def BatchEnqueue(server: RunningServer) -> None:  # noqa: N802
    items = [pb.BatchEnqueueItem(task=task_pb2.TaskSpec(id=i, payload=b"x")) for i in "abc"]
    reply = await server.queue.BatchEnqueue(pb.BatchEnqueueRequest(topic="jobs", items=items))
    ok(*reply.results)
    assert [result.result.id for result in reply.results] == ["a", "b", "c"]


@rpc
async def Retrieve(server: RunningServer) -> None:  # noqa: N802
    leased = await Producer(server.queue).take_one("a", payload=b"bytes", headers={"k": "v"})
    assert (leased.task.payload, dict(leased.task.headers)) == (b"bytes", {"k": "v"})
    assert (leased.task.attempt, leased.task.state) == (1, task_pb2.TASK_STATE_LEASED)
    assert 29_000 < leased.lease_remaining.ToMilliseconds() <= 30_000
    assert len(leased.lease_token) == 16


@rpc
async def StreamRetrieve(server: RunningServer) -> None:  # noqa: N802
    await Producer(server.queue).add("a", payload=b"bytes")
    call = server.queue.StreamRetrieve(timeout=DEADLINE_S)
    subscription = pb.Subscription(topics=["jobs"])
    await call.write(
        pb.StreamRetrieveRequest(subscribe=subscription, add_credit_tasks=1, add_credit_bytes=1_000)
    )
    (leased,) = (await call.read()).tasks
    assert (leased.task.payload, leased.task.attempt) == (b"bytes", 1)
    await call.done_writing()
    assert not isinstance(await call.read(), pb.StreamRetrieveResponse)


async def leased_named(server: RunningServer) -> dict[str, bytes]:
    producer = Producer(server.queue)
    for task_id in "ab":
        await producer.add(task_id)
    return {task.task.id: task.lease_token for task in await producer.take(2)}


async def state_of(server: RunningServer, task_id: str = "a") -> int:
    reply = await server.queue.GetTask(pb.GetTaskRequest(topic="jobs", id=task_id))
    return int(reply.task.state)


@rpc
async def Ack(server: RunningServer) -> None:  # noqa: N802
    leased = await Producer(server.queue).take_one()
    request = pb.AckRequest(topic="jobs", id="a", lease_token=leased.lease_token)
    reply = await server.queue.Ack(request)
    assert (await server.queue.Ack(request)).result == reply.result
    assert await state_of(server) == State.SUCCEEDED


@rpc
async def BatchAck(server: RunningServer) -> None:  # noqa: N802
    items = [
        pb.BatchAckItem(id=task_id, lease_token=token)
        for task_id, token in (await leased_named(server)).items()
    ]
    ok(*(await server.queue.BatchAck(pb.BatchAckRequest(topic="jobs", items=items))).results)
    assert await state_of(server, "b") == State.SUCCEEDED


@rpc
async def RunAgain(server: RunningServer) -> None:  # noqa: N802
    leased = await Producer(server.queue).take_one("a", payload=b"one", headers={"k": "v"})
    request = pb.RunAgainRequest(topic="jobs", id="a", lease_token=leased.lease_token)
    request.next.delay.CopyFrom(seconds(60))
    reply = await server.queue.RunAgain(request)
    store_ms = reply.receipt.store_time.ToMilliseconds()
    assert reply.result.due_time.ToMilliseconds() - store_ms == 60_000
    assert (await server.queue.RunAgain(request)).result == reply.result
    wanted = pb.GetTaskRequest(topic="jobs", id="a", view=task_pb2.TASK_VIEW_FULL)
    task = (await server.queue.GetTask(wanted)).task
    assert (task.state, task.incarnation) == (State.SCHEDULED, reply.result.incarnation)
    assert (task.payload, dict(task.headers)) == (b"one", {"k": "v"})
    assert task.incarnation > leased.task.incarnation


@rpc
async def Nack(server: RunningServer) -> None:  # noqa: N802
    leased = await Producer(server.queue).take_one()
    verdict = pb.NackVerdict(error="no", delay=seconds(60))
    reply = await server.queue.Nack(
        pb.NackRequest(topic="jobs", id="a", lease_token=leased.lease_token, verdict=verdict)
    )
    assert reply.result.state == task_pb2.TASK_STATE_SCHEDULED
    store_ms = reply.receipt.store_time.ToMilliseconds()
    assert reply.result.due_time.ToMilliseconds() - store_ms == 60_000


@rpc
async def BatchNack(server: RunningServer) -> None:  # noqa: N802
    verdict = pb.NackVerdict(dead_letter=True)
    items = [
        pb.BatchNackItem(id=task_id, lease_token=token, verdict=verdict)
        for task_id, token in (await leased_named(server)).items()
    ]
    reply = await server.queue.BatchNack(pb.BatchNackRequest(topic="jobs", items=items))
    ok(*reply.results)
    assert not reply.results[0].result.HasField("due_time")
    assert await state_of(server, "b") == State.DEAD


@rpc
async def Extend(server: RunningServer) -> None:  # noqa: N802
    leased = await Producer(server.queue).take_one()
    reply = await server.queue.Extend(
        pb.ExtendRequest(
            topic="jobs", id="a", lease_token=leased.lease_token, lease_duration=seconds(99)
        )
    )
    assert reply.result.lease_remaining.ToMilliseconds() == 99_000


@rpc
async def BatchExtend(server: RunningServer) -> None:  # noqa: N802
    items = [
        pb.BatchExtendItem(id=task_id, lease_token=token)
        for task_id, token in (await leased_named(server)).items()
    ]
    reply = await server.queue.BatchExtend(pb.BatchExtendRequest(topic="jobs", items=items))
    ok(*reply.results)
    assert reply.results[1].result.lease_remaining.ToMilliseconds() == 30_000


@rpc
async def Release(server: RunningServer) -> None:  # noqa: N802
    producer = Producer(server.queue)
    leased = await producer.take_one()
    await server.queue.Release(
        pb.ReleaseRequest(topic="jobs", id="a", lease_token=leased.lease_token)
    )
    (again,) = await producer.take()
    assert again.task.attempt == 1


@rpc
async def BatchRelease(server: RunningServer) -> None:  # noqa: N802
    items = [
        pb.BatchReleaseItem(id=task_id, lease_token=token)
        for task_id, token in (await leased_named(server)).items()
    ]
    reply = await server.queue.BatchRelease(pb.BatchReleaseRequest(topic="jobs", items=items))
    ok(*reply.results)
    assert await state_of(server) == State.READY


@rpc
async def Snooze(server: RunningServer) -> None:  # noqa: N802
    leased = await Producer(server.queue).take_one()
    request = pb.SnoozeRequest(topic="jobs", id="a", lease_token=leased.lease_token)
    request.delay.CopyFrom(seconds(60))
    reply = await server.queue.Snooze(request)
    store_ms = reply.receipt.store_time.ToMilliseconds()
    assert reply.result.due_time.ToMilliseconds() - store_ms == 60_000
    assert (await server.queue.Snooze(request)).result == reply.result
    task = (await server.queue.GetTask(pb.GetTaskRequest(topic="jobs", id="a"))).task
    assert (task.state, task.attempt, task.snoozes) == (State.SCHEDULED, 0, 1)


@rpc
async def BatchSnooze(server: RunningServer) -> None:  # noqa: N802
    items = [
        pb.BatchSnoozeItem(id=task_id, lease_token=token, delay=seconds(60))
        for task_id, token in (await leased_named(server)).items()
    ]
    reply = await server.queue.BatchSnooze(pb.BatchSnoozeRequest(topic="jobs", items=items))
    ok(*reply.results)
    assert await state_of(server, "b") == State.SCHEDULED


@rpc
async def Cancel(server: RunningServer) -> None:  # noqa: N802
    await Producer(server.queue).add("a", delay=seconds(60))
    request = pb.CancelRequest(topic="jobs", id="a")
    assert not (await server.queue.Cancel(request)).result.already_cancelled
    assert (await server.queue.Cancel(request)).result.already_cancelled
    assert await state_of(server) == State.CANCELLED


@rpc
async def BatchCancel(server: RunningServer) -> None:  # noqa: N802
    await leased_named(server)
    items = [pb.BatchCancelItem(id="a"), pb.BatchCancelItem(id="b", revoke_lease=True)]
    reply = await server.queue.BatchCancel(pb.BatchCancelRequest(topic="jobs", items=items))
    assert failure_in(reply.results[0].status).reason == "TASK_LEASED"
    ok(reply.results[1])


@rpc
async def Reschedule(server: RunningServer) -> None:  # noqa: N802
    await Producer(server.queue).add("a", delay=seconds(600))
    reply = await server.queue.Reschedule(
        pb.RescheduleRequest(topic="jobs", id="a", due_time=moment(1), request_id="r")
    )
    assert reply.due_time == reply.receipt.store_time
    await Producer(server.queue).take()


@rpc
async def GetTask(server: RunningServer) -> None:  # noqa: N802
    policy = task_pb2.RetryPolicy(max_attempts=7)
    await Producer(server.queue).add("a", payload=b"xyz", retry_policy=policy, delay=seconds(60))
    request = pb.GetTaskRequest(topic="jobs", id="a")
    basic = (await server.queue.GetTask(request)).task
    assert (basic.payload, basic.payload_size_bytes) == (b"", 3)
    assert (basic.retry_policy.max_attempts, basic.retry_policy.multiplier) == (7, 2.0)
    assert basic.due_time.ToMilliseconds() - basic.create_time.ToMilliseconds() == 60_000
    assert not basic.HasField("update_time")
    request.view = task_pb2.TASK_VIEW_FULL
    assert (await server.queue.GetTask(request)).task.payload == b"xyz"


@rpc
async def ListTasks(server: RunningServer) -> None:  # noqa: N802
    for i in range(5):
        await Producer(server.queue).add(f"t{i}", delay=seconds(60 + i))
    request = pb.ListTasksRequest(topic="jobs", state=task_pb2.TASK_STATE_SCHEDULED, page_size=2)
    seen = []
    while True:
        reply = await server.queue.ListTasks(request)
        seen.append([task.id for task in reply.tasks])
        request.page_token = reply.next_page_token
        if not request.page_token:
            break
    assert [task_id for page in seen for task_id in page] == [f"t{i}" for i in range(5)]
    assert max(map(len, seen)) == 2


# Operators ---------------------------------------------------------------------------------


@rpc
async def CreateTopic(server: RunningServer) -> None:  # noqa: N802
    settings = topic_pb2.TopicSettings(max_tasks=9, default_lease_duration=seconds(5))
    request = admin_pb.CreateTopicRequest(name="made", shards=3, settings=settings)
    reply = await server.admin.CreateTopic(request)
    assert (reply.created, reply.topic.shards) == (True, 3)
    assert reply.topic.settings.max_tasks == 9
    assert reply.topic.settings.tombstone_retention.seconds == 3_600, "defaults are filled in"
    assert len(reply.topic.uid) == 16
    assert not (await server.admin.CreateTopic(request)).created


async def create(server: RunningServer, name: str = "jobs") -> topic_pb2.Topic:
    reply = await server.admin.CreateTopic(admin_pb.CreateTopicRequest(name=name))
    topic: topic_pb2.Topic = reply.topic
    return topic


@rpc
async def GetTopic(server: RunningServer) -> None:  # noqa: N802
    topic = await create(server)
    request = admin_pb.GetTopicRequest(name="jobs")
    assert (await server.admin.GetTopic(request)).topic == topic


@rpc
async def ListTopics(server: RunningServer) -> None:  # noqa: N802
    for name in ("b", "a.x", "c", "A"):
        await create(server, name)
    request = admin_pb.ListTopicsRequest(page_size=3)
    first = await server.admin.ListTopics(request)
    assert [topic.name for topic in first.topics] == ["A", "a.x", "b"]
    request.page_token = first.next_page_token
    second = await server.admin.ListTopics(request)
    assert [topic.name for topic in second.topics] == ["c"]
    assert second.next_page_token == ""


@rpc
async def UpdateTopic(server: RunningServer) -> None:  # noqa: N802
    topic = await create(server)
    policy = task_pb2.RetryPolicy(max_attempts=2, multiplier=9)
    request = admin_pb.UpdateTopicRequest(
        name="jobs",
        settings=topic_pb2.TopicSettings(default_retry_policy=policy, max_tasks=5),
        update_mask=FieldMask(paths=["default_retry_policy.max_attempts", "max_tasks"]),
        expected_revision=topic.revision,
    )
    changed = (await server.admin.UpdateTopic(request)).topic
    assert changed.settings.default_retry_policy.max_attempts == 2
    assert changed.settings.default_retry_policy.multiplier == 2.0, "not in the mask"
    assert changed.settings.max_tasks == 5
    back = admin_pb.UpdateTopicRequest(name="jobs", update_mask=FieldMask(paths=["max_tasks"]))
    restored = (await server.admin.UpdateTopic(back)).topic
    assert restored.settings.max_tasks == 0, "unset means the default"
    assert restored.settings.default_retry_policy.max_attempts == 2
    assert restored.revision == topic.revision + 2


@rpc
async def DeleteTopic(server: RunningServer) -> None:  # noqa: N802
    await Producer(server.queue).add("a")
    request = admin_pb.DeleteTopicRequest(name="jobs")
    reply = await server.admin.DeleteTopic(request)
    assert (reply.done, reply.purged) == (True, 1)
    again = await server.admin.DeleteTopic(request)
    assert (again.done, again.purged) == (True, 0)


@rpc
async def PauseTopic(server: RunningServer) -> None:  # noqa: N802
    await create(server)
    request = admin_pb.PauseTopicRequest(name="jobs")
    first = (await server.admin.PauseTopic(request)).topic
    assert first.paused
    assert (await server.admin.PauseTopic(request)).topic == first
    await Producer(server.queue).add("a")
    reply = await server.queue.Retrieve(pb.RetrieveRequest(topics=["jobs"]))
    assert not reply.tasks


@rpc
async def ResumeTopic(server: RunningServer) -> None:  # noqa: N802
    await create(server)
    await server.admin.PauseTopic(admin_pb.PauseTopicRequest(name="jobs"))
    await Producer(server.queue).add("a")
    reply = await server.admin.ResumeTopic(admin_pb.ResumeTopicRequest(name="jobs"))
    assert not reply.topic.paused
    await Producer(server.queue).take()


@rpc
async def PurgeTopic(server: RunningServer) -> None:  # noqa: N802
    # Not due, else the scheduler may come across it first, and it is not this call that ends it.
    await Producer(server.queue).add("a", delay=seconds(600))
    request = admin_pb.PurgeTopicRequest(name="jobs", request_id="p")
    reply = await server.admin.PurgeTopic(request)
    assert (reply.done, reply.purged) == (True, 1)
    await Producer(server.queue).add("b")
    assert (await server.admin.PurgeTopic(request)).purged == 0


@rpc
async def ListDeadTasks(server: RunningServer) -> None:  # noqa: N802
    await Producer(server.queue).dead_letter("a", payload=b"xyz")
    request = admin_pb.ListDeadTasksRequest(topic="jobs", view=task_pb2.TASK_VIEW_FULL)
    (task,) = (await server.admin.ListDeadTasks(request)).tasks
    assert (task.id, task.payload, task.last_error) == ("a", b"xyz", "poison")


@rpc
async def RedriveDeadTasks(server: RunningServer) -> None:  # noqa: N802
    producer = Producer(server.queue)
    for task_id in "ab":
        await producer.dead_letter(task_id)
    request = admin_pb.RedriveDeadTasksRequest(topic="jobs", ids=["a", "x"], request_id="r")
    reply = await server.admin.RedriveDeadTasks(request)
    assert (reply.redriven, reply.done) == (1, True)
    ok(reply.results[0])
    assert failure_in(reply.results[1].status).reason == "TASK_NOT_FOUND"
    everything = admin_pb.RedriveDeadTasksRequest(topic="jobs", request_id="all")
    assert (await server.admin.RedriveDeadTasks(everything)).redriven == 1
    assert {task.task.run for task in await producer.take(2)} == {2}


@rpc
async def DeleteDeadTask(server: RunningServer) -> None:  # noqa: N802
    await Producer(server.queue).dead_letter("a")
    request = admin_pb.DeleteDeadTaskRequest(topic="jobs", id="a")
    first = await server.admin.DeleteDeadTask(request)
    assert (await server.admin.DeleteDeadTask(request)).revision == first.revision
    assert await state_of(server) == State.PURGED


@rpc
async def GetTopicStats(server: RunningServer) -> None:  # noqa: N802
    await server.admin.CreateTopic(admin_pb.CreateTopicRequest(name="jobs", shards=2))
    producer = Producer(server.queue)
    await producer.dead_letter("dead")
    await producer.take_one("leased")
    for i in range(6):
        await producer.add(f"t{i}", delay=seconds(600))
    await server.queue.Cancel(pb.CancelRequest(topic="jobs", id="t0"))
    reply = await server.admin.GetTopicStats(admin_pb.GetTopicStatsRequest(topic="jobs"))
    assert reply.counts == admin_pb.TaskCounts(
        enqueued=8, scheduled=5, leased=1, dead=1, cancelled=1
    )
    assert [shard.shard for shard in reply.shards] == [0, 1]
    assert sum(shard.counts.enqueued for shard in reply.shards) == 8
    assert sum(shard.tombstones for shard in reply.shards) == 1
    assert sum(shard.HasField("next_lease_expire_time") for shard in reply.shards) == 1
    assert all(shard.HasField("next_due_time") for shard in reply.shards)


# Last, when all cases are registered.
@pytest.mark.parametrize("name", sorted(CASES))
async def test_rpc(server: RunningServer, name: str) -> None:
    await CASES[name](server)
