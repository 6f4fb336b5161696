"""StreamRetrieve: nothing is leased without credit, and everything that is due with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ddq.config import Settings
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.support.rpc import DEADLINE_S, Producer, failure_of, seconds
from tests.support.server import RunningServer, serving
from tests.support.store import StoreServer

MIB = 1024 * 1024


class Stream:
    """The client's side of one call."""

    def __init__(self, server: RunningServer) -> None:
        self._call = server.queue.StreamRetrieve(timeout=DEADLINE_S)

    async def subscribe(self, *topics: str, tasks: int, bytes_: int = MIB, **options: Any) -> None:
        """Sends the first message."""
        subscription = pb.Subscription(topics=topics or ["jobs"], **options)
        await self.send(subscribe=subscription, add_credit_tasks=tasks, add_credit_bytes=bytes_)

    async def send(self, **fields: Any) -> None:
        """Sends a message."""
        await self._call.write(pb.StreamRetrieveRequest(**fields))

    async def read(self) -> Any:
        """The next reply; EOF at the end."""
        return await self._call.read()

    async def ids(self, count: int) -> list[str]:
        """The ids of the next tasks, which may come in several replies."""
        found: list[str] = []
        while len(found) < count:
            found += [leased.task.id for leased in (await self.read()).tasks]
        return found

    async def close(self) -> None:
        """Closes the requests."""
        await self._call.done_writing()

    async def has_ended(self) -> bool:
        """Whether the call ends, without an error, and not with another reply."""
        return not isinstance(await self.read(), pb.StreamRetrieveResponse)

    async def failure(self) -> Any:
        """The error that the call ends with."""
        return await failure_of(self._call.read())


async def leased_ids(server: RunningServer, topic: str = "jobs") -> set[str]:
    reply = await server.queue.ListTasks(
        pb.ListTasksRequest(topic=topic, state=task_pb2.TASK_STATE_LEASED)
    )
    return {task.id for task in reply.tasks}


async def test_tasks_arrive_as_they_become_due_and_never_more_than_the_credit_in_tasks(
    server: RunningServer,
) -> None:
    stream = Stream(server)
    await stream.subscribe(tasks=2)
    producer = Producer(server.queue)
    await producer.add("later", delay=seconds(0.2))
    assert await stream.ids(1) == ["later"]
    for task_id in "abc":
        await producer.add(task_id)
    (second,) = await stream.ids(1)
    waiting = asyncio.ensure_future(stream.read())
    # A Retrieve gets what the stream has no credit for.
    reply = await server.queue.Retrieve(
        pb.RetrieveRequest(topics=["jobs"], max_tasks=1, wait=seconds(20)), timeout=DEADLINE_S
    )
    (taken,) = (leased.task.id for leased in reply.tasks)
    assert await leased_ids(server) == {"later", second, taken}
    assert not waiting.done()
    await stream.send(add_credit_tasks=1)
    (third,) = (leased.task.id for leased in (await waiting).tasks)
    assert {second, taken, third} == {"a", "b", "c"}


async def test_the_credit_in_bytes_holds_and_a_larger_task_is_made_up_for(
    server: RunningServer,
) -> None:
    producer = Producer(server.queue)
    await producer.add("first", payload=b"x" * 1_000)
    await producer.add("second", payload=b"x" * 1_000)
    stream = Stream(server)
    await stream.subscribe(tasks=10, bytes_=10)
    assert await stream.ids(1) == ["first"]
    waiting = asyncio.ensure_future(stream.read())
    await stream.send(add_credit_bytes=980)
    # By now the server has seen the credit: it says so to another stream of the same connection.
    await Producer(server.queue, "other").add("a")
    other = Stream(server)
    await other.subscribe("other", tasks=1)
    assert await other.ids(1) == ["a"]
    assert not waiting.done()
    assert await leased_ids(server) == {"first"}
    await stream.send(add_credit_bytes=100)
    assert [leased.task.id for leased in (await waiting).tasks][:1] == ["second"]


