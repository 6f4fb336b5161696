"""The catalogue of faults: each one happens, says so, and is undone."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chaos.clusters import Ability, NotAvailableError, Role, StoreNode
from chaos.clusters.process import FAST_PERIODS_MS, SentinelCluster, ShardedCluster
from chaos.clusters.process.launch import process_state
from chaos.faults import KINDS, DidNotHappenError, FaultContext, FaultRow, Mode, Target, kind
from chaos.faults.catalogue import ALL, EVERY, QUORUM
from chaos.faults.model import PROCESS_TARGETS, Clocked
from chaos.faults.nemesis import FaultEvent, FaultPhase, Schedule, Step, play
from chaos.faults.targets import NodeTarget
from chaos.systems.ddq.process import DdqProcess
from tests.support.service import Service


def test_the_catalogue_has_every_row_once_and_says_who_bears_what() -> None:
    assert {each.row for each in KINDS} == set(FaultRow)
    assert max(Counter(each.name for each in KINDS).values()) == 1
    for each in KINDS:
        assert each.targets
        assert each.hold[0] <= each.hold[1]
        # A mode that waits for more never bears less.
        assert set(each.targets.values()) <= {frozenset(), ALL, QUORUM, EVERY}, each.name
    everything = {f"G{n}" for n in range(1, 15)}
    assert kind("kill").promises("master", Mode.QUORUM) == everything
    # A failover in FAST loses what it has acknowledged, by design.
    assert kind("kill").promises("master", Mode.FAST) == {"G1", "G11"}
    assert kind("kill").promises("replica", Mode.FAST) == everything
    assert kind("partition-through").promises("master", Mode.QUORUM) == {"G1", "G11"}
    assert kind("clock-jump").promises("master", Mode.ALL) == everything - {"G6", "G14"}
    for target in ("api", "scheduler", "scheduler-leader"):
        assert kind("clock-jump").promises(target, Mode.FAST) == everything - {"G6", "G14"}
    with pytest.raises(NotAvailableError, match="no fault is called"):
        kind("meteor")


def test_targets_that_a_run_lacks_are_reported() -> None:
    context = FaultContext(_NoCluster())  # type: ignore[arg-type]
    for target in PROCESS_TARGETS:
        assert "no such process" in str(kind("kill").unavailable(context, target))
    assert "no Toxiproxy" in str(kind("slow").unavailable(context, "api-store"))
    assert kind("kill").unavailable(context, "master") is None


@asynccontextmanager
async def running(cluster: SentinelCluster | ShardedCluster) -> AsyncIterator[FaultContext]:
    try:
        await cluster.start()
        yield FaultContext(cluster)
    finally:
        await cluster.stop()


async def run(context: FaultContext, *steps: Step) -> list[FaultEvent]:
    events: list[FaultEvent] = []
    await play(Schedule((steps,), down_after_ms=1_000), context, events.append)
    return events


def phases(events: list[FaultEvent]) -> list[tuple[str, FaultPhase]]:
    return [(event.step.kind, event.phase) for event in events]


IN_FULL = [
    FaultPhase.BEGUN,
    FaultPhase.INJECTED,
    FaultPhase.VERIFIED,
    FaultPhase.HEALED,
    FaultPhase.SETTLED,
]


async def test_faults_of_a_sentinel_cluster_happen_and_are_undone(tmp_path: Path) -> None:
    cluster = SentinelCluster(
        folder=tmp_path,
        sentinel_periods_ms=FAST_PERIODS_MS,
        down_after_ms=3_000,
        clocks=True,
        disk_bytes=8_000_000,
    )
    steps = [
        Step("kill", "replica-host", hold_ms=100),
        Step("pause", "sentinel", hold_ms=100),
        Step("partition-ring", "master", hold_ms=300),
        Step("partition-host", "replica-host", {"direction": "in"}, hold_ms=300),
        Step("clock-jump", "master", {"offset_ms": 60_000}, hold_ms=100),
        Step("clock-drift", "replica", {"rate_ppm": 50_000}, hold_ms=600),
        Step("full-disk", "replica", hold_ms=100),
        Step("slow-disk", "master", {"sleep_ms": 100}, hold_ms=100),
        Step("script-flush", "master"),
        Step("priorities", "replica", {"priority": 0}),
        Step("stray-replica", "master"),
        Step("failover", "master", {"coordinated": True}),
        Step("truncated-log", "master", {"tail_bytes": 100}),
    ]
    async with running(cluster) as context:
        for each in steps:
            if why := kind(each.kind).unavailable(context, each.target):
                pytest.skip(f"{each.kind}: {why}")
        before = await cluster.master()
        writing = asyncio.create_task(_write_for_ever(cluster))
        try:
            events = await run(context, *steps)
        finally:
            writing.cancel()
            await asyncio.wait([writing])
        wanted = [(each.kind, phase) for each in steps for phase in IN_FULL]
        assert phases(events) == wanted, [event for event in events if "why" in event.evidence]
        settled = [event for event in events if event.phase is FaultPhase.SETTLED]
        moved = [
            e.step.kind for e in settled if e.evidence["old_master"] != e.evidence["new_master"]
        ]
        assert moved == ["failover", "truncated-log"]
        # Nothing is left of any of them.
        assert before in cluster.data
        for node in cluster.data:
            assert cluster.alive(node)
            assert not cluster.paused(node)
            assert abs(await cluster.clock_offset_ms(node)) < 500
            assert await cluster.free_disk_bytes(node) > 0


async def test_damaged_logs_lost_power_and_slow_nodes_happen_and_are_undone(
    tmp_path: Path,
) -> None:
    cluster = SentinelCluster(
        folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS, down_after_ms=3_000, power=True
    )
    steps = [
        Step("stutter", "master", {"pause_ms": 100, "run_ms": 50}, hold_ms=600),
        Step("packet-loss", "replica-host", {"share": 0.5}, hold_ms=500),
        Step("kill-in-rewrite", "replica", hold_ms=100),
        Step("spoilt-log", "replica", hold_ms=100),
        Step("power-loss", "master-host", hold_ms=100),
        Step("power-loss-everywhere", "all-hosts", hold_ms=100),
    ]
    async with running(cluster) as context:
        for each in steps:
            if why := kind(each.kind).unavailable(context, each.target):
                pytest.skip(f"{each.kind}: {why}")
        await cluster.command(await cluster.master(), "SET", "counted", "x" * 100_000)
        writing = asyncio.create_task(_write_for_ever(cluster))
        try:
            events = await run(context, *steps)
        finally:
            writing.cancel()
            await asyncio.wait([writing])
        wanted = [(each.kind, phase) for each in steps for phase in IN_FULL]
        assert phases(events) == wanted, [event for event in events if "why" in event.evidence]
        assert all(cluster.alive(node) and not cluster.paused(node) for node in cluster.nodes)


async def test_a_power_loss_takes_what_was_not_synchronized_and_nothing_else(
    tmp_path: Path,
) -> None:
    cluster = SentinelCluster(
        data_nodes=1,
        sentinels=1,
        folder=tmp_path,
        sentinel_periods_ms=FAST_PERIODS_MS,
        appendfsync="no",
        power=True,
    )
    async with running(cluster):
        if why := cluster.unavailable.get(Ability.POWER):
            pytest.skip(why)
        node = cluster.data[0]
        await cluster.command(node, "SET", "kept", "1")
        # CONFIG SET synchronizes the log when it turns appendfsync to always.
        await cluster.command(node, "CONFIG", "SET", "appendfsync", "always")
        await cluster.command(node, "SET", "synchronized", "1")
        await cluster.command(node, "CONFIG", "SET", "appendfsync", "no")
        await cluster.command(node, "SET", "lost", "x" * 1_000)
        gone = await cluster.lose_power([node])
        assert gone[node.name] > 1_000
        await cluster.restart(node, guarded=False)
        await cluster.until(lambda: cluster.answers(node), 20.0, "it does not answer")
        found = [
            await cluster.command(node, "EXISTS", name) for name in ("kept", "synchronized", "lost")
        ]
        assert found == [1, 1, 0]


@pytest.mark.parametrize("name", ["pause-then-isolate", "pause-then-pause"])
async def test_a_second_host_is_hit_between_the_selection_and_the_promotion(
    tmp_path: Path, name: str
) -> None:
    """And the master's own host is back by then: one host at a time."""
    cluster = SentinelCluster(folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS)
    async with running(cluster) as context:
        each = kind(name)
        if why := each.unavailable(context, "master-host"):
            pytest.skip(why)
        (second,) = each.strengths["second"]
        fault = each.make(context, "master-host", {"second": second})
        try:
            evidence = await fault.inject()
            first = [node for node in cluster.nodes if node.host == evidence["paused"]]
            assert not any(cluster.paused(node) for node in first)
            assert evidence["second"] != evidence["paused"]
            selected = next(node for node in cluster.data if node.name == evidence["selected"])
            assert selected.host == evidence["second"]
            if second == "isolate":
                leader = next(n for n in cluster.sentinels if n.name == evidence["leader"])
                assert leader.host == selected.host
                # The election continues behind the cut.
                await cluster.until(
                    lambda: _is(cluster, selected, Role.MASTER), 30, "nothing was promoted"
                )
            await fault.verify()
        finally:
            await fault.heal()
        await cluster.wait_until_in_sync(60)


