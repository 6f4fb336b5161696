"""Level 3 without a fault: a Retrieve that waits ends in time, also when its hint was lost."""

from __future__ import annotations

import asyncio

import pytest

from ddq.server import retrieval
from ddq.store.runner import Call
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.stateful.clients import TOPIC, Client
from tests.stateful.quiet import QuietSimulation, quiet

WAIT_S = 60


async def _retrieve(it: QuietSimulation, deadline_s: float) -> tuple[pb.RetrieveResponse, float]:
    """A Retrieve that may wait for a minute; its answer and when that came."""
    loop = asyncio.get_running_loop()
    request = pb.RetrieveRequest(topics=[TOPIC])
    request.wait.FromSeconds(WAIT_S)
    handler = it.simulation.processes["api1"].service
    reply = await handler.retrieve(request, Call(loop.time() + deadline_s))
    return reply, loop.time()


@pytest.mark.parametrize("deadline_s", [1.0, 20.0])
def test_a_wait_is_answered_before_its_deadline(stateful_socket: str, deadline_s: float) -> None:
    """An answer that is sent at the deadline arrives behind it, and its leases are lost."""
    with quiet(stateful_socket, 0) as it:
        began_s = it.simulation.loop.time()
        waiting = it.simulation.loop.create_task(_retrieve(it, deadline_s))
        it.simulation.loop.settle()
        it.run_until(began_s + deadline_s + 1)
        reply, ended_s = waiting.result()
        assert not reply.tasks
        took_s = ended_s - began_s
        assert deadline_s - 0.3 < took_s < deadline_s - 0.1


def test_a_wait_looks_again_when_its_hint_was_lost(stateful_socket: str) -> None:
    with quiet(stateful_socket, 0, hints=False) as it:
        waiting = it.simulation.loop.create_task(_retrieve(it, WAIT_S + 10.0))
        it.simulation.spawn(
            Client(it.simulation, it.exchanges, "producer").enqueue("x", 50), "producer"
        )
        it.run_until(0.01)
        it.simulation.start_schedulers()
        it.run_until(WAIT_S + 20.0)
        reply, ended_s = waiting.result()
        assert [lease.task.id for lease in reply.tasks] == ["x"]
        assert ended_s < retrieval.SAFETY_S + 1 < WAIT_S


def test_a_repeat_whose_leases_have_lapsed_does_not_wait(stateful_socket: str) -> None:
    """It would use up the wake-ups of the calls that can do something with them."""
    with quiet(stateful_socket, 0) as it:
        loop, service = it.simulation.loop, it.simulation.processes["api1"].service

        async def retrieve(request_id: str) -> tuple[list[str], float]:
            request = pb.RetrieveRequest(topics=[TOPIC], request_id=request_id)
            request.wait.FromSeconds(WAIT_S)
            request.lease_duration.FromMilliseconds(100)
            call = Call(loop.time() + WAIT_S + 10.0, request_id=request_id)
            reply = await service.retrieve(request, call)
            return [lease.task.id for lease in reply.tasks], loop.time()

        it.simulation.start_schedulers()
        first = loop.create_task(retrieve("r"))
        it.simulation.spawn(
            Client(it.simulation, it.exchanges, "producer").enqueue("x", 50), "producer"
        )
        it.run_until(0.4)
        assert first.result()[0] == ["x"]
        repeat = loop.create_task(retrieve("r"))
        loop.settle()
        it.run_until(0.5)
        assert repeat.done(), "what it got has lapsed, and it waits"
        assert repeat.result()[0] == []
