"""The clients of a run: producers that make tasks, workers that take them, and operators."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from typing import cast

from chaos.eventually import eventually
from chaos.history.library import BlockingClient, WorkersClient
from chaos.history.recorder import Recorder
from chaos.history.streams import RecordedStreams
from chaos.history.writer import HistoryWriter
from chaos.workloads import Actor, Load, Workload
from chaos.workloads.actor import Part
from ddq.client import Client
from ddq.errors import DdqError, RollbackDetected

DRAIN_PERIOD_S = 0.5
WORKERS_MAX_TASKS = 64
"""More than a Worker of any workload asks for at the same time."""


class ClientPool:
    """All producers and workers of a run.

    Args:
        clients: one for each order of the APIs, so that their first choices differ.
        seed: with an actor's name, the source of its random numbers.
    """

    def __init__(
        self,
        workload: Workload,
        writer: HistoryWriter,
        clients: Sequence[Client],
        *,
        seed: str,
        rate: float,
    ) -> None:
        self.topics = [f"{workload.name}{n + 1}" for n in range(workload.topics)]
        self.load = Load(self.topics, rate)
        self._workload = workload
        self._numbers = itertools.count(1)
        self._blocking = [BlockingClient(each) for each in clients] if workload.blocking else []
        asking = cast("Sequence[Client]", self._blocking or clients)
        self._producers = [
            self._actor(f"p{n}", n, writer, asking, seed) for n in range(workload.producers)
        ]
        self._workers = [
            self._actor(f"w{n}", n, writer, clients, seed) for n in range(workload.workers)
        ]
        self._operators = [
            self._actor(f"o{n}", n, writer, clients, seed)
            for n in range(workload.topics if workload.operate else 0)
        ]
        self._clients = clients
        self._observers = [
            self._actor(f"observer{n}", n, writer, clients, seed) for n in range(len(clients))
        ]
        self._producing: list[asyncio.Task[None]] = []

    def _actor(
        self, name: str, number: int, writer: HistoryWriter, clients: Sequence[Client], seed: str
    ) -> Actor:
        client = clients[number % len(clients)]

        def workers_client() -> Client:
            """Stands in for one; each has processes of other names."""
            named = f"{name}x{next(self._numbers)}"
            return cast("Client", WorkersClient(writer, client, named, WORKERS_MAX_TASKS))

        return Actor(
            self.load,
            Recorder(writer, client, name),
            RecordedStreams(writer, client, name),
            workers_client,
            random.Random(f"{seed}/{name}"),
            number,
            1 / self._workload.producers,
        )

    @property
    def unknowns(self) -> int:
        """Operations whose outcome is unknown."""
        return sum(
            actor.recorder.unknowns + actor.streams.unknowns
            for actor in (
                *self._producers,
                *self._workers,
                *self._operators,
                *self._observers,
            )
        )

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """All are at work while the block runs; workers stay until its end."""
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for client in self._blocking:
                stack.push_async_callback(client.close)
            workers = [
                group.create_task(self._work(actor), name=f"chaos {actor.name}")
                for actor in self._workers
            ]
            self._producing = [
                group.create_task(self._produce(actor), name=f"chaos {actor.name}")
                for actor in self._producers
            ]
            if self._workload.operate is not None:
                self._producing += [
                    group.create_task(
                        self._operate(actor, self._workload.operate), name=f"chaos {actor.name}"
                    )
                    for actor in self._operators
                ]
            try:
                yield
            finally:
                self.load.producing = False
                self.load.stopped.set()
                for task in (*workers, *self._producing):
                    task.cancel()

    async def _produce(self, actor: Actor) -> None:
        while self.load.producing:
            await self._workload.produce(actor)

    async def _operate(self, actor: Actor, operate: Part) -> None:
        while self.load.producing:
            await operate(actor)

    async def _work(self, actor: Actor) -> None:
        while not self.load.stopped.is_set():
            await self._workload.work(actor)

    async def stop_producing(self) -> None:
        """Returns when the last producer has finished what it was at."""
        self.load.producing = False
        await asyncio.gather(*self._producing)

    async def drain(self, timeout_s: float) -> bool:
        """Workers end whatever they get; True when there is nothing left to get."""
        self.load.draining = True
        try:
            await eventually(self._is_empty, timeout_s, poll_s=DRAIN_PERIOD_S)
        except TimeoutError:
            return False
        self.load.stopped.set()
        return True

    @property
    def served_client(self) -> Client:
        """A client whose API has served the last question."""
        return self._clients[self._observers[0].number]

    async def _is_empty(self) -> bool:
        """Whether no task is left; asked through the next API where one does not serve."""
        count = 0
        for topic in self.topics:
            try:
                stats = await self._observers[0].recorder.stats(topic, timeout_s=5.0)
            except RollbackDetected:
                raise
            except DdqError:
                self._observers.append(self._observers.pop(0))
                return False
            count += stats.counts.scheduled + stats.counts.ready + stats.counts.leased
        return count == 0


__all__ = ["ClientPool"]