async def test_closing_the_requests_ends_the_call_and_leases_nothing_more(
    server: RunningServer,
) -> None:
    stream = Stream(server)
    await stream.subscribe(tasks=10)
    await Producer(server.queue).add("a")
    assert await stream.ids(1) == ["a"]
    await stream.close()
    assert await stream.has_ended()
    await Producer(server.queue).add("b")
    reply = await server.queue.Retrieve(
        pb.RetrieveRequest(topics=["jobs"], wait=seconds(20)), timeout=DEADLINE_S
    )
    assert [leased.task.id for leased in reply.tasks] == ["b"]


async def test_a_server_that_stops_says_so(store_server: StoreServer) -> None:
    async with serving(store_server, Settings(drain_ms=20_000)) as server:
        stream = Stream(server)
        await stream.subscribe(tasks=10)
        await Producer(server.queue).add("a")
        assert await stream.ids(1) == ["a"]
        server.stop.set()
        last = await stream.read()
        assert last.draining
        assert not last.tasks
        assert await stream.has_ended()


async def test_a_lost_reply_is_returned_by_a_retrieve_with_its_request_id(
    server: RunningServer,
) -> None:
    await Producer(server.queue).add("a")
    stream = Stream(server)
    await stream.subscribe(tasks=10, request_id="s")
    (leased,) = (await stream.read()).tasks
    repeated = await server.queue.Retrieve(pb.RetrieveRequest(topics=["jobs"], request_id="s/1"))
    assert [again.lease_token for again in repeated.tasks] == [leased.lease_token]
    assert repeated.tasks[0].task.attempt == 1


async def test_streams_share_topics_and_get_the_tasks_of_all_of_them(
    server: RunningServer,
) -> None:
    first, second = Stream(server), Stream(server)
    for stream in (first, second):
        await stream.subscribe("a", "b", tasks=2)
    for topic in "ab":
        for number in range(2):
            await Producer(server.queue, topic).add(f"{topic}{number}")
    ids = await asyncio.gather(first.ids(2), second.ids(2))
    assert {*ids[0], *ids[1]} == {"a0", "a1", "b0", "b1"}


TOO_MANY = 10_001


@pytest.mark.parametrize(
    ("field", "messages"),
    [
        ("subscribe", [{"add_credit_tasks": 1}]),
        ("subscribe.topics", [{"subscribe": pb.Subscription()}]),
        ("subscribe.topics[0]", [{"subscribe": pb.Subscription(topics=["{"])}]),
        (
            "subscribe.lease_duration",
            [{"subscribe": pb.Subscription(topics=["jobs"], lease_duration=seconds(0.01))}],
        ),
        (
            "subscribe.request_id",
            [{"subscribe": pb.Subscription(topics=["jobs"], request_id="x" * 53)}],
        ),
        (
            "add_credit_tasks",
            [{"subscribe": pb.Subscription(topics=["jobs"]), "add_credit_tasks": TOO_MANY}],
        ),
        (
            "add_credit_bytes",
            [{"subscribe": pb.Subscription(topics=["jobs"]), "add_credit_bytes": 64 * MIB + 1}],
        ),
        ("add_credit_tasks", [{"subscribe": pb.Subscription(topics=["jobs"])}, {}]),
        (
            "add_credit_tasks",
            [
                {"subscribe": pb.Subscription(topics=["jobs"]), "add_credit_tasks": 1},
                {"add_credit_tasks": TOO_MANY - 1},
            ],
        ),
        ("subscribe", [{"subscribe": pb.Subscription(topics=["jobs"])}] * 2),
    ],
)
async def test_a_message_out_of_bounds_is_refused_by_its_field(
    server: RunningServer, field: str, messages: list[dict[str, Any]]
) -> None:
    stream = Stream(server)
    for message in messages:
        await stream.send(**message)
    failure = await stream.failure()
    assert (failure.code, failure.fields) == ("INVALID_ARGUMENT", (field,))


async def test_a_call_without_a_message_is_refused(server: RunningServer) -> None:
    stream = Stream(server)
    await stream.close()
    assert (await stream.failure()).fields == ("subscribe",)
