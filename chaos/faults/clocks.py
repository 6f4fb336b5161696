"""Clocks that jump or run at the wrong speed."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from chaos.eventually import eventually
from chaos.faults.model import Clocked, DidNotHappenError, Evidence, FaultContext, Strength
from chaos.faults.targets import find_targets

_POLL_S = 0.05
# A process sees its new time within a second; its answers may take long on a busy machine.
_SEEN_TIMEOUT_S = 30.0
# Less than half of the smallest jump.
_TOLERANCE_MS = 200
_DRIFT_STEP_S = 0.25


async def _clocked(context: FaultContext, target: str) -> list[Clocked]:
    # Every target has a clock; the fault context says beforehand whether it can be shifted.
    return [cast("Clocked", found) for found in await find_targets(context, target)]


async def _until_off(one: Clocked, offset_ms: int) -> None:
    """Returns when the process itself tells the wrong time."""
    seen = "it does not answer"

    async def off() -> bool:
        nonlocal seen
        seen_ms = await one.clock_offset_ms()
        seen = f"it is off by {seen_ms} ms"
        return abs(seen_ms - offset_ms) < _TOLERANCE_MS

    try:
        # Beside another fault a process may not answer each time.
        await eventually(off, _SEEN_TIMEOUT_S, ignoring=(OSError,), poll_s=_POLL_S)
    except TimeoutError:
        raise DidNotHappenError(
            f"{one.name}'s clock should be off by {offset_ms} ms: {seen}"
        ) from None


class ClockJumpFault:
    """The clocks are off by so much from one moment to the next.

    Strength:
        offset_ms: ahead, or behind if negative.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:
        self._context = context
        self._target = target
        self._offset_ms = int(strength.get("offset_ms", 5_000))
        self._shifted: list[Clocked] = []

    async def inject(self) -> Evidence:
        """Sets the clocks."""
        self._shifted = await _clocked(self._context, self._target)
        for one in self._shifted:
            await one.shift_clock(self._offset_ms)
        return {"shifted": [one.name for one in self._shifted], "offset_ms": self._offset_ms}

    async def verify(self) -> Evidence:
        """The processes themselves tell the wrong time."""
        for one in self._shifted:
            await _until_off(one, self._offset_ms)
        return {}

    async def heal(self) -> None:
        """Sets them right."""
        while self._shifted:
            await self._shifted.pop().shift_clock(0)


class ClockDriftFault:
    """The clocks run too fast, or too slowly.

    Strength:
        rate_ppm: parts per million; 20,000 is 2 % too fast.
    """

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:
        self._context = context
        self._target = target
        self._rate_ppm = int(strength.get("rate_ppm", 20_000))
        self._shifted: list[Clocked] = []
        self._drifting: asyncio.Task[None] | None = None
        self._offset_ms = 0

    async def inject(self) -> Evidence:
        """Begins to drift."""
        self._shifted = await _clocked(self._context, self._target)
        self._drifting = asyncio.create_task(self._drift())
        return {"shifted": [one.name for one in self._shifted], "rate_ppm": self._rate_ppm}

    async def _drift(self) -> None:
        begin_s = time.monotonic()
        while True:
            await asyncio.sleep(_DRIFT_STEP_S)
            self._offset_ms = round((time.monotonic() - begin_s) * self._rate_ppm / 1_000)
            for one in self._shifted:
                await one.shift_clock(self._offset_ms)

    async def verify(self) -> Evidence:
        """It has moved away from the true time, by so much."""
        assert self._drifting is not None
        if self._drifting.done():
            await self._drifting
        if self._offset_ms == 0:
            raise DidNotHappenError("the clocks have not drifted yet; hold it for longer")
        return {"offset_ms": self._offset_ms}

    async def heal(self) -> None:
        """Stops drifting and sets them right."""
        if self._drifting is not None:
            self._drifting.cancel()
            await asyncio.wait([self._drifting])
            self._drifting = None
        while self._shifted:
            await self._shifted.pop().shift_clock(0)
