"""What a scheduler does for shards on which nothing happens: counted, not timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ddq.scheduler.queue import STEP_MAX_COUNT, Kind, VisitQueue
from ddq.scheduler.shard import Shard
from ddq.store.hints import DueHint, Reset
from ddq.store.keys import ShardId
from ddq.store.topics import READ_MAX_COUNT
from tests.scheduler.simulation import Simulation, simulation

MANY = 2_000
BOUND_S = 0.25
# The table is looked at each minute.
INTERVAL_S = 60.0


@pytest.fixture
def crowded() -> Any:
    """A scheduler that has looked at 2,000 topics."""
    with simulation() as it:
        it.store.add("probe")
        for number in range(MANY):
            it.store.add(f"topic{number:05}")
        it.start()
        it.run_until(20.0)
        assert len(it.scheduler._table.shards) == MANY + 1
        yield it


def test_the_table_is_read_in_pages(crowded: Simulation) -> None:
    asked = crowded.store.asked
    assert asked["all"] == 0
    assert asked["page"] >= MANY / READ_MAX_COUNT


def test_a_table_that_has_not_changed_is_asked_for_its_version_only(crowded: Simulation) -> None:
    crowded.store.asked.clear()
    crowded.run_until(20.0 + 2 * INTERVAL_S)
    assert crowded.store.asked == {"version": 2}


def test_a_topic_hint_costs_one_record(crowded: Simulation) -> None:
    """1,000 topics that are made one after the other cost 1,000 records, not two million."""
    crowded.store.asked.clear()
    crowded.store.records_read_count = 0
    for number in range(1_000):
        crowded.create(f"new{number}")
        crowded.run_until(20.0 + number * 0.001)
    crowded.run_until(30.0)
    assert len(crowded.scheduler._table.shards) == MANY + 1_001
    assert crowded.store.records_read_count == 1_000
    assert {*crowded.store.asked} == {"many"}


def test_a_due_hint_of_a_topic_that_is_not_known_costs_one_record(crowded: Simulation) -> None:
    """Its own hint was lost."""
    crowded.store.add("unknown")
    crowded.store.records_read_count = 0
    crowded.hint(crowded.store.enqueue("unknown"))
    crowded.run_until(20.1)
    assert crowded.store.records_read_count == 1
    assert len(crowded.lateness_s("unknown")) == 1


def test_a_topic_that_was_deleted_without_a_hint_is_forgotten(crowded: Simulation) -> None:
    crowded.store.remove("topic00007")
    crowded.run_until(20.0 + 2 * INTERVAL_S)
    assert ShardId("topic00007", 0) not in crowded.scheduler._table.shards
    assert len(crowded.scheduler._table.shards) == MANY


def test_a_page_that_lacks_topics_forgets_none_of_them(
    crowded: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages of another master are others: a topic between two of them is asked for by name."""
    load_page = crowded.store.load_page

    async def load_less(cursor: bytes, call: Any) -> Any:
        page = await load_page(cursor, call)
        del page.names[10:], page.topics[10:]
        return page

    monkeypatch.setattr(crowded.store, "load_page", load_less)
    crowded.hint(Reset())
    crowded.run_until(60.0)
    assert len(crowded.scheduler._table.shards) == MANY + 1


def test_idle_topics_make_no_other_topic_late(crowded: Simulation) -> None:
    crowded.probe("probe", until_s=60.0)
    late_s = crowded.lateness_s("probe")
    assert max(late_s) < BOUND_S, f"G6 bounded lateness: {max(late_s):.3f} s"


def test_a_due_task_does_not_wait_while_all_shards_are_surveyed(crowded: Simulation) -> None:
    """A survey follows each new connection, and each of the 10,000 is a script."""
    crowded.hint(Reset())
    crowded.probe("probe", until_s=25.0)
    late_s = crowded.lateness_s("probe")
    assert max(late_s) < BOUND_S, f"G6 bounded lateness: {max(late_s):.3f} s"
    surveys = sum(ran.at_s > 20.0 for ran in crowded.store.ran if ran.script == "survey")
    assert surveys > MANY


def test_a_shard_whose_hint_was_lost_is_found_by_the_round(crowded: Simulation) -> None:
    crowded.store.enqueue("topic01500")
    crowded.run_until(20.1)
    crowded.hint(Reset())
    crowded.run_until(25.0)
    assert len(crowded.lateness_s("topic01500")) == 1


