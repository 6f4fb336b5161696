"""Three APIs and three schedulers on Sentinel, while everything else dies, hangs or is replaced."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta
from pathlib import Path

import pytest

from chaos.clusters import NodeKind
from chaos.experiments.deployment import Deployment, Needs, open_deployment
from chaos.experiments.plan import RunPlan
from chaos.faults import Mode
from chaos.systems.ddq.processes import ProcessSystem
from ddq.client import Client, Durability, TopicSettings
from tests.chaos.test_failover import ALWAYS, explanation, judged

pytestmark = pytest.mark.timeout(600)

TIMEOUT_S = 30.0


@pytest.mark.parametrize("mode", [Mode.FAST, Mode.QUORUM, Mode.ALL])
async def test_the_master_is_killed_five_times(mode: Mode, tmp_path: Path) -> None:
    results = await judged(RunPlan("failover", 5, mode, rate=80), tmp_path)
    explained = explanation(results)
    assert results.failovers >= 5, explained
    if mode is Mode.FAST:
        kept = {promise.id for promise in results.promises if promise.verdict == "VALID"}
        assert kept >= ALWAYS, explained
    else:
        assert results.verdict == "VALID", explained


@pytest.mark.parametrize(
    "scenario",
    [
        "master-paused", "replica-lost", "sentinel-lost", "api-killed", "scheduler-leader-stopped",
        "scheduler-leader-killed", "everything",
    ],
)  # fmt: skip
async def test_whatever_else_dies_or_hangs(scenario: str, tmp_path: Path) -> None:
    results = await judged(RunPlan(scenario, 6, Mode.QUORUM, rate=80), tmp_path)
    assert results.verdict == "VALID", explanation(results)


async def test_a_rolling_restart_loses_nothing_and_fails_no_request(tmp_path: Path) -> None:
    plan = RunPlan("failover", 7, Mode.QUORUM)
    async with (
        open_deployment(plan, tmp_path, Needs()) as deployment,
        deployment.system.connect() as (client, *_),
    ):
        await client.create_topic("work", settings=TopicSettings(durability=Durability.QUORUM))
        traffic = _Traffic(client)
        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(traffic.produce(number))
            for number in range(3):
                group.create_task(traffic.work(number))
            await _restart_everything(deployment)
            await traffic.finish()
    assert traffic.enqueued == traffic.acked
    assert len(traffic.enqueued) > 100


async def _restart_everything(deployment: Deployment) -> None:
    """Processes of ddq, then the store: replicas first, the master behind a planned failover."""
    system = deployment.system
    assert isinstance(system, ProcessSystem)
    for process in (*system.apis, *system.schedulers):
        await process.terminate()
        await process.restart()
        await system.wait_until_serving()
    cluster = deployment.cluster
    first = await cluster.master()
    data = [node for node in cluster.nodes if node.kind is NodeKind.DATA]
    for node in (*(node for node in data if node != first), first):
        if node == await cluster.master():
            await cluster.failover(coordinated=True)
        await cluster.kill(node)  # type: ignore[attr-defined]
        await cluster.restart(node)  # type: ignore[attr-defined]
        await cluster.wait_until_in_sync(60.0)


class _Traffic:
    """Producers and workers whose requests may take 30 s, and none of which may fail."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._producing = True
        self.enqueued: set[str] = set()
        self.acked: set[str] = set()

    async def produce(self, number: int) -> None:
        rng, count = random.Random(number), 0
        while self._producing:
            count += 1
            task_id = f"{number}-{count}"
            delay = timedelta(milliseconds=rng.randrange(0, 2_000))
            await self._client.enqueue("work", task_id=task_id, delay=delay, timeout_s=TIMEOUT_S)
            self.enqueued.add(task_id)
            await asyncio.sleep(rng.random() * 0.1)

    async def work(self, number: int) -> None:
        del number
        while self._producing or self.enqueued != self.acked:
            leases = await self._client.retrieve(
                "work", max_tasks=5, lease=timedelta(seconds=60), wait=timedelta(seconds=1),
                timeout_s=TIMEOUT_S,
            )  # fmt: skip
            for lease in leases:
                await self._client.ack(lease, timeout_s=TIMEOUT_S)
                self.acked.add(lease.id)

    async def finish(self) -> None:
        """Until everything that was enqueued is acked."""
        self._producing = False
        end_s = time.monotonic() + 60
        while self.enqueued != self.acked and time.monotonic() < end_s:  # noqa: ASYNC110 - polls
            await asyncio.sleep(0.1)
