"""A wake-up that a Retrieve does not use reaches another one that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from ddq.config import Settings
from ddq.entropy import SystemClock
from ddq.errors import DdqError, StoreUnreachable, WriteOutcomeUnknown
from ddq.server.rpc import CallFactory
from ddq.store.keys import ShardId
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.stateful.virtual import run_virtually
from tests.support.queue import error_of
from tests.support.shards import FakeShards, Mode

A0, A1, B0 = ShardId("a", 0), ShardId("a", 1), ShardId("b", 0)
WAIT_S = 8.0

Scenario = Callable[[FakeShards], Coroutine[Any, Any, None]]


def play(scenario: Scenario, **shards_counts: int) -> None:
    """Runs a scenario in virtual time over topics with so many shards."""

    async def run() -> None:
        store = FakeShards(**shards_counts)
        try:
            await scenario(store)
        finally:
            await store.close()

    run_virtually(run())


async def begun(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A call that has looked once and waits."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0.1)
    return task


@pytest.mark.parametrize("shards", [1, 2])
def test_a_repeat_whose_leases_have_lapsed_is_answered_at_once(shards: int) -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[A0].records["r"] = []
        assert await store.take("a", wait_s=WAIT_S, request_id="r") == ([], 0.0)

    play(scenario, a=shards)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_repeat_takes_no_wake_up_from_a_call_that_waits(shards: int) -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[A0].records["r"] = []
        repeat = await begun(store.take("a", wait_s=WAIT_S, request_id="r"))
        waiting = await begun(store.take("a", wait_s=WAIT_S, request_id="other"))
        store.make_ready(A0, "x")
        ids, took_s = await waiting
        assert ids == ["x"]
        assert took_s < 0.2
        await repeat

    play(scenario, a=shards)


def test_a_repeat_that_was_woken_hands_the_wake_up_on() -> None:
    """Its first attempt was answered while it waited: it is still under way on another server."""

    async def scenario(store: FakeShards) -> None:
        repeat = await begun(store.take("a", wait_s=WAIT_S, request_id="r"))
        waiting = await begun(store.take("a", wait_s=WAIT_S, request_id="other"))
        store.shards[A0].records["r"] = []
        store.make_ready(A0, "x")
        assert (await repeat)[0] == []
        ids, took_s = await waiting
        assert ids == ["x"]
        assert took_s < 0.2

    play(scenario, a=1)


@pytest.mark.parametrize("second", [A1, B0])
def test_a_full_reply_hands_on_the_wake_up_of_the_shard_that_it_did_not_ask(
    second: ShardId,
) -> None:
    """Woken for two shards and full after the first: the other one's task is still there."""

    async def scenario(store: FakeShards) -> None:
        first = await begun(store.take("a", "b", wait_s=WAIT_S))
        store.make_ready(A0, "x")
        store.make_ready(second, "y")
        waiting = asyncio.create_task(store.take("a", "b", wait_s=WAIT_S))
        # It looks once, before the first has taken its task, and finds the other one by itself.
        ids, _ = await first
        other, took_s = await waiting
        assert sorted([*ids, *other]) == ["x", "y"]
        assert took_s < 0.2

    play(scenario, a=2, b=1)


@pytest.mark.parametrize("second", [A1, B0])
def test_both_waiting_calls_get_a_task_when_one_of_them_was_woken_for_both(
    second: ShardId,
) -> None:
    async def scenario(store: FakeShards) -> None:
        first = await begun(store.take("a", "b", wait_s=WAIT_S))
        waiting = await begun(store.take("a", "b", wait_s=WAIT_S))
        waiters = [*store.notifier._topics["a"].idle]
        # Both wake-ups reach the first: as when the second was in the middle of another look.
        for shard, task_id in ((A0, "x"), (second, "y")):
            store.shards[shard].ready.append(task_id)
            waiters[0].notify(shard)
        assert len((await first)[0]) == 1
        ids, took_s = await waiting
        assert len(ids) == 1
        assert took_s < 0.2

    play(scenario, a=2, b=1)


@pytest.mark.parametrize("error", [WriteOutcomeUnknown("reset"), StoreUnreachable("away")])
def test_a_call_that_fails_hands_on_what_it_was_woken_for(error: DdqError) -> None:
    async def scenario(store: FakeShards) -> None:
        first = await begun(error_of(store.take("a", wait_s=WAIT_S)))
        waiting = await begun(store.take("a", wait_s=WAIT_S))
        shard = store.shards[A0]
        shard.error, shard.errors_left_count = error, 1
        store.make_ready(A0, "x")
        assert (await first) is error
        ids, took_s = await waiting
        assert ids == ["x"]
        assert took_s < 0.2

    play(scenario, a=1)


def test_a_call_that_is_woken_in_vain_does_not_ask_without_end() -> None:
    """The task was taken by another server, or its topic is gone."""

    async def scenario(store: FakeShards) -> None:
        waiting = await begun(store.take("a", wait_s=WAIT_S))
        store.notifier.notify(A0, 1)
        store.notifier.notify(ShardId("a", 7), 1)
        await asyncio.sleep(1.0)
        assert store.asked[A0] == 2
        topic = store.topics.pop("a")
        store.notifier.notify(A0, 1)
        await asyncio.sleep(1.0)
        store.topics["a"] = topic
        assert await waiting == ([], WAIT_S)
        assert store.asked[A0] == 3, "and once at the end"

    play(scenario, a=1)


