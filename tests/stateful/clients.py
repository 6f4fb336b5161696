"""The clients of a simulation: producers, cancellers and workers over the real handlers.

Every request is repeated as the client library repeats it, with the same ids and the library's own
code, on an API process of the driver's choosing. What was asked and answered goes into a history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ddq.client import rpcs
from ddq.client.repeat import Backoff, Repeater
from ddq.client.status import AttemptFailedError, Failure
from ddq.errors import DdqError
from ddq.server.rpc import CallFactory
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2
from tests.stateful.history import Exchange, Exchanges
from tests.stateful.simulation import SETTINGS, CountedEntropy, Simulation

TOPIC = "t"
DEADLINE_S = 2.0


class _Timing:
    """The client's time is the simulation's."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def wall_ms(self) -> int:
        return self._simulation.now_ms()

    def monotonic_s(self) -> float:
        return self._simulation.loop.time()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


class Client:
    """A client process."""

    def __init__(self, simulation: Simulation, exchanges: Exchanges, name: str) -> None:
        self.simulation = simulation
        self.name = name
        self._exchanges = exchanges
        self._entropy = CountedEntropy(name)
        self._repeater = Repeater(_Timing(simulation), self._entropy, Backoff())
        self._calls = CallFactory(SETTINGS, simulation)

    def name_request(self) -> str:
        """A new request_id."""
        return self._entropy.token(8).hex()

    async def ask(self, rpc: rpcs.Rpc, method: str, request: Any) -> Exchange:
        """One request, repeated until its outcome is known or its time is over."""
        simulation = self.simulation
        exchange = self._exchanges.begin(self.name, rpc.name, request)
        if "not_after" in request.DESCRIPTOR.fields_by_name:
            request.not_after.FromMilliseconds(simulation.now_ms() + round(DEADLINE_S * 1_000))

        async def attempt(left_s: float) -> Any:
            process = f"api{1 + simulation.choose(simulation.apis)}"
            handler: Callable[..., Awaitable[Any]] = getattr(
                simulation.processes[process].service, method
            )
            try:
                return await handler(request, self._calls.make(request, left_s))
            except DdqError as error:
                raise AttemptFailedError(
                    Failure(error, error.definite, error.repeatable, error.retry_delay_s)
                ) from error

        try:
            exchange.reply = await self._repeater.run(
                rpc, f"{rpc.name} {self.name}", attempt, simulation.loop.time() + DEADLINE_S
            )
        except DdqError as error:
            exchange.error = error
        self._exchanges.complete(exchange)
        outcome = "ok" if exchange.ok else str(exchange.error and exchange.error.reason)
        simulation.record(f"{self.name}: {rpc.name} {getattr(request, 'id', '')} -> {outcome}")
        return exchange

    async def enqueue(self, task_id: str, delay_ms: int, max_attempts: int = 3) -> None:
        """Adds a task whose payload says its id."""
        spec = task_pb2.TaskSpec(id=task_id, payload=f"payload of {task_id}".encode())
        spec.delay.FromMilliseconds(delay_ms)
        spec.retry_policy.max_attempts = max_attempts
        spec.retry_policy.initial_backoff.FromMilliseconds(20)
        spec.retry_policy.jitter = 0.0
        await self.ask(rpcs.ENQUEUE, "enqueue", pb.EnqueueRequest(topic=TOPIC, task=spec))

    async def debounce(self, task_id: str, delay_ms: int, limit_ms: int) -> None:
        """An event for a task that may wait already."""
        spec = task_pb2.TaskSpec(id=task_id, payload=f"another payload of {task_id}".encode())
        spec.delay.FromMilliseconds(delay_ms)
        spec.retry_policy.max_attempts = 3
        spec.retry_policy.initial_backoff.FromMilliseconds(20)
        spec.retry_policy.jitter = 0.0
        request = pb.EnqueueRequest(
            topic=TOPIC, task=spec, on_conflict=pb.ON_CONFLICT_DEBOUNCE,
            request_id=self.name_request(),
        )  # fmt: skip
        request.debounce_limit.FromMilliseconds(limit_ms)
        await self.ask(rpcs.ENQUEUE, "enqueue", request)

    async def cancel(self, task_id: str, *, revoke: bool) -> None:
        """Cancels a task."""
        request = pb.CancelRequest(
            topic=TOPIC, id=task_id, revoke_lease=revoke, request_id=self.name_request()
        )
        await self.ask(rpcs.CANCEL, "cancel", request)

    async def look(self, task_id: str) -> None:
        """Reads a task."""
        await self.ask(rpcs.GET_TASK, "get_task", pb.GetTaskRequest(topic=TOPIC, id=task_id))

    async def reschedule(self, task_id: str, delay_ms: int) -> None:
        """Gives a task another due time."""
        request = pb.RescheduleRequest(topic=TOPIC, id=task_id, request_id=self.name_request())
        request.delay.FromMilliseconds(delay_ms)
        await self.ask(rpcs.RESCHEDULE, "reschedule", request)

    async def retrieve(self, lease_ms: int, wait_ms: int = 0) -> list[pb.LeasedTask]:
        """Leases up to two tasks."""
        request = pb.RetrieveRequest(topics=[TOPIC], max_tasks=2, request_id=self.name_request())
        request.lease_duration.FromMilliseconds(lease_ms)
        request.wait.FromMilliseconds(wait_ms)
        exchange = await self.ask(rpcs.RETRIEVE, "retrieve", request)
        return list(exchange.reply.tasks) if exchange.ok else []

    async def settle(self, lease: pb.LeasedTask, how: str) -> None:
        """Ends a lease in one of the ways, or forgets about it."""
        task_id, token = lease.task.id, lease.lease_token
        if how == "ack":
            request = pb.AckRequest(topic=TOPIC, id=task_id, lease_token=token)
            await self.ask(rpcs.ACK, "ack", request)
        elif how == "nack":
            nack = pb.NackRequest(topic=TOPIC, id=task_id, lease_token=token)
            nack.verdict.error = "failed"
            await self.ask(rpcs.NACK, "nack", nack)
        elif how == "release":
            release = pb.ReleaseRequest(topic=TOPIC, id=task_id, lease_token=token)
            await self.ask(rpcs.RELEASE, "release", release)
        elif how == "again":
            again = pb.RunAgainRequest(topic=TOPIC, id=task_id, lease_token=token)
            again.next.delay.FromMilliseconds(20)
            await self.ask(rpcs.RUN_AGAIN, "run_again", again)
        elif how == "snooze":
            snooze = pb.SnoozeRequest(topic=TOPIC, id=task_id, lease_token=token)
            snooze.delay.FromMilliseconds(30)
            await self.ask(rpcs.SNOOZE, "snooze", snooze)
        elif how == "extend":
            extend = pb.ExtendRequest(topic=TOPIC, id=task_id, lease_token=token)
            extend.lease_duration.FromMilliseconds(100)
            await self.ask(rpcs.EXTEND, "extend", extend)
            await self.settle(lease, "ack")

    async def work(self, rounds: int) -> None:
        """Retrieves a few times, and ends what it got as the driver says."""
        ways = ("ack", "nack", "again", "release", "snooze", "extend", "die")
        for _ in range(rounds):
            wait_ms = (0, 60)[self.simulation.choose(2)]
            for lease in await self.retrieve((100, 250)[self.simulation.choose(2)], wait_ms):
                await self.settle(lease, ways[self.simulation.choose(len(ways))])

    async def finish(self) -> None:
        """After the faults: works until it is cancelled, and acks everything."""
        while True:
            for lease in await self.retrieve(5_000, 200):
                await self.settle(lease, "ack")