async def _is(cluster: SentinelCluster, node: StoreNode, role: Role) -> bool:
    return await cluster.role(node) is role


async def _write_for_ever(cluster: SentinelCluster) -> None:
    """Something for an append-only file to hold."""
    while True:
        await asyncio.sleep(0.05)
        for node in cluster.data:
            try:
                await cluster.command(node, "SET", "key", "x" * 100, timeout_s=0.2)
            except Exception:  # noqa: BLE001, S112
                continue


async def test_a_cut_through_a_host_leaves_the_master_a_replica_and_its_clients(
    tmp_path: Path,
) -> None:
    cluster = SentinelCluster(folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS)
    async with running(cluster) as context:
        each = kind("partition-through")
        if why := each.unavailable(context, "master"):
            pytest.skip(why)
        old = await cluster.master()
        fault = each.make(context, "master", {"sentinels": 0})
        await fault.inject()
        try:
            new = await cluster.wait_for_master(other_than=old)
            # The worst row of the measured table: a replica has it, so WAIT 1 says yes, and all of
            # it is lost.
            assert await cluster.command(old, "SET", "key", "value") == "OK"
            (inside,) = (node for node in cluster.data if node not in {old, new})

            async def inside_has_it() -> bool:
                return await cluster.command(inside, "GET", "key") == "value"

            await cluster.until(inside_has_it, 5, "the replica on the master's side has nothing")
            await fault.verify()
        finally:
            await fault.heal()
        await cluster.wait_until_in_sync()
        assert await cluster.command(new, "GET", "key") is None


