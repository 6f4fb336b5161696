"""The store clusters of the chaos harness: they start whole, fail over, leave nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from chaos.clusters import (
    Ability,
    Clock,
    Cluster,
    Cut,
    Disk,
    FullDisk,
    Kill,
    NotAvailableError,
    Partition,
    Pause,
    Role,
    StoreNode,
    Unconfigured,
)
from chaos.clusters.process import FAST_PERIODS_MS, SentinelCluster, ShardedCluster, fakeclock
from chaos.clusters.process.cleanup import sweep
from chaos.clusters.process.fakeclock import FakeClock
from chaos.clusters.process.firewall import remove_rules_of
from chaos.clusters.process.launch import Child, process_state
from chaos.clusters.process.sharded import SLOTS_COUNT
from chaos.clusters.resp import ReplyError
from chaos.eventually import eventually
from chaos.faults import FaultContext, Mode, Target, kind
from chaos.systems.ddq.http import offset_ms
from chaos.systems.ddq.options import SystemOptions
from chaos.systems.ddq.process import DdqProcess
from chaos.systems.ddq.processes import ProcessSystem
from ddq.client import Client
from ddq.errors import ClockUnsafe, DdqError


async def test_a_killed_master_is_replaced_and_a_failover_can_be_asked_for(tmp_path: Path) -> None:
    cluster = SentinelCluster(
        folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS, down_after_ms=3_000
    )
    try:
        await cluster.start()
        first = await cluster.master()
        assert [await cluster.role(node) for node in cluster.data] == [
            Role.MASTER,
            Role.REPLICA,
            Role.REPLICA,
        ]

        await cluster.kill(first)
        assert await cluster.role(first) is Role.UNREACHABLE
        second = await cluster.wait_for_master(other_than=first)
        await cluster.restart(first)
        await cluster.wait_until_in_sync()
        assert await cluster.role(first) is Role.REPLICA

        third = await cluster.failover(coordinated=True)
        assert third != second
        await cluster.wait_until_in_sync()
        fourth = await cluster.failover(coordinated=False)
        assert fourth != third
    finally:
        await cluster.stop()


async def test_a_paused_master_is_stopped_in_the_kernel_and_demoted_when_it_goes_on(
    tmp_path: Path,
) -> None:
    cluster = SentinelCluster(
        folder=tmp_path, sentinel_periods_ms=FAST_PERIODS_MS, down_after_ms=3_000
    )
    try:
        await cluster.start()
        first = await cluster.master()
        assert not cluster.paused(first)
        await cluster.pause(first)
        assert cluster.paused(first)
        await cluster.wait_for_master(other_than=first)
        await cluster.resume(first)
        await cluster.wait_until_in_sync()
        assert await cluster.role(first) is Role.REPLICA
    finally:
        await cluster.stop()


async def test_a_shard_fails_over_alone_and_a_slot_moves_with_its_keys(tmp_path: Path) -> None:
    cluster = ShardedCluster(folder=tmp_path)
    try:
        await cluster.start()
        key = "ddq:tasks:{orders}"
        slot = cluster.slot_of(key)
        source = await cluster.owner(slot)
        assert await cluster.command(source, "CLUSTER", "KEYSLOT", key) == slot
        count = 250  # more than one batch
        for n in range(count):
            await cluster.command(source, "SET", f"{n}{{orders}}", "x")

        other = (cluster.shard_of(source) + 1) % 3
        before = await cluster.master(other)
        tags = (f"{{{n}}}" for n in range(10_000))
        mine = next(tag for tag in tags if cluster.slot_of(tag) * 3 // SLOTS_COUNT == other)
        await cluster.command(before, "SET", mine, "acknowledged")
        await cluster.wait_until_in_sync()
        await cluster.kill(before)
        await cluster.empty_disk(before)
        await cluster.restart(before)
        target = await cluster.wait_for_master(other_than=before)
        assert cluster.shard_of(target) == other
        await cluster.wait_until_in_sync()
        assert await cluster.command(target, "GET", mine) == "acknowledged"

        await cluster.migrate_slot(slot, target)
        assert await cluster.owner(slot) == target
        for node in cluster.shards[other]:
            held = await cluster.command(node, "CLUSTER", "COUNTKEYSINSLOT", str(slot))
            assert held == count, node

        moved = await cluster.failover(shard=other)
        assert moved in cluster.shards[other]
        assert moved != target
    finally:
        await cluster.stop()


async def test_a_cut_off_host_drops_packets_and_its_clients_stay_with_it() -> None:
    cluster = SentinelCluster(sentinel_periods_ms=FAST_PERIODS_MS, down_after_ms=3_000)
    await require(cluster, Ability.PARTITION)
    try:
        await cluster.start()
        first = await cluster.master()
        inside = [node for node in cluster.nodes if node.host == first.host]
        outside = [node for node in cluster.nodes if node.host != first.host]
        name = await cluster.cut(
            [cut for a in inside for b in outside for cut in (Cut(a.ip, b.ip), Cut(b.ip, a.ip))]
        )
        second = await cluster.wait_for_master(other_than=first)
        assert await cluster.dropped_packets(name) > 0
        # The case that loses writes: who was connected to the old master still is.
        assert await cluster.role(first) is Role.MASTER
        await cluster.heal(name)
        assert await cluster.dropped_packets(name) == 0
        await cluster.wait_until_in_sync()
        assert await cluster.role(first) is Role.REPLICA
        assert await cluster.master() == second
    finally:
        await cluster.stop()
    assert not cluster.folder.exists()


async def test_a_nodes_clock_and_disk_can_be_spoilt_and_are_good_again() -> None:
    cluster = SentinelCluster(data_nodes=1, sentinels=1, clocks=True, disk_bytes=4_000_000)
    await require(cluster, Ability.CLOCK, Ability.FULL_DISK)
    try:
        await cluster.start()
        node = cluster.data[0]
        other = cluster.sentinels[0]
        await cluster.shift_clock(node, 3_600_000)
        await cluster.until(partial(_is_off_by, cluster, node, 3_600_000), 10, "no jump")
        assert await _is_off_by(cluster, other, 0)
        await cluster.shift_clock(node, 0)
        await cluster.until(partial(_is_off_by, cluster, node, 0), 10, "still off")

        await cluster.fill_disk(node)
        assert await cluster.free_disk_bytes(node) == 0
        await cluster.until(partial(_refuses_writes, cluster, node), 10, "takes writes")
        await cluster.free_disk(node)
        await cluster.until(partial(_takes_writes, cluster, node), 10, "refuses writes")
    finally:
        await cluster.stop()
    assert not cluster.folder.exists()


@asynccontextmanager
async def jumped(context: FaultContext, target: str, by_ms: int) -> AsyncIterator[None]:
    fault = kind("clock-jump").make(context, target, {"offset_ms": by_ms})
    try:
        await fault.inject()
        await fault.verify()
        yield
    finally:
        await fault.heal()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    await eventually(condition, 60.0)


async def _serves(client: Client) -> bool:
    try:
        await client.enqueue("orders", b"x", timeout_s=0.5)
    except DdqError:
        return False
    return True


async def test_the_clock_of_a_process_of_ddq_is_shifted_and_right_again(tmp_path: Path) -> None:
    cluster = SentinelCluster(data_nodes=1, sentinels=1, folder=tmp_path / "store", clocks=True)
    await require(cluster, Ability.CLOCK)
    options = SystemOptions(Mode.FAST, apis=1, schedulers=1, leader_lease_ms=200)
    system = ProcessSystem(cluster, tmp_path / "ddq", options)
    (api,), (scheduler,) = system.apis, system.schedulers

    async def found(target: Target) -> Target:
        return target

    async def refused() -> bool:
        return "the clocks differ by too much" in scheduler.log.read_text()

    context = FaultContext(
        cluster, {"api": partial(found, api), "scheduler": partial(found, scheduler)}
    )
    try:
        await cluster.start()
        await system.start()
        async with Client(system.addresses[0]) as client:
            await client.create_topic("orders")
            async with jumped(context, "api", 3_600_000):
                with pytest.raises(ClockUnsafe):
                    await client.enqueue("orders", b"x", timeout_s=0.5)
                # No other clock has moved.
                await until(lambda: _alive_and_off_by(scheduler, 0))
                assert await _is_off_by(cluster, cluster.data[0], 0)
                # A host's clock is not set right by starting a process again.
                await api.kill()
                await api.restart()
                await until(lambda: _alive_and_off_by(api, 3_600_000))
            await until(lambda: _serves(client))

            async with jumped(context, "scheduler", 500):
                assert await _serves(client)
                assert not await refused()
            async with jumped(context, "scheduler", -60_000):
                await client.enqueue("orders", b"x")
                await until(refused)
        await until(lambda: _alive_and_off_by(scheduler, 0))
    finally:
        await system.stop()
        await cluster.stop()


async def _alive_and_off_by(process: DdqProcess, offset_ms: int) -> bool:
    try:
        return abs(await process.clock_offset_ms() - offset_ms) < 200
    except OSError:
        return False


async def test_only_a_run_that_shifts_clocks_gives_its_processes_clocks_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given: list[Mapping[str, str]] = []

    async def launcher(
        command: object, *, log: object, cwd: object, env: Mapping[str, str] | None = None
    ) -> Child:
        given.append(env or {})
        raise asyncio.CancelledError

    for clocks in (False, True):
        cluster = SentinelCluster(data_nodes=1, sentinels=1, folder=tmp_path, clocks=clocks)
        try:
            if clocks:
                await require(cluster, Ability.CLOCK)
            process = ProcessSystem(cluster, Path(), SystemOptions()).schedulers[0]
            process.launcher = launcher
            with pytest.raises(asyncio.CancelledError):
                await process.restart()
            if not clocks:
                with pytest.raises(NotAvailableError, match="no clock of its own"):
                    await process.shift_clock(500)
        finally:
            await cluster.stop()
    plain, shifted = given
    assert plain == {"GRPC_VERBOSITY": "NONE"}
    assert {"LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE"} <= shifted.keys() - plain.keys()
    # The process has another working folder than the harness.
    assert Path(shifted["FAKETIME_TIMESTAMP_FILE"]).is_absolute()


def test_a_clock_keeps_its_offset_over_a_restart(tmp_path: Path) -> None:
    clock = FakeClock(tmp_path / "api1.clock", Path("lib.so"))
    clock.environment()
    assert clock.file.read_text() == "+0.000\n"
    clock.shift(-60_000)
    clock.environment()
    assert clock.file.read_text() == "-60.000\n"


_TIMES = "import time; print(time.time(), time.monotonic())"


def test_only_the_wall_clock_is_wrong(tmp_path: Path) -> None:
    library = fakeclock.library()
    if library is None:
        pytest.skip(str(fakeclock.why_unavailable()))
    clock = FakeClock(tmp_path / "api1.clock", library)
    clock.shift(3_600_000)
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _TIMES],
        env={**os.environ, **clock.environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    wall_s, monotonic_s = map(float, said.stdout.split())
    assert 3_500 < wall_s - time.time() < 3_700
    assert abs(monotonic_s - time.monotonic()) < 100


@pytest.mark.parametrize("off_ms", [3_600_000, 500, 0, -500, -60_000])
@pytest.mark.parametrize("way_ms", [1, 60])
async def test_dates_in_whole_seconds_tell_an_offset_to_a_tenth(
    monkeypatch: pytest.MonkeyPatch, off_ms: int, way_ms: int
) -> None:
    monkeypatch.setattr("chaos.systems.ddq.http._STEP_S", 0)
    now_ms = 1_800_000_000_321.0
    asked = 0

    async def date_ms() -> int:
        nonlocal now_ms, asked
        asked += 1
        now_ms += 50 + way_ms
        # It jumps while it is being read.
        said_ms = now_ms + (off_ms if asked > 3 else 90_000)
        now_ms += way_ms
        return int(said_ms // 1_000 * 1_000)

    # Half the width, or half of one and a half round trips where those are longer.
    assert abs(await offset_ms(date_ms, lambda: now_ms) - off_ms) <= max(
        100, 0.75 * (50 + 2 * way_ms)
    )
    assert asked <= 60


async def test_answers_that_take_longer_than_the_width_still_give_an_offset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a busy machine the loop continued until the fault was reported as not having happened."""
    monkeypatch.setattr("chaos.systems.ddq.http._STEP_S", 0)
    now_ms = 1_800_000_000_321.0
    asked = 0

    async def date_ms() -> int:
        nonlocal now_ms, asked
        asked += 1
        now_ms += 450
        said_ms = now_ms + 3_600_000
        now_ms += 450
        assert asked < 60
        return int(said_ms // 1_000 * 1_000)

    assert abs(await offset_ms(date_ms, lambda: now_ms) - 3_600_000) <= 0.75 * 900


def _conform(
    one: SentinelCluster, other: ShardedCluster
) -> tuple[
    list[Cluster], list[Kill], list[Pause], list[Partition], list[Clock], list[Disk], Unconfigured
]:
    """For the type checker: the abilities are reached by a cast, which believes anything."""
    full: list[FullDisk] = [one, other]
    assert full
    return (
        [one, other],
        [one, other],
        [one, other],
        [one, other],
        [one, other],
        [one, other],
        one,
    )


async def require(cluster: SentinelCluster, *abilities: Ability) -> None:
    for ability in abilities:
        if why := cluster.unavailable.get(ability):
            await cluster.stop()
            pytest.skip(f"{ability}: {why}")


async def _is_off_by(cluster: SentinelCluster, node: StoreNode, offset_ms: int) -> bool:
    return abs(await cluster.clock_offset_ms(node) - offset_ms) < 500


async def _takes_writes(cluster: SentinelCluster, node: StoreNode) -> bool:
    return await cluster.command(node, "SET", "key", "x" * 1_000) == "OK"


async def _refuses_writes(cluster: SentinelCluster, node: StoreNode) -> bool:
    try:
        await _takes_writes(cluster, node)
    except ReplyError as error:
        return str(error).startswith("MISCONF")
    return False


def _traces_of(folder: str) -> list[str]:
    mounts = Path("/proc/mounts").read_text().splitlines()
    left = [str(path) for path in Path(folder).parent.iterdir() if str(path) == folder]
    return [*left, *(line for line in mounts if folder in line)]


_HARNESS = """
import asyncio
from chaos.clusters import Ability, Cut
from chaos.clusters.process import SentinelCluster

async def main():
    cluster = SentinelCluster(data_nodes=2, disk_bytes=4_000_000)
    await cluster.start()
    await cluster.cut([Cut(cluster.data[0].ip, cluster.data[1].ip)])
    print(cluster.folder, cluster.net.number)
    print(*(cluster.child(node).pid for node in cluster.nodes), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_nothing_outlives_a_harness_that_is_killed_and_the_next_start() -> None:
    cluster = SentinelCluster(data_nodes=1, sentinels=1, disk_bytes=1)
    await require(cluster, Ability.PARTITION, Ability.FULL_DISK)
    await cluster.stop()
    harness = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HARNESS, stdout=subprocess.PIPE
    )
    assert harness.stdout is not None
    folder, number = (await harness.stdout.readline()).decode().split()
    pids = [int(pid) for pid in (await harness.stdout.readline()).split()]
    assert len(pids) == 5
    assert all(process_state(pid) is not None for pid in pids)
    harness.send_signal(signal.SIGKILL)
    await harness.wait()
    # Their new parent reaps them, sooner or later; a zombie runs nothing.
    async with asyncio.timeout(10):
        while True:
            if all(process_state(pid) in {None, "Z"} for pid in pids):
                break
            await asyncio.sleep(0.01)

    # Another test that starts a cluster may have swept before this one did.
    await sweep()
    assert await remove_rules_of(int(number)) == 0
    assert _traces_of(folder) == []


@pytest.mark.parametrize(("data_nodes", "needed"), [(1, "0"), (3, "1")])
async def test_the_master_asks_for_a_majority_of_the_configured_nodes(
    tmp_path: Path, data_nodes: int, needed: str
) -> None:
    cluster = SentinelCluster(data_nodes=data_nodes, unconfigured=True, folder=tmp_path)
    try:
        await cluster.start()
        master = await cluster.master()
        name, value = await _setting(cluster, master, "min-replicas-to-write")
        assert (name, value) == ("min-replicas-to-write", needed)
        assert len(cluster.data_nodes.split(",")) == data_nodes
        # The replica that is not in the configuration is attached.
        assert (await cluster.replication(master))["connected_slaves"] == str(data_nodes)
    finally:
        await cluster.stop()


async def _setting(cluster: SentinelCluster, node: StoreNode, name: str) -> list[object]:
    reply = await cluster.command(node, "CONFIG", "GET", name)
    assert isinstance(reply, list)
    return list(reply)
