"""SIGKILL and SIGSTOP."""

from __future__ import annotations

import asyncio
import time

from chaos.clusters import Node, Role
from chaos.faults.model import (
    FAILOVER_TIMEOUT_S,
    DidNotHappenError,
    Evidence,
    Strength,
    Victim,
    World,
)
from chaos.faults.targets import replicas, victims

_POLL_S = 0.005


class KillFault:
    """Ends processes at once, and starts them again when healed."""

    def __init__(self, world: World, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._world = world
        self._target = target
        self._victims: list[Victim] = []

    async def inject(self) -> Evidence:
        """SIGKILL."""
        self._victims = await victims(self._world, self._target)
        for victim in self._victims:
            await victim.kill()
        return {"killed": [victim.name for victim in self._victims]}

    async def verify(self) -> Evidence:
        """They are gone."""
        if undead := [victim.name for victim in self._victims if victim.alive()]:
            raise DidNotHappenError(f"{', '.join(undead)} runs though it was killed")
        return {}

    async def heal(self) -> None:
        """Starts them again."""
        while self._victims:
            victim = self._victims.pop()
            if not victim.alive():
                await victim.restart()


class PauseFault:
    """Freezes processes; they go on when healed, not knowing that time has passed."""

    def __init__(self, world: World, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._world = world
        self._target = target
        self._victims: list[Victim] = []
        self._since_s = 0.0

    async def inject(self) -> Evidence:
        """SIGSTOP."""
        self._victims = await victims(self._world, self._target)
        self._since_s = time.monotonic()
        if dead := [victim.name for victim in self._victims if not victim.alive()]:
            raise DidNotHappenError(f"{', '.join(dead)} is down and cannot be stopped")
        for victim in self._victims:
            await victim.pause()
        return {"paused": [victim.name for victim in self._victims]}

    async def verify(self) -> Evidence:
        """They are still stopped."""
        if running := [victim.name for victim in self._victims if not victim.paused()]:
            raise DidNotHappenError(f"{', '.join(running)} was not stopped all the time")
        return {"paused_ms": round((time.monotonic() - self._since_s) * 1_000)}

    async def heal(self) -> None:
        """SIGCONT."""
        while self._victims:
            await self._victims.pop().resume()


class PauseUntilReplacedFault:
    """Freezes the master for exactly as long as it takes until a replica is promoted.

    Then it goes on at once: for the 0.5 to 0.9 s until Sentinel takes its other replica from it, it
    has a majority and is not the master.
    """

    def __init__(self, world: World, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._world = world
        self._target = target
        self._victim: Victim | None = None
        self._replaced = False

    async def inject(self) -> Evidence:
        """SIGSTOP, and SIGCONT when there is another one."""
        others = await replicas(self._world.cluster)
        (self._victim,) = await victims(self._world, self._target)
        since_s = time.monotonic()
        await self._victim.pause()
        try:
            async with asyncio.timeout(FAILOVER_TIMEOUT_S):
                successor = await self._promoted(others)
        except TimeoutError:
            raise DidNotHappenError("nobody was promoted though the master was paused") from None
        await self._victim.resume()
        self._replaced = True
        paused_ms = round((time.monotonic() - since_s) * 1_000)
        return {"paused": [self._victim.name], "paused_ms": paused_ms, "successor": successor.name}

    async def _promoted(self, others: list[Node]) -> Node:
        cluster = self._world.cluster
        while True:
            for node, role in zip(
                others, await asyncio.gather(*map(cluster.role, others)), strict=True
            ):
                if role is Role.MASTER:
                    return node
            await asyncio.sleep(_POLL_S)

    async def verify(self) -> Evidence:
        """It was replaced."""
        if not self._replaced:
            raise DidNotHappenError(f"the master of {self._target} was not replaced")
        return {}

    async def heal(self) -> None:
        """SIGCONT."""
        victim, self._victim = self._victim, None
        if victim is not None:
            await victim.resume()