async def test_a_fault_without_a_target_did_not_happen(tmp_path: Path) -> None:
    cluster = ShardedCluster(folder=tmp_path)
    async with running(cluster) as context:
        events = await run(
            context,
            Step("kill", "sentinel"),
            # Only the observer is connected, which is not counted as a client.
            Step("partition-clients", "master"),
            Step("stray-replica", "master"),
        )
        reasons = {event.step.kind: event for event in events if "why" in event.evidence}
        assert [event.phase for event in events if event.step.kind == "kill"] == [
            FaultPhase.BEGUN, FaultPhase.NOT_AVAILABLE
        ]  # fmt: skip
        assert reasons["kill"].phase is FaultPhase.NOT_AVAILABLE
        assert reasons["stray-replica"].phase is FaultPhase.NOT_AVAILABLE
        if kind("partition-clients").unavailable(context, "master") is None:
            assert reasons["partition-clients"].phase is FaultPhase.DID_NOT_HAPPEN


async def test_a_process_of_ddq_is_hit_by_the_same_faults(tmp_path: Path) -> None:
    service = Service(
        "api-1", [sys.executable, "-c", "import time; time.sleep(600)"], folder=tmp_path
    )
    context = FaultContext(_NoCluster(), processes={"api": lambda: _given(service)})  # type: ignore[arg-type]
    await service.start()
    first = service.child.pid
    try:
        events = await run(
            context,
            Step("pause", "api", hold_ms=1, settle=False),
            Step("kill", "api", hold_ms=1, settle=False),
        )
        assert phases(events) == [
            (name, phase) for name in ("pause", "kill") for phase in IN_FULL[:-1]
        ]
        assert events[1].evidence == {"paused": ["api-1"]}
        assert service.alive()
        assert not service.paused()
        assert service.child.pid != first
        assert process_state(first) is None
    finally:
        await service.kill()


async def _given(service: Service) -> Target:
    return service


