"""Failpoints: a process dies at exactly the point that was named, with exactly its effects."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from chaos.clusters.process.loopback import LoopbackNet
from chaos.eventually import eventually
from chaos.faults import FaultContext, Target, kind
from chaos.faults.nemesis import FaultEvent, FaultPhase, Schedule, Step, play
from chaos.systems.ddq.failpoints import Failpoint
from chaos.systems.ddq.process import DdqProcess
from ddq.client import Client
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import delay_queue_service_pb2_grpc as queue_grpc
from ddq.v1 import task_pb2
from tests.chaos.test_faults import _NoCluster
from tests.support.store import StoreServer

TIMEOUT_S = 30.0


@asynccontextmanager
async def failing_server(store: StoreServer, folder: Path) -> AsyncIterator[DdqProcess]:
    """``ddq serve`` with failpoints, on an address of its own."""
    net = LoopbackNet.take(folder)
    file = folder / "api.failpoint"
    command = [sys.executable, "-m", "chaos.systems.ddq.failpoints", str(file), "serve"]
    where = ["--store", store.url, "--listen", f"{net.ip(1)}:50051"]
    process = DdqProcess("api", net.ip(1), [*command, *where], folder, " on ", failpoint=file)
    try:
        await process.restart()
        await eventually(process.ready, TIMEOUT_S)
        yield process
    finally:
        await process.kill()
        net.release()


@pytest.mark.parametrize("failpoint", list(Failpoint))
async def test_a_process_dies_at_the_point_with_the_effects_that_it_had_there(
    store_server: StoreServer, tmp_path: Path, failpoint: Failpoint
) -> None:
    async with failing_server(store_server, tmp_path) as process:
        address = f"{process.ip}:50051"
        async with Client(address) as client:
            await client.create_topic("jobs")
            # The store knows the script from now on; the first send of one has no effect.
            await client.enqueue("jobs", task_id="before")
        process.set_failpoint(failpoint)
        async with grpc.aio.insecure_channel(address) as channel:
            stub = queue_grpc.DelayQueueServiceStub(channel)
            request = pb.EnqueueRequest(topic="jobs", task=task_pb2.TaskSpec(id="one"))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Enqueue(request, timeout=TIMEOUT_S)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await eventually(lambda: process.ended_count == 1 and process.ready(), TIMEOUT_S)
        assert f"FAILPOINT {failpoint}" in process.log.read_text()
        async with Client(address) as client:
            counts = (await client.stats("jobs")).counts
        assert counts.enqueued == (1 if failpoint is Failpoint.BEFORE_SEND else 2)


async def test_the_fault_happens_where_the_process_gets_to_the_point(
    store_server: StoreServer, tmp_path: Path
) -> None:
    async with failing_server(store_server, tmp_path) as process:

        async def api() -> Target:
            return process

        context = FaultContext(_NoCluster(), processes={"api": api})  # type: ignore[arg-type]
        assert kind("failpoint").unavailable(context, "api") is None
        events: list[FaultEvent] = []
        step = Step("failpoint", "api", {"failpoint": "after-send"}, hold_ms=1, settle=False)
        async with Client(f"{process.ip}:50051") as client:
            await client.create_topic("jobs")
            schedule = Schedule(((step,),), down_after_ms=1_000)
            async with asyncio.TaskGroup() as group:
                group.create_task(play(schedule, context, events.append))
                await eventually(lambda: events or None, TIMEOUT_S)
                await client.enqueue("jobs", task_id="one")
        assert [event.phase for event in events] == [
            FaultPhase.BEGUN, FaultPhase.INJECTED, FaultPhase.VERIFIED, FaultPhase.HEALED
        ]  # fmt: skip
