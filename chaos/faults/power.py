"""Hosts that lose their power: their processes end, with what was not on the disk."""

from __future__ import annotations

from typing import cast

from chaos.clusters import Power
from chaos.faults.model import Evidence
from chaos.faults.signals import KillFault
from chaos.faults.targets import NodeTarget, nodes


class PowerLossFault(KillFault):
    """Ends every process of the target's hosts at the same moment; started again when healed."""

    async def inject(self) -> Evidence:
        """The power goes."""
        cluster = self._context.cluster
        hit = await nodes(cluster, self._target)
        self._targets = [NodeTarget(cluster, node) for node in hit]
        gone = await cast("Power", cluster).lose_power(hit)
        return {
            "killed": [target.name for target in self._targets],
            **{f"gone_bytes_{name}": count for name, count in gone.items()},
        }


__all__ = ["PowerLossFault"]
