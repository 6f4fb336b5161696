"""A whole place in containers: ddq's processes die and hang there, and connections are spoilt."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chaos.clusters import Ability, ClusterError
from chaos.experiments.deployment import Needs, Place, open_place
from chaos.experiments.plan import RunPlan
from chaos.faults import Mode, kind
from ddq.client import Client

PLAN = RunPlan("master-killed", 1, Mode.QUORUM, cluster="docker")
CONNECTIONS = ("slow", "stalled", "cut", "reset", "sliced", "throttled")
LINKS = ("api-store", "scheduler-store", "client-api")


async def hurt(place: Place, name: str, target: str, **strength: str | int) -> None:
    """One fault, verified to have happened, and healed."""
    fault = kind(name).make(place.world, target, strength)
    try:
        await fault.inject()
        await fault.verify()
    finally:
        await fault.heal()
    await place.cluster.wait_until_in_sync()
    await place.system.wait_until_serving()


async def until_led(place: Place) -> None:
    """A killed leader's lease runs for seconds more."""
    async with asyncio.timeout(30):
        while True:
            try:
                await place.system.leader()
            except ClusterError:
                await asyncio.sleep(0.1)
            else:
                return


async def enqueue(place: Place) -> None:
    async with Client(f"ipv4:{','.join(place.addresses)}") as client:
        await client.enqueue("orders", b"x")


async def test_every_process_of_ddq_can_be_hurt(tmp_path: Path) -> None:
    async with open_place(PLAN, tmp_path, Needs()) as place:
        # Clients go through Toxiproxy, and so does what the APIs and schedulers ask the store.
        direct = set(place.system.addresses)
        assert direct.isdisjoint(place.addresses)
        await enqueue(place)
        for target in ("api", "scheduler", "scheduler-leader"):
            for name in ("kill", "pause"):
                await until_led(place)
                await hurt(place, name, target)
        await hurt(place, "cable", "replica-host")
        await enqueue(place)
        store_logs = {path.name for path in (tmp_path / "store").glob("*.log")}
        assert store_logs == {"d1.log", "d2.log", "d3.log", "s1.log", "s2.log", "s3.log"}
    logs = {path.name for path in (tmp_path / "ddq").glob("*.log")}
    assert {"api1.log", "scheduler1.log"} <= logs


async def test_every_process_of_ddq_can_be_given_the_wrong_time(tmp_path: Path) -> None:
    async with open_place(PLAN, tmp_path, Needs(frozenset({Ability.CLOCK}))) as place:
        for target, offset_ms in (
            ("api", 3_600_000),
            ("scheduler", 500),
            ("scheduler-leader", -60_000),
        ):
            await enqueue(place)
            await until_led(place)
            await hurt(place, "clock-jump", target, offset_ms=offset_ms)
        await enqueue(place)


async def test_every_kind_of_connection_can_be_spoilt(tmp_path: Path) -> None:
    async with open_place(PLAN, tmp_path, Needs(links=frozenset(LINKS))) as place:
        for target in LINKS:
            for name in CONNECTIONS:
                strength = {"latency_ms": 200} if name == "slow" else {"rate_kib_s": 64}
                await hurt(place, name, target, **strength)
        await enqueue(place)


async def test_clients_lose_a_node_that_is_well(tmp_path: Path) -> None:
    async with open_place(PLAN, tmp_path, Needs()) as place:
        master = await place.cluster.master()
        fault = kind("partition-clients").make(place.world, "master", {})
        try:
            await fault.inject()
            # It is the APIs' way to the master that is cut, so a call waits for the store.
            with pytest.raises(Exception, match=r"DEADLINE|UNREACHABLE|UNKNOWN|UNAVAILABLE"):
                async with Client(f"ipv4:{place.addresses[0]}") as client:
                    await client.enqueue("orders", b"x", timeout_s=3.0)
            await fault.verify()
        finally:
            await fault.heal()
        assert await place.cluster.master() == master
        await place.system.wait_until_serving()
        await enqueue(place)