def test_a_call_that_is_cancelled_hands_on_its_wake_up_though_it_was_to_ask_all_shards() -> None:
    """It waits for another topic too, which was created or read again in between."""

    async def scenario(store: FakeShards) -> None:
        first = await begun(store.take("a", "b", wait_s=WAIT_S))
        waiting = await begun(store.take("a", wait_s=WAIT_S))
        store.make_ready(A0, "x")
        store.notifier.notify_all("b")
        first.cancel()
        ids, took_s = await waiting
        assert ids == ["x"]
        assert took_s < 0.3

    play(scenario, a=1, b=1)


def test_a_call_that_is_cancelled_while_it_asks_all_shards_hands_on_its_wake_up() -> None:
    async def scenario(store: FakeShards) -> None:
        first = await begun(store.take("a", "b", wait_s=WAIT_S))
        waiting = await begun(store.take("a", wait_s=WAIT_S))
        store.latency_s = 0.5
        store.make_ready(A0, "x")
        store.notifier.notify_all("b")
        await asyncio.sleep(0.1)
        first.cancel()
        ids, took_s = await waiting
        assert ids == ["x"]
        assert took_s < 1.0

    play(scenario, a=1, b=1)


def test_a_call_that_asks_a_shard_that_hangs_does_not_get_the_wake_up_of_one_that_waits() -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[B0].mode = Mode.HANGING
        first = await begun(error_of(store.take("a", "b", wait_s=WAIT_S)))
        waiting = await begun(store.take("a", wait_s=WAIT_S))
        store.make_ready(A0, "x")
        ids, took_s = await waiting
        assert ids == ["x"]
        assert took_s < 0.3
        await first

    play(scenario, a=1, b=1)


class Stream:
    """A StreamRetrieve of the fake store."""

    def __init__(self, store: FakeShards, *topics: str, tasks: int) -> None:
        self._requests: asyncio.Queue[pb.StreamRetrieveRequest | None] = asyncio.Queue()
        self._replies: asyncio.Queue[pb.StreamRetrieveResponse] = asyncio.Queue()
        subscription = pb.Subscription(topics=topics)
        self.send(subscribe=subscription, add_credit_tasks=tasks, add_credit_bytes=1_000)
        calls = CallFactory(Settings(), SystemClock())
        work = store.service.stream_retrieve(self._read(), self._replies.put, calls)
        self._task = asyncio.create_task(work)

    def send(self, **fields: Any) -> None:
        self._requests.put_nowait(pb.StreamRetrieveRequest(**fields))

    async def _read(self) -> AsyncIterator[pb.StreamRetrieveRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def ids(self) -> list[str]:
        """Those of the next reply."""
        return [leased.task.id for leased in (await self._replies.get()).tasks]

    async def close(self) -> None:
        self._requests.put_nowait(None)
        await self._task


@pytest.mark.parametrize("shards", [1, 2])
def test_a_stream_asks_once_for_each_wake_up(shards: int) -> None:
    async def scenario(store: FakeShards) -> None:
        stream = Stream(store, "a", tasks=100)
        await asyncio.sleep(0.1)
        first = store.asked[A0]
        for number in range(10):
            store.make_ready(A0, str(number))
            assert await stream.ids() == [str(number)]
            await asyncio.sleep(0.1)
        assert store.asked[A0] == first + 10
        await stream.close()

    play(scenario, a=shards)


def test_a_stream_gets_what_becomes_ready_while_it_asks() -> None:
    async def scenario(store: FakeShards) -> None:
        stream = Stream(store, "a", tasks=100)
        await asyncio.sleep(0.1)
        store.late_s = 0.2
        store.make_ready(A0, "x")
        await asyncio.sleep(0.1)
        # The shard has answered the question, and the answer is on its way.
        store.make_ready(A0, "y")
        assert await stream.ids() == ["x"]
        assert await stream.ids() == ["y"]
        await stream.close()

    play(scenario, a=1)


def test_a_stream_without_credit_leaves_wake_ups_to_others() -> None:
    async def scenario(store: FakeShards) -> None:
        stream = Stream(store, "a", tasks=1)
        await asyncio.sleep(0.1)
        waiting = await begun(store.take("a", wait_s=WAIT_S))
        store.make_ready(A0, "x")
        assert await stream.ids() == ["x"]
        store.make_ready(A0, "y")
        ids, took_s = await waiting
        assert ids == ["y"]
        assert took_s < 0.3
        # With credit it looks for what was announced meanwhile.
        store.make_ready(A0, "z")
        stream.send(add_credit_tasks=1)
        assert await stream.ids() == ["z"]
        await stream.close()

    play(scenario, a=1)


def test_a_stream_without_credit_is_not_woken_in_the_place_of_another_call() -> None:
    async def scenario(store: FakeShards) -> None:
        stream = Stream(store, "a", tasks=1)
        await asyncio.sleep(0.1)
        store.make_ready(A0, "x")
        assert await stream.ids() == ["x"]
        # No call waits for the second task, and the stream does not take it.
        store.make_ready(A0, "y")
        assert (await store.take("a"))[0] == ["y"]
        waiting = await begun(store.take("a", "b", wait_s=WAIT_S))
        # It was woken for another topic, and has not asked yet.
        store.notifier.notify(B0, 1)
        store.make_ready(A0, "z")
        ids, took_s = await waiting
        assert ids == ["z"]
        assert took_s < 0.3
        await stream.close()

    play(scenario, a=1, b=1)
