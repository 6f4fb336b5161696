"""Long polls: woken by what becomes ready, by nothing else, and never left asleep."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ddq.config import Settings
from ddq.server.notifier import ReadyNotifier
from ddq.server.service import QueueService
from ddq.store.hints import ReadyHint
from ddq.store.keys import ShardId
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call
from tests.support.rpc import DEADLINE_S, Producer, failure_of, seconds
from tests.support.server import RunningServer, serving
from tests.support.store import StoreServer


def wait_for(server: RunningServer, *topics: str, wait_s: float = 25.0, **options: Any) -> Any:
    """A Retrieve that waits."""
    return asyncio.ensure_future(
        server.queue.Retrieve(
            pb.RetrieveRequest(topics=topics or ["jobs"], wait=seconds(wait_s), **options),
            timeout=DEADLINE_S,
        )
    )


async def scripts_settled(server: RunningServer, more_than: int) -> None:
    """Waits until the store has run more scripts than that: the calls have begun."""
    async with asyncio.timeout(DEADLINE_S):
        while server.store.script_calls() <= more_than:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


async def test_a_wait_ends_when_a_task_becomes_due(server: RunningServer) -> None:
    producer = Producer(server.queue)
    first = await producer.add("later", delay=seconds(0.3))
    waiting = wait_for(server)
    (leased,) = (await waiting).tasks
    assert leased.task.id == "later"
    got_ms = leased.receipt.store_time.ToMilliseconds()
    assert got_ms >= first.result.due_time.ToMilliseconds(), "never early"


async def test_an_earlier_task_wakes_a_scheduler_that_sleeps(server: RunningServer) -> None:
    producer = Producer(server.queue)
    await producer.add("in an hour", delay=seconds(3_600))
    waiting = wait_for(server)
    await producer.add("soon", delay=seconds(0.2))
    assert [leased.task.id for leased in (await waiting).tasks] == ["soon"]


async def test_a_wait_for_a_topic_that_does_not_exist_ends_when_it_does(
    server: RunningServer,
) -> None:
    waiting = wait_for(server, "later")
    await Producer(server.queue, "other").add("a")
    failure = await failure_of(server.admin.GetTopic(admin_pb.GetTopicRequest(name="later")))
    assert failure.reason == "TOPIC_NOT_FOUND", "a Retrieve creates no topic"
    await Producer(server.queue, "later").add("a")
    assert [leased.task.topic for leased in (await waiting).tasks] == ["later"]


async def test_a_wait_ends_by_an_expired_lease_a_release_and_a_resumed_topic(
    server: RunningServer,
) -> None:
    producer = Producer(server.queue)
    await producer.add("a", retry_policy=task_pb2.RetryPolicy(initial_backoff=seconds(0)))
    (leased,) = await producer.take(1, lease_duration=seconds(0.1))
    (again,) = (await wait_for(server)).tasks
    assert again.task.attempt == 2
    waiting = wait_for(server)
    await server.queue.Release(
        pb.ReleaseRequest(topic="jobs", id="a", lease_token=again.lease_token)
    )
    (third,) = (await waiting).tasks
    assert third.task.attempt == 2
    await server.admin.PauseTopic(admin_pb.PauseTopicRequest(name="jobs"))
    await server.queue.Release(
        pb.ReleaseRequest(topic="jobs", id="a", lease_token=third.lease_token)
    )
    waiting = wait_for(server)
    await server.admin.ResumeTopic(admin_pb.ResumeTopicRequest(name="jobs"))
    assert len((await waiting).tasks) == 1
    assert leased.task.id == "a"


async def test_an_empty_wait_ends_by_itself_and_is_ok(server: RunningServer) -> None:
    await Producer(server.queue).add("a", delay=seconds(600))
    assert not (await wait_for(server, wait_s=0.05)).tasks
    assert not (await wait_for(server, "none", wait_s=0.0)).tasks


async def test_a_wait_leaves_before_its_deadline(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Plenty, so that a slow machine does not matter; without it the call would end in an error.
    for module in ("retrieval", "questions"):
        monkeypatch.setattr(f"ddq.server.{module}.REPLY_MARGIN_S", 9.5)
    await Producer(server.queue).add("a", delay=seconds(600))
    request = pb.RetrieveRequest(topics=["jobs"], wait=seconds(60))
    assert not (await server.queue.Retrieve(request, timeout=10.0)).tasks


async def test_one_task_wakes_one_of_many_waiters(server: RunningServer) -> None:
    producer = Producer(server.queue)
    await producer.add("far", delay=seconds(3_600))
    server.store.reset_stats()
    waiters = [wait_for(server, wait_s=20) for _ in range(50)]
    await scripts_settled(server, 49)
    server.store.reset_stats()
    await producer.add("soon", delay=seconds(0.1))
    done, left = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    assert [len(task.result().tasks) for task in done] == [1]
    # Enqueue, promote or two, one retrieve: a herd would have cost fifty.
    assert server.store.script_calls() <= 6
    await producer.add("b")
    await producer.add("c")
    async with asyncio.timeout(DEADLINE_S):
        while len([task for task in left if task.done()]) < 2:
            await asyncio.wait(
                [task for task in left if not task.done()], return_when=asyncio.FIRST_COMPLETED
            )
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def test_a_cancelled_wait_claims_nothing(server: RunningServer) -> None:
    producer = Producer(server.queue)
    await producer.add("far", delay=seconds(3_600))
    server.store.reset_stats()
    gone = [wait_for(server) for _ in range(10)]
    await scripts_settled(server, 9)
    for waiting in gone:
        waiting.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    await producer.add("a", delay=seconds(0.1))
    (leased,) = await producer.take()
    assert leased.task.attempt == 1
    stats = await server.admin.GetTopicStats(admin_pb.GetTopicStatsRequest(topic="jobs"))
    assert stats.counts.leased == 1


async def test_a_call_that_waits_for_several_topics_gets_the_first_task_of_any(
    server: RunningServer,
) -> None:
    for name in ("a", "b", "c"):
        await Producer(server.queue, name).add("far", delay=seconds(3_600))
    waiting = wait_for(server, "a", "b", "c", max_tasks=5)
    await Producer(server.queue, "b").add("x")
    assert [leased.task.topic for leased in (await waiting).tasks] == ["b"]


async def test_topics_are_asked_in_turn(server: RunningServer) -> None:
    names = ("a", "b", "c")
    for name in names:
        for i in range(4):
            await Producer(server.queue, name).add(f"t{i}")
    stats: list[Any] = []
    for name in names:
        while not stats or stats[-1].counts.ready != 4:
            request = admin_pb.GetTopicStatsRequest(topic=name)
            stats.append(await server.admin.GetTopicStats(request))
        stats.clear()
    seen = []
    for _ in range(6):
        reply = await server.queue.Retrieve(pb.RetrieveRequest(topics=names))
        seen += [leased.task.topic for leased in reply.tasks]
    assert sorted(seen) == ["a", "a", "b", "b", "c", "c"], "no topic starves the others"


async def test_a_repeat_over_several_shards_leases_nothing_new(server: RunningServer) -> None:
    await server.admin.CreateTopic(admin_pb.CreateTopicRequest(name="jobs", shards=4))
    producer = Producer(server.queue)
    for i in range(12):
        await producer.add(f"t{i}")
    first = await server.queue.Retrieve(
        pb.RetrieveRequest(topics=["jobs"], max_tasks=5, wait=seconds(20), request_id="r")
    )
    assert first.tasks
    for _ in range(4):
        again = await server.queue.Retrieve(
            pb.RetrieveRequest(topics=["jobs"], max_tasks=5, request_id="r")
        )
        assert {task.lease_token for task in again.tasks} == {
            task.lease_token for task in first.tasks
        }


async def put_ready(server: RunningServer, topic: str, ids: list[str], spec: Any) -> None:
    """Enqueues tasks, and returns when all of them are ready."""
    producer = Producer(server.queue, topic)
    for task_id in ids:
        await producer.add(task_id, **spec)
    await all_ready(server, topic, len(ids))


async def all_ready(server: RunningServer, topic: str, count: int) -> None:
    """Waits until so many tasks are ready."""
    request = admin_pb.GetTopicStatsRequest(topic=topic)
    async with asyncio.timeout(DEADLINE_S):
        while True:
            counts = (await server.admin.GetTopicStats(request)).counts
            if counts.ready >= count:
                return
            await asyncio.sleep(0.01)


async def test_max_bytes_bounds_the_reply_over_all_its_topics(server: RunningServer) -> None:
    names = ("a", "b", "c", "d")
    for name in names:
        await put_ready(server, name, ["t"], {"payload": bytes(900)})
    request = pb.RetrieveRequest(topics=names, max_tasks=10, max_bytes=1_000)
    for _ in names:
        reply = await server.queue.Retrieve(request)
        assert [len(leased.task.payload) for leased in reply.tasks] == [900]
    large = pb.RetrieveRequest(topics=names, max_tasks=10, max_bytes=100)
    await put_ready(server, "a", ["large"], {"payload": bytes(5_000)})
    assert [leased.task.id for leased in (await server.queue.Retrieve(large)).tasks] == ["large"]


async def test_a_reply_fits_into_what_clients_take_by_default(server: RunningServer) -> None:
    """Long errors and ids come on top of max_bytes: a reply too large would burn attempts."""
    ids = [f"{i:0256}" for i in range(1_000)]
    policy = task_pb2.RetryPolicy(initial_backoff=seconds(0), max_attempts=2)
    specs = [task_pb2.TaskSpec(id=i, payload=bytes(3_000), retry_policy=policy) for i in ids]
    for start in (0, 500):
        items = [pb.BatchEnqueueItem(task=spec) for spec in specs[start : start + 500]]
        await server.queue.BatchEnqueue(pb.BatchEnqueueRequest(topic="jobs", items=items))
    failed = 0
    while failed < len(ids):
        request = pb.RetrieveRequest(topics=["jobs"], max_tasks=200, wait=seconds(20))
        tasks = (await server.queue.Retrieve(request)).tasks
        verdict = pb.NackVerdict(error="e" * 2_048, delay=seconds(0))
        nacks = [
            pb.BatchNackItem(id=task.task.id, lease_token=task.lease_token, verdict=verdict)
            for task in tasks
            if task.task.attempt == 1
        ]
        failed += len(nacks)
        if nacks:
            await server.queue.BatchNack(pb.BatchNackRequest(topic="jobs", items=nacks))
        again = [
            pb.BatchReleaseItem(id=task.task.id, lease_token=task.lease_token)
            for task in tasks
            if task.task.attempt == 2
        ]
        if again:
            await server.queue.BatchRelease(pb.BatchReleaseRequest(topic="jobs", items=again))
    await all_ready(server, "jobs", len(ids))
    seen = 0
    while seen < len(ids):
        request = pb.RetrieveRequest(topics=["jobs"], max_tasks=1_000)
        reply = await server.queue.Retrieve(request)
        assert reply.tasks
        seen += len(reply.tasks)
    assert seen == len(ids)


# A process that is behind, and hints that come at a bad moment ------------------------------


async def test_a_topic_deleted_elsewhere_is_like_an_empty_one(store_server: StoreServer) -> None:
    async with serving(store_server) as here, serving(store_server) as there:
        await Producer(here.queue).take_one("a")
        await there.admin.DeleteTopic(admin_pb.DeleteTopicRequest(name="jobs"))
        assert not (await wait_for(here, wait_s=0.05)).tasks
        assert not (await wait_for(here, wait_s=0.05, request_id="r")).tasks
        waiting = wait_for(here)
        await there.admin.CreateTopic(admin_pb.CreateTopicRequest(name="jobs", shards=3))
        await Producer(there.queue).add("b")
        assert [leased.task.id for leased in (await waiting).tasks] == ["b"]


async def test_a_topic_deleted_during_a_wait_is_like_an_empty_one(
    store_server: StoreServer,
) -> None:
    async with serving(store_server) as here, serving(store_server) as there:
        await Producer(here.queue).add("far", delay=seconds(3_600))
        store_server.reset_stats()
        waiting = wait_for(here)
        await scripts_settled(here, 0)
        await there.admin.DeleteTopic(admin_pb.DeleteTopicRequest(name="jobs"))
        await Producer(there.queue).add("new")
        assert [leased.task.id for leased in (await waiting).tasks] == ["new"]


class Gate:
    """Holds back one store call, so that something can happen at just that moment."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.reached = asyncio.Event()
        self.armed = False

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.armed:
            self.armed = False
            self.reached.set()
            await asyncio.Event().wait()
        return await self._inner(*args, **kwargs)


