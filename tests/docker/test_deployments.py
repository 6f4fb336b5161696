"""A whole deployment in containers: processes of ddq are killed and paused, connections fail."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chaos.clusters import Ability, ClusterError
from chaos.experiments.deployment import Deployment, Needs, open_deployment
from chaos.experiments.plan import RunPlan
from chaos.faults import Mode, kind
from chaos.systems.ddq.processes import ProcessSystem

PLAN = RunPlan("master-killed", 1, Mode.QUORUM, cluster="docker")
CONNECTIONS = ("slow", "stalled", "cut", "reset", "sliced", "throttled")
LINKS = ("api-store", "scheduler-store", "client-api")


async def inject(deployment: Deployment, name: str, target: str, **strength: str | int) -> None:
    """One fault, verified to have happened, and healed."""
    fault = kind(name).make(deployment.context, target, strength)
    try:
        await fault.inject()
        await fault.verify()
    finally:
        await fault.heal()
    await deployment.cluster.wait_until_in_sync()
    await deployment.system.wait_until_serving()


async def until_led(deployment: Deployment) -> None:
    """A killed leader's lease runs for seconds more."""
    async with asyncio.timeout(30):
        while True:
            try:
                await deployment.system.targets["scheduler-leader"]()
            except ClusterError:
                await asyncio.sleep(0.1)
            else:
                return


async def enqueue(deployment: Deployment) -> None:
    async with deployment.system.connect() as (client, *_):
        await client.enqueue("orders", b"x")


async def test_faults_can_be_injected_into_every_process_of_ddq(tmp_path: Path) -> None:
    async with open_deployment(PLAN, tmp_path, Needs()) as deployment:
        # Clients go through Toxiproxy, and so does what the APIs and schedulers ask the store.
        assert isinstance(deployment.system, ProcessSystem)
        direct = set(deployment.system.addresses)
        assert direct.isdisjoint(deployment.system.reached_addresses)
        await enqueue(deployment)
        for target in ("api", "scheduler", "scheduler-leader"):
            for name in ("kill", "pause"):
                await until_led(deployment)
                await inject(deployment, name, target)
        await inject(deployment, "cable", "replica-host")
        await enqueue(deployment)
        store_logs = {path.name for path in (tmp_path / "store").glob("*.log")}
        assert store_logs == {"d1.log", "d2.log", "d3.log", "s1.log", "s2.log", "s3.log"}
    logs = {path.name for path in (tmp_path / "ddq").glob("*.log")}
    assert {"api1.log", "scheduler1.log"} <= logs


async def test_every_process_of_ddq_can_be_given_the_wrong_time(tmp_path: Path) -> None:
    async with open_deployment(PLAN, tmp_path, Needs(frozenset({Ability.CLOCK}))) as deployment:
        for target, offset_ms in (
            ("api", 3_600_000),
            ("scheduler", 500),
            ("scheduler-leader", -60_000),
        ):
            await enqueue(deployment)
            await until_led(deployment)
            await inject(deployment, "clock-jump", target, offset_ms=offset_ms)
        await enqueue(deployment)


async def test_every_kind_of_connection_can_be_spoilt(tmp_path: Path) -> None:
    async with open_deployment(PLAN, tmp_path, Needs(links=frozenset(LINKS))) as deployment:
        for target in LINKS:
            for name in CONNECTIONS:
                strength = {"latency_ms": 200} if name == "slow" else {"rate_kib_s": 64}
                await inject(deployment, name, target, **strength)
        await enqueue(deployment)


async def test_clients_lose_a_node_that_is_well(tmp_path: Path) -> None:
    async with open_deployment(PLAN, tmp_path, Needs()) as deployment:
        master = await deployment.cluster.master()
        fault = kind("partition-clients").make(deployment.context, "master", {})
        try:
            await fault.inject()
            # It is the APIs' way to the master that is cut, so a call waits for the store.
            with pytest.raises(Exception, match=r"DEADLINE|UNREACHABLE|UNKNOWN|UNAVAILABLE"):
                async with deployment.system.connect(failover=False) as (client, *_):
                    await client.enqueue("orders", b"x", timeout_s=3.0)
            await fault.verify()
        finally:
            await fault.heal()
        assert await deployment.cluster.master() == master
        await deployment.system.wait_until_serving()
        await enqueue(deployment)