class FakeTarget:
    """A process that notes what is done to it."""

    def __init__(self, done: list[str]) -> None:
        self._done = done
        self.name = "scheduler-2"

    async def kill(self) -> None:
        self._done.append("kill")

    async def restart(self) -> None:
        self._done.append("restart")

    async def pause(self) -> None:
        self._done.append("pause")

    async def resume(self) -> None:
        self._done.append("resume")

    def alive(self) -> bool:
        return "kill" not in self._done

    def paused(self) -> bool:
        return "pause" in self._done


class FakeClocked(FakeTarget):
    """A process that says these offsets, the last one for ever; None: it does not answer."""

    def __init__(self, done: list[str], *says_ms: int | None) -> None:
        super().__init__(done)
        self._says_ms = itertools.chain(says_ms, itertools.repeat(says_ms[-1]))

    async def shift_clock(self, offset_ms: int) -> None:
        self._done.append(f"shift {offset_ms}")

    async def clock_offset_ms(self) -> int:
        says_ms = next(self._says_ms)
        if says_ms is None:
            raise ConnectionRefusedError
        return says_ms


def _clocked(ddq: DdqProcess, node: NodeTarget, fake: FakeClocked) -> list[Clocked]:
    """For the type checker: clocks are reached by a cast, which believes anything."""
    return [ddq, node, fake]


async def _found_clocked(one: FakeClocked) -> Target:
    return one


async def test_a_clock_has_jumped_when_the_process_itself_tells_the_wrong_time() -> None:
    done: list[str] = []
    fake = FakeClocked(done, 0, None, -59_900)
    context = FaultContext(
        _NoCluster(),  # type: ignore[arg-type]
        processes={"scheduler-leader": lambda: _found_clocked(fake)},
    )
    step = Step("clock-jump", "scheduler-leader", {"offset_ms": -60_000}, settle=False)
    events = await run(context, step)
    assert phases(events) == [("clock-jump", phase) for phase in IN_FULL[:-1]]
    assert events[1].evidence == {"shifted": ["scheduler-2"], "offset_ms": -60_000}
    assert done == ["shift -60000", "shift 0"]


@pytest.mark.parametrize(
    ("says_ms", "why"), [(0, "it is off by 0 ms"), (None, "it does not answer")]
)
async def test_a_clock_that_stays_right_has_not_jumped_by_half_a_second(
    monkeypatch: pytest.MonkeyPatch, says_ms: int | None, why: str
) -> None:
    monkeypatch.setattr("chaos.faults.clocks._SEEN_TIMEOUT_S", 0.2)
    fake = FakeClocked([], says_ms)
    context = FaultContext(_NoCluster(), processes={"api": lambda: _found_clocked(fake)})  # type: ignore[arg-type]
    fault = kind("clock-jump").make(context, "api", {"offset_ms": 500})
    await fault.inject()
    with pytest.raises(DidNotHappenError, match=f"clock should be off by 500 ms: {why}"):
        await fault.verify()


async def test_without_libfaketime_clocks_are_not_available_and_processes_have_the_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chaos.clusters.process.fakeclock.library", lambda: None)
    cluster = SentinelCluster(clocks=True)
    try:
        assert cluster.clock(cluster.folder / "api1.clock") is None
        context = FaultContext(cluster, processes={"api": lambda: _found([])})
        (event,) = await run(context, Step("clock-jump", "api", {"offset_ms": 500}))
        assert event.phase is FaultPhase.NOT_AVAILABLE
        assert "libfaketime is not installed" in str(event.evidence["why"])
    finally:
        await cluster.stop()


async def test_a_run_that_is_cancelled_heals_first() -> None:
    done: list[str] = []
    context = FaultContext(_NoCluster(), processes={"scheduler-leader": lambda: _found(done)})  # type: ignore[arg-type]
    injected = asyncio.Event()
    step = Step("pause", "scheduler-leader", hold_ms=60_000)
    schedule = Schedule(((step,),), down_after_ms=1_000)
    playing = asyncio.create_task(play(schedule, context, lambda _: injected.set()))
    await injected.wait()
    assert done == ["pause"]
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert done == ["pause", "resume"]


async def _found(done: list[str]) -> Target:
    return FakeTarget(done)


class _NoCluster:
    """Has every ability and no node."""

    unavailable: dict[str, str] = {}  # noqa: RUF012

    async def master(self) -> StoreNode:
        raise NotAvailableError("there is no cluster here")
