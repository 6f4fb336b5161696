"""Tombstones are removed in slices, between promotions and never before them."""

from __future__ import annotations

from tests.scheduler.simulation import SCRIPT_S, TOMBSTONE_S, Simulation, simulation

BOUND_S = 0.25
TOMBSTONES = 60_000


def scanned(it: Simulation, name: str) -> float:
    """Lets time pass until the safety scan has looked at the topic once more; when that was."""
    before = it.counts("survey")[name]
    while it.counts("survey")[name] == before:
        it.run_until(it.loop.time() + 0.01)
    return it.loop.time()


def test_tombstones_make_no_task_late() -> None:
    """Also of the same shard: 60,000 of them took 2.2 s before its first promotion."""
    with simulation() as it:
        it.store.add("jobs")
        it.start()
        it.run_until(1.0)
        its = next(iter(it.store.shards.values()))
        its.tombstones = TOMBSTONES
        began_s = scanned(it, "jobs")
        it.probe("jobs", until_s=began_s + 3.0)
        late_s = it.lateness_s("jobs")
        assert max(late_s) < BOUND_S, f"G6 bounded lateness: {max(late_s):.3f} s"
        assert its.tombstones == 0


def test_a_slice_is_one_script_and_what_is_due_waits_for_one_of_them() -> None:
    with simulation() as it:
        it.store.add("jobs")
        it.start()
        it.run_until(1.0)
        next(iter(it.store.shards.values())).tombstones = TOMBSTONES
        began_s = scanned(it, "jobs")
        it.probe("jobs", until_s=began_s + 3.0)
        limit = it.store.settings.collect_batch_count
        counts = [ran.count for ran in it.store.ran if ran.script == "collect"]
        assert max(counts) <= limit
        assert len(counts) >= TOMBSTONES / limit
        slice_s = SCRIPT_S + limit * TOMBSTONE_S
        # Its own scripts, and a timer that is a millisecond late, come on top.
        assert max(it.lateness_s("jobs")) < 2 * slice_s + 0.002


def test_one_shard_of_a_node_is_cleaned_at_a_time() -> None:
    """Many topics whose retention ends at the same moment."""
    with simulation() as it:
        it.store.add("quiet")
        for number in range(50):
            it.store.add(f"topic{number}")
        it.start()
        it.run_until(1.0)
        for shard in it.store.shards.values():
            shard.tombstones = 2_000
        it.probe("quiet", until_s=40.0)
        late_s = it.lateness_s("quiet")
        assert max(late_s) < BOUND_S / 4, f"G6 bounded lateness: {max(late_s):.3f} s"
        assert not any(shard.tombstones for shard in it.store.shards.values())


def test_a_backlog_does_not_keep_tombstones_for_ever() -> None:
    """A shard with something due at every moment is cleaned between its batches."""
    with simulation() as it:
        it.store.add("busy")
        it.start()
        it.run_until(1.0)
        its = next(iter(it.store.shards.values()))
        its.tombstones = TOMBSTONES
        it.hint(it.store.enqueue("busy", 1_000_000))
        it.run_until(40.0)
        assert its.due_ms, "the backlog is not empty yet"
        assert its.tombstones == 0


def test_a_slice_that_removes_nothing_is_not_repeated_before_the_next_scan() -> None:
    """An entry that cannot be removed would else be tried without end."""
    with simulation(collect_batch_count=1) as it:
        it.store.add("jobs")
        it.start()
        it.run_until(1.0)
        its = next(iter(it.store.shards.values()))

        its.tombstones = 1
        store = it.store

        async def collect(topic: object, shard: object, call: object) -> object:
            store.asked["collect"] += 1
            return 0, store._next_wake_up(its)

        store.collect = collect  # type: ignore[method-assign, assignment]
        scanned(it, "jobs")
        it.run_until(it.loop.time() + 5.0)
        assert store.asked["collect"] == 1


def test_an_upgrade_goes_on_in_slices_and_makes_no_task_late() -> None:
    with simulation() as it:
        for name in ("jobs", "quiet"):
            it.store.add(name)
        it.start()
        it.run_until(1.0)
        for shard in it.store.shards.values():
            shard.upgrade_steps = 100
        it.probe("jobs", until_s=40.0)
        late_s = it.lateness_s("jobs")
        assert max(late_s) < BOUND_S / 4, f"G6 bounded lateness: {max(late_s):.3f} s"
        assert it.counts("upgrade") == {"jobs": 100, "quiet": 100}
