"""Clocks that jump or run at the wrong speed."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from chaos.clusters import Clock, Node
from chaos.faults.model import DidNotHappenError, Evidence, Strength, World
from chaos.faults.targets import nodes

_POLL_S = 0.05
# A node sees its new time within a second.
_SEEN_TIMEOUT_S = 10.0
_TOLERANCE_MS = 500
_DRIFT_STEP_S = 0.25


class ClockJumpFault:
    """The nodes' clocks are off by so much from one moment to the next.

    Strength:
        offset_ms: ahead, or behind if negative.
    """

    def __init__(self, world: World, target: str, strength: Strength) -> None:
        self._world = world
        self._target = target
        self._offset_ms = int(strength.get("offset_ms", 5_000))
        self._nodes: list[Node] = []

    @property
    def _clock(self) -> Clock:
        return cast("Clock", self._world.cluster)

    async def inject(self) -> Evidence:
        """Sets the clocks."""
        self._nodes = await nodes(self._world.cluster, self._target)
        for node in self._nodes:
            await self._clock.shift_clock(node, self._offset_ms)
        return {"nodes": [node.name for node in self._nodes], "offset_ms": self._offset_ms}

    async def verify(self) -> Evidence:
        """The nodes themselves tell the wrong time."""
        for node in self._nodes:
            await self._until_off(node)
        return {}

    async def _until_off(self, node: Node) -> None:
        seen_ms = 0
        try:
            async with asyncio.timeout(_SEEN_TIMEOUT_S):
                while True:
                    seen_ms = await self._clock.clock_offset_ms(node)
                    if abs(seen_ms - self._offset_ms) < _TOLERANCE_MS:
                        return
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise DidNotHappenError(
                f"{node.name}'s clock is off by {seen_ms} ms and not by {self._offset_ms} ms"
            ) from None

    async def heal(self) -> None:
        """Sets them right."""
        while self._nodes:
            await self._clock.shift_clock(self._nodes.pop(), 0)


class ClockDriftFault:
    """The nodes' clocks run too fast, or too slowly.

    Strength:
        rate_ppm: parts per million; 20,000 is 2 % too fast.
    """

    def __init__(self, world: World, target: str, strength: Strength) -> None:
        self._world = world
        self._target = target
        self._rate_ppm = int(strength.get("rate_ppm", 20_000))
        self._nodes: list[Node] = []
        self._drifting: asyncio.Task[None] | None = None
        self._offset_ms = 0

    @property
    def _clock(self) -> Clock:
        return cast("Clock", self._world.cluster)

    async def inject(self) -> Evidence:
        """Begins to drift."""
        self._nodes = await nodes(self._world.cluster, self._target)
        self._drifting = asyncio.create_task(self._drift())
        return {"nodes": [node.name for node in self._nodes], "rate_ppm": self._rate_ppm}

    async def _drift(self) -> None:
        begin_s = time.monotonic()
        while True:
            await asyncio.sleep(_DRIFT_STEP_S)
            self._offset_ms = round((time.monotonic() - begin_s) * self._rate_ppm / 1_000)
            for node in self._nodes:
                await self._clock.shift_clock(node, self._offset_ms)

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
        while self._nodes:
            await self._clock.shift_clock(self._nodes.pop(), 0)