async def test_a_task_is_passed_on_by_who_is_cancelled_while_fetching_it(
    open_store_here: OpenStoreHere,
) -> None:
    """Woken for the only task, and cancelled before the request reached the store."""
    queue = Queue(open_store_here())
    await queue.create()
    notifier = ReadyNotifier(queue.store.hints)
    service = QueueService(queue.store, notifier)
    gate = Gate(queue.store.jobs.retrieve)
    queue.store.jobs.retrieve = gate  # type: ignore[method-assign]
    request = pb.RetrieveRequest(topics=["jobs"], wait=seconds(20))
    first = asyncio.create_task(service.retrieve(request, call()))
    await asyncio.sleep(0)
    second = asyncio.create_task(service.retrieve(request, call()))
    commands = queue.controlled_store.connection.commands
    before = len(commands)
    while len(commands) < before + 2:  # noqa: ASYNC110 - both have looked once
        await asyncio.sleep(0.01)
    await queue.add("a")
    await queue.promote()
    gate.armed = True
    notifier.on_hint(ReadyHint(ShardId("jobs", 0), 1))
    await gate.reached.wait()
    first.cancel()
    async with asyncio.timeout(5):
        reply = await second
    assert [leased.task.id for leased in reply.tasks] == ["a"]
    assert first.cancelled()


@pytest.mark.parametrize("delay_s", [1.5])
async def test_a_task_that_is_due_later_costs_a_handful_of_scripts(
    store_server: StoreServer, delay_s: float
) -> None:
    """Nothing polls: the scripts that run while all calls wait are counted, not timed."""
    settings = Settings(drain_ms=1)
    async with serving(store_server, settings) as server:
        producer = Producer(server.queue)
        await producer.take_one("makes the topic known to the scheduler")
        waiting = wait_for(server)
        store_server.reset_stats()
        await producer.add("a", delay=seconds(delay_s))
        await waiting
        figures = store_server.commandstats()
        from_clients = sum(figures.get(name, 0) for name in ("eval", "evalsha", "ping"))
        assert from_clients < 10, figures
