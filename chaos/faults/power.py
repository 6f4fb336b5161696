"""Hosts that lose their power: their processes end, with what was not on the disk."""

from __future__ import annotations

from typing import cast

from chaos.clusters import Kill, Power, StoreNode
from chaos.faults.model import DidNotHappenError, Evidence, FaultContext, Strength
from chaos.faults.targets import nodes


class PowerLossFault:
    """Ends every process of the target's hosts at the same moment; started again when healed."""

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._cluster = context.cluster
        self._target = target
        self._nodes: list[StoreNode] = []

    @property
    def _kill(self) -> Kill:
        return cast("Kill", self._cluster)

    async def inject(self) -> Evidence:
        """The power goes."""
        self._nodes = await nodes(self._cluster, self._target)
        gone = await cast("Power", self._cluster).lose_power(self._nodes)
        return {
            "killed": [node.name for node in self._nodes],
            **{f"gone_bytes_{name}": count for name, count in gone.items()},
        }

    async def verify(self) -> Evidence:
        """Nothing runs."""
        if undead := [node.name for node in self._nodes if self._kill.alive(node)]:
            raise DidNotHappenError(f"{', '.join(undead)} runs though its host has no power")
        return {}

    async def heal(self) -> None:
        """The power is back: the supervisor of each host starts its nodes."""
        while self._nodes:
            node = self._nodes.pop()
            if not self._kill.alive(node):
                await self._kill.restart(node)


__all__ = ["PowerLossFault"]
