"""Hosts off the network, from one moment to the next, with every address that they have."""

from __future__ import annotations

from typing import cast

from chaos.clusters import Cable
from chaos.faults.model import DidNotHappenError, Evidence, FaultContext, Strength
from chaos.faults.targets import nodes


class CableFault:
    """A host's cable is pulled: its connections hang, and new ones find no such host."""

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._context = context
        self._target = target
        self._host: str | None = None

    @property
    def _cable(self) -> Cable:
        return cast("Cable", self._context.cluster)

    async def inject(self) -> Evidence:
        """Pulls it."""
        self._host = (await nodes(self._context.cluster, self._target))[0].host
        await self._cable.unplug(self._host)
        return {"host": self._host}

    async def verify(self) -> Evidence:
        """It is off the network still."""
        assert self._host is not None
        if not self._cable.unplugged(self._host):
            raise DidNotHappenError(f"{self._host} is on the network")
        return {}

    async def heal(self) -> None:
        """Puts it back."""
        if self._host is not None:
            await self._cable.plug(self._host)
            self._host = None
