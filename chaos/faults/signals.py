"""SIGKILL and SIGSTOP."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from chaos.clusters import Role, StoreNode
from chaos.eventually import eventually
from chaos.faults.model import (
    FAILOVER_TIMEOUT_S,
    DidNotHappenError,
    Evidence,
    Failing,
    FaultContext,
    Strength,
    Target,
)
from chaos.faults.targets import find_targets, replicas

_POLL_S = 0.005
_FAILPOINT_TIMEOUT_S = 10.0


class KillFault:
    """Ends processes at once, and starts them again when healed."""

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._context = context
        self._target = target
        self._targets: list[Target] = []

    async def inject(self) -> Evidence:
        """SIGKILL."""
        self._targets = await find_targets(self._context, self._target)
        for target in self._targets:
            await target.kill()
        return {"killed": [target.name for target in self._targets]}

    async def verify(self) -> Evidence:
        """They are gone."""
        if undead := [target.name for target in self._targets if target.alive()]:
            raise DidNotHappenError(f"{', '.join(undead)} runs though it was killed")
        return {}

    async def heal(self) -> None:
        """Starts them again."""
        while self._targets:
            target = self._targets.pop()
            if not target.alive():
                await target.restart()


class PauseFault:
    """Freezes processes; when healed they continue, not knowing that time has passed."""

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._context = context
        self._target = target
        self._targets: list[Target] = []
        self._since_s = 0.0

    async def inject(self) -> Evidence:
        """SIGSTOP."""
        self._targets = await find_targets(self._context, self._target)
        self._since_s = time.monotonic()
        if dead := [target.name for target in self._targets if not target.alive()]:
            raise DidNotHappenError(f"{', '.join(dead)} is down and cannot be stopped")
        for target in self._targets:
            await target.pause()
        return {"paused": [target.name for target in self._targets]}

    async def verify(self) -> Evidence:
        """They are still stopped."""
        if running := [target.name for target in self._targets if not target.paused()]:
            raise DidNotHappenError(f"{', '.join(running)} was not stopped all the time")
        return {"paused_ms": round((time.monotonic() - self._since_s) * 1_000)}

    async def heal(self) -> None:
        """SIGCONT."""
        while self._targets:
            await self._targets.pop().resume()


class StutterFault:
    """A process that runs only now and then: alive, and slow in everything.

    Strength:
        pause_ms: for how long it stands still, each time; too short for a Sentinel to take it for
            down.
        run_ms: for how long it runs in between.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:
        self._context = context
        self._target = target
        self._pause_s = float(strength.get("pause_ms", 200)) / 1_000
        self._run_s = float(strength.get("run_ms", 50)) / 1_000
        self._stuttering: asyncio.Task[None] | None = None
        self._targets: list[Target] = []
        self._pauses = 0

    async def inject(self) -> Evidence:
        """Begins to stop and continue it, in turn."""
        self._targets = await find_targets(self._context, self._target)
        if dead := [target.name for target in self._targets if not target.alive()]:
            raise DidNotHappenError(f"{', '.join(dead)} is down and cannot be stopped")
        self._stuttering = asyncio.create_task(self._stutter(), name=f"stutter of {self._target}")
        return {"slowed": [target.name for target in self._targets]}

    async def _stutter(self) -> None:
        while True:
            for target in self._targets:
                await target.pause()
            self._pauses += 1
            await asyncio.sleep(self._pause_s)
            for target in self._targets:
                await target.resume()
            await asyncio.sleep(self._run_s)

    async def verify(self) -> Evidence:
        """It stood still more than once."""
        if self._pauses <= 1:
            raise DidNotHappenError(f"{self._target} was stopped {self._pauses} times, not often")
        return {"pauses": self._pauses}

    async def heal(self) -> None:
        """It runs without interruption again."""
        stuttering, self._stuttering = self._stuttering, None
        if stuttering is not None:
            stuttering.cancel()
            await asyncio.wait([stuttering])
        while self._targets:
            await self._targets.pop().resume()


class FailpointFault:
    """A process of ddq dies at a point of its own program; its supervisor starts it again.

    Strength:
        failpoint: see chaos/systems/ddq/failpoints.py.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:
        self._context = context
        self._target = target
        self._failpoint = str(strength["failpoint"])
        self._process: Failing | None = None
        self._ended_count = 0

    async def inject(self) -> Evidence:
        """Names the point to the process, which dies when it gets there."""
        (target,) = await find_targets(self._context, self._target)
        self._process = cast("Failing", target)
        self._ended_count = self._process.ended_count
        self._process.set_failpoint(self._failpoint)
        return {"process": self._process.name, "failpoint": self._failpoint}

    async def verify(self) -> Evidence:
        """It has died there, and runs again."""
        process = self._process
        assert process is not None
        try:
            await eventually(lambda: process.ended_count > self._ended_count, _FAILPOINT_TIMEOUT_S)
        except TimeoutError:
            raise DidNotHappenError(
                f"{process.name} did not get to {self._failpoint} within {_FAILPOINT_TIMEOUT_S:g} s"
            ) from None
        return {}

    async def heal(self) -> None:
        """No point is named any more."""
        process, self._process = self._process, None
        if process is not None:
            process.set_failpoint("")


class PauseUntilReplacedFault:
    """Freezes the master for exactly as long as it takes until a replica is promoted.

    Then it continues at once: for the 0.5 to 0.9 s until Sentinel takes its other replica from it,
    it has a majority and is not the master.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._context = context
        self._target = target
        self._paused: Target | None = None
        self._replaced = False

    async def inject(self) -> Evidence:
        """SIGSTOP, and SIGCONT when there is another one."""
        others = await replicas(self._context.cluster)
        (self._paused,) = await find_targets(self._context, self._target)
        since_s = time.monotonic()
        await self._paused.pause()

        async def promoted() -> StoreNode | None:
            roles = await asyncio.gather(*map(self._context.cluster.role, others))
            return next(
                (n for n, role in zip(others, roles, strict=True) if role is Role.MASTER), None
            )

        problem = "no replica was promoted though the master was paused"
        successor = await eventually(
            promoted, FAILOVER_TIMEOUT_S, problem, error=DidNotHappenError, poll_s=_POLL_S
        )
        await self._paused.resume()
        self._replaced = True
        paused_ms = round((time.monotonic() - since_s) * 1_000)
        return {"paused": [self._paused.name], "paused_ms": paused_ms, "successor": successor.name}

    async def verify(self) -> Evidence:
        """It was replaced."""
        if not self._replaced:
            raise DidNotHappenError(f"the master of {self._target} was not replaced")
        return {}

    async def heal(self) -> None:
        """SIGCONT."""
        target, self._paused = self._paused, None
        if target is not None:
            await target.resume()
