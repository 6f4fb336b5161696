"""One shard that does not answer does not keep a Retrieve from the tasks of the others."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ddq.errors import DdqError, Overloaded, StoreMalformed, StoreUnreachable
from ddq.store.keys import ShardId
from tests.stateful.virtual import run_virtually
from tests.support.queue import error_of
from tests.support.shards import FakeShards, Mode

DEADLINE_S = 12.0
A0, A1 = ShardId("a", 0), ShardId("a", 1)
B0 = ShardId("b", 0)

Scenario = Callable[[FakeShards], Coroutine[Any, Any, None]]


def play(scenario: Scenario, **shards_counts: int) -> None:
    """Runs a scenario in virtual time over topics with so many shards."""

    async def run() -> None:
        store = FakeShards(**(shards_counts or {"a": 2}))
        try:
            await scenario(store)
        finally:
            await store.close()

    run_virtually(run())


@pytest.mark.parametrize("request_id", ["", "r"])
@pytest.mark.parametrize("mode", [Mode.MOVING, Mode.AWAY])
@pytest.mark.parametrize("blocked", [0, 1])
def test_a_blocked_shard_leaves_time_for_the_others(
    mode: Mode, blocked: int, request_id: str
) -> None:
    async def scenario(store: FakeShards) -> None:
        other = ShardId("a", 1 - blocked)
        store.shards[ShardId("a", blocked)].mode = mode
        store.shards[other].ready = ["x"]
        ids, took_s = await store.take("a", request_id=request_id)
        assert ids == ["x"]
        assert took_s <= DEADLINE_S / 2, "half of the time is left for the other shard"

    play(scenario)


@pytest.mark.parametrize("mode", [Mode.MOVING, Mode.AWAY, Mode.HANGING])
def test_a_call_with_a_request_id_waits_a_second_for_a_blocked_shard_and_leases_nothing_there(
    mode: Mode,
) -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[A0].mode = mode
        store.shards[A1].ready = ["x"]
        ids, took_s = await store.take("a", request_id="r")
        assert (ids, took_s <= 1.0) == (["x"], True)
        assert store.asked[A0] == 1, "asked for earlier leases, and not for new ones"

    play(scenario)


@pytest.mark.parametrize("request_id", ["", "r"])
def test_a_slot_that_moves_is_skipped_at_once(request_id: str) -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[A0].mode = Mode.MOVING
        store.shards[A1].ready = ["x"]
        assert await store.take("a", request_id=request_id) == (["x"], 0.0)

    play(scenario)


@pytest.mark.parametrize("mode", [Mode.MOVING, Mode.AWAY, Mode.HANGING])
def test_a_shard_that_is_known_to_be_away_is_skipped_at_once(mode: Mode) -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[A0].mode = mode
        store.shards[A1].ready = ["x", "y", "z"]
        await store.take("a", request_id="r1")
        for request_id in ("r2", ""):
            ids, took_s = await store.take("a", request_id=request_id)
            assert (len(ids), took_s) == (1, 0.0)

    play(scenario)


def test_a_repeat_asks_a_shard_that_was_away_if_its_node_answers_for_another() -> None:
    """After a failover one shard is still taken for absent when its node answers already. A repeat
    that skipped it would lease a second time, at another shard (G13)."""

    async def scenario(store: FakeShards) -> None:
        store.nodes[A0] = store.nodes[A1]
        store.shards[A0].ready = ["x"]
        assert await store.take("a", request_id="r") == (["x"], 0.0)
        store.shards[A0].mode, store.shards[A1].ready = Mode.AWAY, ["z"]
        assert (await store.take("a", request_id="other"))[0] == ["z"]
        store.shards[A0].mode = Mode.WELL
        store.shards[A1].ready = ["y"]
        assert await store.take("a", request_id="r") == (["x"], 0.0), "what it was given before"
        assert store.shards[A1].ready == ["y"]

    play(scenario)


def test_one_call_over_64_shards_on_a_node_that_hangs_is_bounded() -> None:
    async def scenario(store: FakeShards) -> None:
        for index in range(63):
            store.shards[ShardId("a", index)].mode = Mode.HANGING
        store.shards[ShardId("a", 63)].ready = ["x"]
        ids, took_s = await store.take("a", request_id="r")
        assert (ids, took_s) == (["x"], 1.0)

    play(scenario, a=64)


@pytest.mark.parametrize("mode", [Mode.MOVING, Mode.AWAY])
def test_a_waiting_call_gets_the_task_of_a_shard_that_comes_back(mode: Mode) -> None:
    """No hint says so: its node may have moved, and the hint had no subscribers."""

    async def scenario(store: FakeShards) -> None:
        shard = store.shards[A0]
        shard.mode, shard.ready = mode, ["x"]
        waiting = asyncio.create_task(store.take("a", wait_s=8.0, request_id="r"))
        await asyncio.sleep(4.0)
        shard.mode = Mode.WELL
        ids, took_s = await waiting
        assert ids == ["x"]
        assert took_s <= 5.25

    play(scenario)


def test_a_waiting_call_gets_a_task_that_becomes_ready_elsewhere_meanwhile() -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[A0].mode = Mode.AWAY
        waiting = asyncio.create_task(store.take("a", wait_s=8.0, request_id="r"))
        await asyncio.sleep(4.0)
        store.make_ready(A1, "x")
        assert await waiting == (["x"], 4.0)

    play(scenario)


def test_many_waiting_calls_look_at_an_absent_shard_together() -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[A0].mode = Mode.MOVING
        waiting = [
            asyncio.create_task(store.take("a", wait_s=8.0, request_id=f"r{number}"))
            for number in range(100)
        ]
        await asyncio.sleep(0.1)
        asked = store.asked[A0]
        await asyncio.sleep(1.0)
        assert store.asked[A0] - asked <= 5
        store.shards[A0].mode, store.shards[A0].ready = Mode.WELL, ["x", "y"]
        await asyncio.sleep(1.0)
        assert sorted(task.result()[0][0] for task in waiting if task.done()) == ["x", "y"]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    play(scenario)


def test_looking_again_ends_when_no_call_wants_the_shard() -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[A0].mode = Mode.MOVING
        store.shards[A1].ready = ["x"]
        await store.take("a")
        await asyncio.sleep(60.0)
        assert store.asked[A0] <= 3

    play(scenario)


def test_an_empty_reply_is_never_given_for_a_shard_that_was_not_asked() -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[A0].mode = Mode.MOVING
        for wait_s in (0.0, 3.0):
            error = await error_of(store.take("a", wait_s=wait_s))
            assert isinstance(error, StoreUnreachable)

    play(scenario)


def test_calls_that_skip_the_same_shard_do_not_share_an_error() -> None:
    """Its traceback would grow with each, and keep what their frames hold."""

    async def scenario(store: FakeShards) -> None:
        store.shards[A0].mode = Mode.MOVING
        first, second, third = [await error_of(store.take("a")) for _ in range(3)]
        assert first.message == second.message == third.message
        assert len({id(first), id(second), id(third)}) == 3
        lengths = [len(traceback.extract_tb(error.__traceback__)) for error in (second, third)]
        assert lengths[0] == lengths[1]

    play(scenario)


def test_where_every_shard_is_away_the_error_comes_at_once() -> None:
    async def scenario(store: FakeShards) -> None:
        for shard in store.shards.values():
            shard.mode = Mode.MOVING
        for request_id in ("", "r", "r2", ""):
            error = await error_of(store.take("a", wait_s=8.0, request_id=request_id))
            assert isinstance(error, StoreUnreachable)
        assert asyncio.get_running_loop().time() == 0.0
        for shard in store.shards.values():
            shard.mode = Mode.WELL
        store.shards[A1].ready = ["x"]
        assert await store.take("a") == (["x"], 0.0), "and they are asked all the same"

    play(scenario)


def test_a_slow_store_is_waited_for() -> None:
    """Nothing is gained by skipping every shard."""

    async def scenario(store: FakeShards) -> None:
        for shard in store.shards.values():
            shard.mode = Mode.AWAY
        store.shards[A1].ready = ["x"]
        waiting = asyncio.create_task(error_of(store.take("a", request_id="r")))
        await asyncio.sleep(5.0)
        assert not waiting.done()
        await waiting

    play(scenario)


def test_a_call_that_has_little_time_does_not_make_others_skip_a_shard() -> None:
    async def scenario(store: FakeShards) -> None:
        for shard in store.shards.values():
            shard.mode = Mode.AWAY
        for request_id in ("", "r"):
            await error_of(store.take("a", deadline_s=0.5, request_id=request_id))
        for shard in store.shards.values():
            shard.mode = Mode.WELL
        store.shards[A0].ready, store.shards[A1].ready = ["x"], ["y"]
        ids, _ = await store.take("a", count=2)
        assert sorted(ids) == ["x", "y"]

    play(scenario)


@pytest.mark.parametrize("request_id", ["", "r"])
@pytest.mark.parametrize(
    "error", [StoreMalformed("control is a list"), Overloaded("20000 requests wait")]
)
def test_an_error_of_one_shard_does_not_stop_the_others(error: DdqError, request_id: str) -> None:
    async def scenario(store: FakeShards) -> None:
        store.shards[A0].error = error
        store.shards[A1].ready = ["x"]
        assert await store.take("a", request_id=request_id) == (["x"], 0.0)
        assert type(await error_of(store.take("a"))) is type(error), "and it is said"

    play(scenario)


@pytest.mark.parametrize("mode", [Mode.AWAY, Mode.HANGING])
def test_a_registry_that_is_away_does_not_stop_the_topics_that_are_known(mode: Mode) -> None:
    """A Retrieve may name topics that do not exist yet, and those are looked up each time."""

    async def scenario(store: FakeShards) -> None:
        store.registry.mode = mode
        store.shards[B0].ready = ["x", "y"]
        ids, took_s = await store.take("none yet".replace(" ", "-"), "b", request_id="r")
        assert (ids, took_s) == (["x"], 1.0)
        ids, took_s = await store.take("none-yet", "b", request_id="r2")
        assert (ids, took_s) == (["y"], 0.0)

    play(scenario, b=1)


def test_a_topic_that_is_made_while_the_registry_is_away_is_found_when_it_is_back() -> None:
    async def scenario(store: FakeShards) -> None:
        store.registry.mode = Mode.AWAY
        topic = store.topics.pop("b")
        waiting = asyncio.create_task(store.take("a", "b", wait_s=8.0))
        await asyncio.sleep(3.0)
        store.registry.mode = Mode.WELL
        store.topics["b"] = topic
        store.shards[B0].ready = ["x"]
        ids, took_s = await waiting
        assert ids == ["x"]
        assert took_s <= 4.5

    play(scenario, a=1, b=1)


@pytest.mark.parametrize("request_id", ["", "r"])
def test_a_look_of_a_retrieve_asks_each_of_many_empty_shards_once(request_id: str) -> None:
    """16 topics of 64 shards: one question after the other took most of a second."""

    async def scenario(store: FakeShards) -> None:
        store.latency_s = 0.001
        ids, took_s = await store.take(*store.topics, wait_s=1.0, request_id=request_id)
        assert not ids
        assert took_s == pytest.approx(1.001), "a look, a wait, and a last look"
        assert set(store.asked.values()) == {2}
        store.shards[ShardId("t3", 17)].ready = ["x"]
        ids, took_s = await store.take(*store.topics, request_id=request_id and "r2")
        assert ids == ["x"]
        assert took_s == pytest.approx(0.002)
        assert store.asked[ShardId("t3", 17)] == 4, "what is ready there, and then for it"
        assert store.asked[ShardId("t3", 18)] == 3

    play(scenario, **{f"t{number}": 64 for number in range(16)})


@pytest.mark.parametrize("request_id", ["", "r"])
@pytest.mark.parametrize("mode", [Mode.MOVING, Mode.AWAY, Mode.HANGING])
def test_many_blocked_shards_cost_a_retrieve_one_second_together(
    mode: Mode, request_id: str
) -> None:
    async def scenario(store: FakeShards) -> None:
        for index in range(20):
            store.shards[ShardId("a", index)].mode = mode
        store.shards[ShardId("a", 39)].ready = ["x"]
        ids, took_s = await store.take("a", request_id=request_id)
        assert (ids, took_s <= 1.0) == (["x"], True)

    play(scenario, a=40)
