"""The Sentinel cluster in containers does what the one of processes does, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest

from chaos.clusters import Cut, NotAvailableError, Role, StoreNode
from chaos.clusters.docker import DockerCluster, why_unavailable
from chaos.clusters.docker.cleanup import sweep
from chaos.clusters.docker.engine import RUN_LABEL, Engine
from chaos.clusters.process import FAST_PERIODS_MS
from chaos.clusters.resp import ReplyError


@pytest.fixture
def client() -> Iterator[Any]:
    client = docker.from_env()
    yield client
    client.close()


def things_of(client: Any, run: int) -> list[str]:
    """Names of all that a run has at the engine."""
    having = {"label": f"{RUN_LABEL}={run}"}
    found = [
        *client.containers.list(all=True, filters=having),
        *client.networks.list(filters=having),
        *client.volumes.list(filters=having),
    ]
    return [each.name for each in found]


@asynccontextmanager
async def started(**options: Any) -> AsyncIterator[DockerCluster]:
    cluster = DockerCluster(**options)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


async def test_faults_of_processes_and_hosts_are_injected_one_at_a_time_and_removed(
    client: Any,
) -> None:
    async with started(sentinel_periods_ms=FAST_PERIODS_MS) as cluster:
        first = await cluster.master()
        assert len(things_of(client, cluster.net.number)) == 3 + 6 + 1

        # A data node dies; its Sentinel, on the same host, does not.
        await cluster.kill(first)
        beside = next(node for node in cluster.sentinels if node.host == first.host)
        assert cluster.alive(beside)
        assert await cluster.role(beside) is Role.SENTINEL
        second = await cluster.wait_for_master(other_than=first)
        await cluster.restart(first)
        await cluster.until_it_says(first, "starting as a replica of")
        await cluster.wait_until_in_sync()

        assert not cluster.paused(second)
        await cluster.pause(second)
        assert cluster.paused(second)
        third = await cluster.wait_for_master(other_than=second)
        await cluster.resume(second)
        await cluster.wait_until_in_sync()

        # A host is cut off from the others, while the observer still reaches it.
        inside = [node for node in cluster.nodes if node.host == third.host]
        outside = [node for node in cluster.nodes if node.host != third.host]
        name = await cluster.cut(
            [cut for a in inside for b in outside for cut in (Cut(a.ip, b.ip), Cut(b.ip, a.ip))]
        )
        fourth = await cluster.wait_for_master(other_than=third)
        assert await cluster.dropped_packets(name) > 0
        assert await cluster.role(third) is Role.MASTER
        await cluster.heal(name)
        assert await cluster.dropped_packets(name) == 0
        await cluster.wait_until_in_sync()

        # A cable is pulled: the host is off the network, and its processes know nothing of it.
        await cluster.unplug(fourth.host)
        assert cluster.unplugged(fourth.host)
        fifth = await cluster.wait_for_master(other_than=fourth)
        assert cluster.alive(fourth)
        assert await cluster.role(fourth) is Role.UNREACHABLE
        await cluster.plug(fourth.host)
        await cluster.wait_until_in_sync()
        assert await cluster.role(fourth) is Role.REPLICA
        assert await cluster.failover() != fifth
    assert not cluster.folder.exists()
    assert things_of(client, cluster.net.number) == []


async def test_a_data_node_is_cut_off_from_the_sentinel_on_its_own_host() -> None:
    async with started(sentinel_periods_ms=FAST_PERIODS_MS) as cluster:
        node = cluster.data[0]
        beside = next(each for each in cluster.sentinels if each.host == node.host)
        name = await cluster.cut([Cut(node.ip, beside.ip), Cut(beside.ip, node.ip)])

        async def it_is_down_for_that_one() -> bool:
            reply = await cluster.command(beside, "SENTINEL", "MASTER", "mymaster")
            return "s_down" in str(reply)

        await cluster.until(it_is_down_for_that_one, 20, "not down")
        assert await cluster.dropped_packets(name) > 0
        # The other two see it well, and two are a majority.
        assert await cluster.master() == node


async def test_clocks_and_disks_can_be_spoilt_and_are_good_again(client: Any) -> None:
    options: dict[str, Any] = {"data_nodes": 2, "sentinels": 1}
    async with started(clocks=True, disk_bytes=8_000_000, **options) as cluster:
        node, replica = cluster.data
        await cluster.shift_clock(node, 3_600_000)
        await cluster.until(partial(_is_off_by, cluster, node, 3_600_000), 10, "no jump")
        assert await _is_off_by(cluster, cluster.sentinels[0], 0)
        await cluster.shift_clock(node, 0)
        await cluster.until(partial(_is_off_by, cluster, node, 0), 10, "still off")

        await cluster.fill_disk(node)
        assert await cluster.free_disk_bytes(node) == 0
        await cluster.until(partial(_refuses_writes, cluster, node), 10, "takes writes")
        await cluster.free_disk(node)
        await cluster.until(partial(_takes_writes, cluster, node), 10, "refuses writes")

        await cluster.kill(replica)
        # Its disk has outlived it.
        assert await cluster.truncate_log(replica, 10) == 10
        await cluster.empty_disk(replica)
        with pytest.raises(Exception, match="no append-only file"):
            await cluster.truncate_log(replica, 10)
        await cluster.restart(replica)
        await cluster.wait_until_in_sync()
    assert things_of(client, cluster.net.number) == []


async def _is_off_by(cluster: DockerCluster, node: StoreNode, offset_ms: int) -> bool:
    return abs(await cluster.clock_offset_ms(node) - offset_ms) < 500


async def _takes_writes(cluster: DockerCluster, node: StoreNode) -> bool:
    return await cluster.command(node, "SET", "key", "x" * 1_000) == "OK"


async def _refuses_writes(cluster: DockerCluster, node: StoreNode) -> bool:
    try:
        await _takes_writes(cluster, node)
    except ReplyError as error:
        return str(error).startswith("MISCONF")
    return False


# Programs, hosts, small disks, the network.
_THINGS = 3 + 2 + 2 + 1

_HARNESS = """
import asyncio
from chaos.clusters.docker import DockerCluster

