"""Which shard is visited next: G6 on one shard does not depend on what waits on the others."""

from __future__ import annotations

from ddq.scheduler.queue import PLACES, Kind
from tests.scheduler.simulation import Simulation, simulation

BOUND_S = 0.25
"""G6 of a healthy store."""


def start_with_backlogs(it: Simulation, topics: int, tasks: int) -> None:
    """The scheduler has settled; then many tasks of many topics become due at the same time."""
    it.store.add("quiet")
    for number in range(topics):
        it.store.add(f"busy{number}")
    it.start()
    it.run_until(1.0)
    it.hint(*(it.store.enqueue(f"busy{number}", tasks) for number in range(topics)))


def test_topics_with_a_backlog_make_no_other_topic_late() -> None:
    """16 of them were enough to hold every slot until they were empty."""
    with simulation() as it:
        start_with_backlogs(it, 32, 4_000)
        it.probe("quiet", until_s=4.0)
        late_s = it.lateness_s("quiet")
        assert sum(ran.count for ran in it.store.ran if ran.shard.topic == "quiet") >= 60
        assert max(late_s) < BOUND_S, f"G6 bounded lateness: {max(late_s):.3f} s"


def test_each_topic_gets_its_first_tasks_before_one_gets_all() -> None:
    """Due at the same moment: the last of 32 topics does not wait for the backlogs of others."""
    with simulation() as it:
        start_with_backlogs(it, 32, 4_000)
        it.run_until(1.0 + BOUND_S)
        first: dict[str, float] = {}
        for ran in it.store.ran:
            if ran.script == "promote" and ran.count:
                first.setdefault(ran.shard.topic, ran.at_s)
        assert len(first) == 32
        assert max(first.values()) - 1.0 < BOUND_S


def test_backlogs_take_turns() -> None:
    """No topic is more than a round ahead of another, and each is emptied."""
    with simulation() as it:
        start_with_backlogs(it, 32, 1_000)
        it.run_until(60.0)
        assert not any(shard.due_ms for shard in it.store.shards.values())
        moves = [ran.shard.topic for ran in it.store.ran if ran.script == "promote" and ran.count]
        batches = dict.fromkeys(moves, 0)
        for topic in moves:
            batches[topic] += 1
            assert max(batches.values()) - min(batches.values()) <= 2, batches


def test_a_scheduler_with_a_full_line_promotes_batches_of_a_bounded_number() -> None:
    """What is due now waits for the scripts that the store node has been sent already."""
    with simulation() as it:
        start_with_backlogs(it, 100, 1_000)
        running: list[int] = []
        lines = it.scheduler._queue._lines["node"]
        for step in range(200):
            it.run_until(1.0 + step * 0.01)
            running.append(lines.running[Kind.BACKLOG])
        assert max(running) == PLACES[Kind.BACKLOG]


def test_expired_leases_are_ended_beside_a_backlog_of_the_same_shard() -> None:
    with simulation() as it:
        start_with_backlogs(it, 1, 10_000)
        its = it.store.shards[next(s for s in it.store.shards if s.topic == "busy0")]
        its.expiry_ms += [it.store.now_ms()] * 10
        it.run_until(1.0 + BOUND_S)
        assert its.due_ms, "the backlog is not empty yet"
        assert not its.expiry_ms, "G6 bounded lateness"


def test_a_node_that_hangs_holds_up_no_other_node() -> None:
    """100 shards of one node, and of the other one that is due."""
    with simulation() as it:
        it.store.add("well", "other")
        for number in range(100):
            it.store.add(f"hung{number}", "node")
        it.start()
        it.run_until(1.0)
        it.store.hung.add("node")
        it.hint(*(it.store.enqueue(f"hung{number}") for number in range(100)))
        it.probe("well", until_s=12.0)
        late_s = it.lateness_s("well")
        assert len(late_s) >= 200
        assert max(late_s) < BOUND_S, f"G6 bounded lateness: {max(late_s):.3f} s"


def test_shards_whose_slots_move_delay_no_other_shard_of_their_node() -> None:
    """Each of 100 visits waited 5 s for its slot and kept one of the 16 places of the node."""
    with simulation() as it:
        it.store.add("well")
        for number in range(100):
            it.store.add(f"moving{number}")
        it.start()
        it.run_until(1.0)
        moving = [it.store.shards[shard] for shard in it.store.shards if shard.topic != "well"]
        for its in moving:
            its.moving = True
        it.hint(*(it.store.enqueue(f"moving{number}") for number in range(100)))
        it.probe("well", until_s=12.0)
        late_s = it.lateness_s("well")
        assert len(late_s) >= 200
        assert max(late_s) < BOUND_S, f"G6 bounded lateness: {max(late_s):.3f} s"
        for its in moving:
            its.moving = False
        it.run_until(12.0 + BOUND_S)
        assert not any(its.due_ms for its in moving), "G6: ready within 250 ms of the slots' return"


def test_a_registry_that_hangs_holds_up_no_shard() -> None:
    with simulation() as it:
        it.store.add("well")
        it.start()
        it.run_until(1.0)
        it.store.hung.add("registry")
        it.create("another")
        it.probe("well", until_s=130.0, every_s=0.5)
        late_s = it.lateness_s("well")
        assert max(late_s) < BOUND_S, f"G6 bounded lateness: {max(late_s):.3f} s"
