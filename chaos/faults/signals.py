"""SIGKILL and SIGSTOP."""

from __future__ import annotations

import time

from chaos.faults.model import DidNotHappenError, Evidence, Strength, Victim, World
from chaos.faults.targets import victims


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
