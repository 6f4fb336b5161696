"""One producer or worker: a recorded client with its own random numbers and pace."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from chaos.history.recorder import Recorder
from chaos.history.streams import RecordedStreams
from ddq.client import Client
from ddq.errors import DdqError

Choice = TypeVar("Choice")

TIMEOUTS_S = (1.5, 4.0, 10.0)
"""How long callers wait: the short ones see unknown outcomes, the long ones repeat through it."""


@dataclass(eq=False, slots=True)
class Load:
    """What all actors of a run share.

    Attributes:
        topics: where their tasks go.
        rate: operations a second that the producers of the run start together.
        producing: False once no new task is to come.
        healed: the faults are over; what is due long after would only be waited for.
        draining: a worker that gets a task ends it, at once and for good.
        stopped: set when workers have nothing left to do.
        recent: topic and id of tasks that were acknowledged last, by any producer: who asks for
            them does so through another API than who enqueued them.
    """

    topics: Sequence[str]
    rate: float
    producing: bool = True
    healed: bool = False
    draining: bool = False
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    recent: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=50))


@dataclass(eq=False, slots=True)
class Actor:
    """One logical process.

    Attributes:
        streams: what it can lease by, beside its recorder.
        workers_client: makes what a Worker of the library takes for its client.
        number: of its kind, from 0.
        share: of the load's rate.
    """

    load: Load
    recorder: Recorder
    streams: RecordedStreams
    workers_client: Callable[[], Client]
    rng: random.Random
    number: int
    share: float
    _count: int = 0
    _turns: int = 0
    _next_s: float = 0.0

    @property
    def name(self) -> str:
        """The name of the process, in each of its lives."""
        return self.recorder.process.partition(".")[0]

    def topic(self) -> str:
        """One of them."""
        return self.rng.choice(self.load.topics)

    def new_id(self) -> str:
        """An id that no other actor gives."""
        self._count += 1
        return f"{self.name}-{self._count}"

    def next_of(self, choices: Sequence[Choice]) -> Choice:
        """One after the other, so that a short run has them all; actors begin at different ones."""
        self._turns += 1
        return choices[(self.number + self._turns) % len(choices)]

    def timeout_s(self) -> float:
        """How long this request may take."""
        return self.rng.choice(TIMEOUTS_S)

    async def pace(self, operations: int = 1) -> None:
        """Waits for its turn: so many operations at the share of the rate that is its own."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        # What was missed while a request hung is not caught up: the load would come in one lump.
        self._next_s = max(self._next_s, now_s - 1.0)
        self._next_s += operations / (self.load.rate * self.share) * self.rng.uniform(0.5, 1.5)
        if self._next_s > now_s:
            await asyncio.sleep(self._next_s - now_s)


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Errors are expected, and the recorder records them."""
    with contextlib.suppress(DdqError):
        yield


def ms(value: float) -> timedelta:
    """A span."""
    return timedelta(milliseconds=value)


Part = Callable[[Actor], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Workload:
    """What the clients of a run do.

    Attributes:
        produce: one round of a producer; it paces itself.
        work: one round of a worker: retrieve and what follows.
        operate: one round of an operator; there is one for each topic. None: there is none.
        blocking: producers use the blocking client.
        shards: of each topic.
    """

    name: str
    doc: str
    produce: Part
    work: Part
    producers: int = 12
    workers: int = 8
    topics: int = 2
    shards: int = 2
    operate: Part | None = None
    blocking: bool = False


__all__ = ["Actor", "Load", "Workload", "ms", "refused"]