def test_a_second_reset_begins_the_round_again(crowded: Simulation) -> None:
    """And does not look at every shard twice."""
    before = sum(crowded.counts("survey").values())
    crowded.hint(Reset())
    crowded.hint(Reset())
    crowded.run_until(23.0)
    looked_at = sum(crowded.counts("survey").values()) - before
    assert MANY < looked_at < 1.5 * MANY


def count_steps(call: Callable[[], Any], code: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a method of the queue ran during a call."""
    count = 0
    method = getattr(VisitQueue, code)

    def counted(*args: Any) -> Any:
        nonlocal count
        count += 1
        return method(*args)

    monkeypatch.setattr(VisitQueue, code, counted)
    call()
    monkeypatch.setattr(VisitQueue, code, method)
    return count


def test_a_reset_touches_a_bounded_number_of_shards_at_a_time(
    crowded: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop belongs to others too."""
    scheduler = crowded.scheduler

    async def reset() -> None:
        scheduler.on_hint(Reset())

    def hear() -> None:
        task = crowded.loop.create_task(reset())
        while not task.done():
            crowded.loop.call_soon(crowded.loop.stop)
            crowded.loop.run_forever()

    assert count_steps(hear, "at", monkeypatch) == 0
    assert count_steps(scheduler._go_round, "at", monkeypatch) == STEP_MAX_COUNT


# The queue by itself -----------------------------------------------------------------------


def shards_of(count: int) -> list[Shard]:
    """Some shards."""
    return [Shard(ShardId(f"topic{number}", 0), 0) for number in range(count)]


def test_one_call_takes_a_bounded_number_of_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    """All shards are due at the same moment."""
    queue: VisitQueue[Shard] = VisitQueue(lambda _: "node")
    for shard in shards_of(MANY):
        queue.at(shard, Kind.DUE, 1.0)
    assert count_steps(lambda: queue.take(2.0), "_ring", monkeypatch) == STEP_MAX_COUNT


def test_a_visit_touches_the_shards_that_begin_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the number of shards that wait, or sleep."""
    queue: VisitQueue[Shard] = VisitQueue(lambda _: "node")
    for shard in shards_of(MANY):
        queue.at(shard, Kind.SCAN, 100.0)
    looked: list[Shard] = []
    queue._node_of = looked.append
    (shard,) = shards_of(1)
    queue.at(shard, Kind.DUE, 1.0)
    assert queue.take(1.0) == [(shard, Kind.DUE)]
    assert looked == [shard]
    queue.done(shard)
    assert queue.take(1.0) == []
    assert looked == [shard]


def test_replaced_timers_do_not_pile_up() -> None:
    """The next task of a shard is due in a year, and in between something is due at each moment."""
    queue: VisitQueue[Shard] = VisitQueue(lambda _: "node")
    (shard,) = shards_of(1)
    for now_s in range(20_000):
        queue.at(shard, Kind.DUE, 1e9)
        queue.at(shard, Kind.DUE, float(now_s))
        assert queue.take(float(now_s)) == [(shard, Kind.DUE)]
        queue.done(shard)
    assert len(queue) < 5_000


def test_a_hint_during_a_visit_leads_to_another_one() -> None:
    queue: VisitQueue[Shard] = VisitQueue(lambda _: "node")
    (shard,) = shards_of(1)
    queue.at(shard, Kind.DUE, 1.0)
    assert queue.take(1.0) == [(shard, Kind.DUE)]
    queue.at(shard, Kind.DUE, 1.0)
    assert queue.take(1.0) == []
    queue.done(shard)
    assert queue.take(1.0) == [(shard, Kind.DUE)]


def test_a_shard_that_is_gone_is_visited_no_more() -> None:
    queue: VisitQueue[Shard] = VisitQueue(lambda _: "node")
    timer, line, running = shards_of(3)
    queue.at(running, Kind.COLLECT, 0.0)
    assert queue.take(0.0) == [(running, Kind.COLLECT)]
    queue.at(line, Kind.COLLECT, 1.0)
    queue.take(1.0)
    queue.at(timer, Kind.DUE, 2.0)
    for shard in (timer, line, running):
        queue.forget(shard)
    queue.done(running)
    assert queue.take(3.0) == []


def test_a_due_hint_of_an_old_topic_changes_nothing() -> None:
    """A hint may come late, when its topic is gone."""
    with simulation() as it:
        it.start()
        it.hint(DueHint(ShardId("gone", 0), 0))
        it.run_until(1.0)
        assert not it.scheduler._table.shards