async def main():
    cluster = DockerCluster(data_nodes=2, sentinels=1, disk_bytes=8_000_000)
    try:
        await cluster.start()
        print(cluster.folder, cluster.net.number, flush=True)
        await asyncio.Event().wait()
    finally:
        await cluster.stop()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_nothing_outlives_a_harness_that_is_stopped_or_killed_and_the_next_start(
    client: Any, how: signal.Signals
) -> None:
    harness = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HARNESS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert harness.stdout is not None
    engine = Engine(0)
    try:
        folder, number = (await harness.stdout.readline()).decode().split()
        assert len(things_of(client, int(number))) == _THINGS
        # What belongs to a living run stays.
        await sweep(engine)
        assert len(things_of(client, int(number))) == _THINGS
        harness.send_signal(how)
        await harness.wait()
        if how is signal.SIGKILL:
            assert things_of(client, int(number)) != []
            await sweep(engine)
        assert things_of(client, int(number)) == []
        assert not await asyncio.to_thread(Path(folder).exists)
    finally:
        if harness.returncode is None:
            harness.kill()
            await harness.wait()
        await sweep(engine)
        engine.close()


def test_without_an_engine_it_says_what_to_install() -> None:
    # In a process of its own: the engine's library leaves a socket behind when there is none.
    done = subprocess.run(
        [sys.executable, "-c", "from chaos.clusters.docker import *; print(why_unavailable())"],
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("no container engine answers; install Debian's docker.io")
    assert done.stdout.count("\n") == 1


def test_without_an_image_it_says_how_to_make_it() -> None:
    assert why_unavailable("ddq-chaos:none") == "there is no image ddq-chaos:none; run `make image`"


def test_an_image_of_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.clusters.docker.engine.source_digest", lambda: "another")
    with pytest.raises(NotAvailableError, match="holds another ddq than this folder; run `make"):
        DockerCluster()
