"""The lifecycle of every run: start, load, drive, heal, drain, collect.

What a run tests is its driver, a callable: the nemesis with its schedules, a maintenance procedure,
or a step of the durability matrix. What its clients do, and what is kept of it, is its session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Session(Protocol):
    """The part of a run around its driver."""

    def enter(self, phase: str) -> None:
        """Notes that a phase begins: load, fault, heal, drain, end."""

    async def start(self) -> None:
        """Waits until store and system are healthy, and creates the topics."""

    def load(self) -> AbstractAsyncContextManager[None]:
        """Clients are at work while the block runs."""

    def fault_windows(self) -> AbstractAsyncContextManager[None]:
        """Ends when the window of every fault in the block is closed."""

    async def heal(self) -> None:
        """The driver is done: waits until a write is acknowledged again."""

    async def settle(self) -> None:
        """Waits until store and system are healthy again."""

    async def drain(self) -> None:
        """Stops producers, and waits until workers have ended what is left."""

    async def collect(self) -> None:
        """Keeps what the surviving store holds."""


AnySession = TypeVar("AnySession", bound=Session)
Driver = Callable[[AnySession], Awaitable[None]]
"""Does to a deployment what a run tests; it returns when every fault of it is healed."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long load runs undisturbed before the driver, and after store and system are healthy."""

    before_s: float
    after_s: float


async def run_lifecycle(session: AnySession, driver: Driver[AnySession], timing: Timing) -> None:
    """One run of a driver, on a deployment that has been started.

    Raises:
        ClusterError: the store or the system did not do what was asked.
    """
    await session.start()
    async with session.load():
        session.enter("load")
        await asyncio.sleep(timing.before_s)
        async with session.fault_windows():
            session.enter("fault")
            await driver(session)
            session.enter("heal")
            await session.heal()
        await session.settle()
        await asyncio.sleep(timing.after_s)
        session.enter("drain")
        await session.drain()
        session.enter("end")
    await session.collect()


__all__ = ["Driver", "Session", "Timing", "run_lifecycle"]
