"""Connections that are slow, stalled, cut, reset, sliced or throttled, by Toxiproxy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chaos.clusters import NotAvailableError
from chaos.faults.links import Link
from chaos.faults.model import DidNotHappenError, Evidence, FaultContext, Strength, Value

Attributes = Callable[[Mapping[str, Value]], Mapping[str, Value]]

_PROBE_TIMEOUT_S = 2.0


class ToxicFault:
    """A toxic on every connection of a link, until healed.

    Strength:
        stream: upstream, towards the server, or downstream.
        and what the toxic takes, see the catalogue.
    """

    def __init__(
        self,
        context: FaultContext,
        target: str,
        strength: Strength,
        *,
        toxic: str,
        attributes: Attributes,
    ) -> None:
        self._context = context
        self._target = target
        self._toxic = toxic
        self._stream = str(strength.get("stream", "downstream"))
        self._attributes = {k: int(v) for k, v in attributes(strength).items()}
        self._link: Link | None = None

    async def inject(self) -> Evidence:
        """Adds the toxic."""
        self._link = find(self._context, self._target)
        await self._link.add_toxic(self._toxic, self._stream, self._attributes)
        return {"link": self._link.name, "toxic": self._toxic, "stream": self._stream}

    async def verify(self) -> Evidence:
        """It is on every proxy, and where a new connection can show it, it does."""
        assert self._link is not None
        if any(self._toxic not in toxics for toxics in await self._link.toxics()):
            raise DidNotHappenError(f"{self._link.name} has a proxy without {self._toxic}")
        answers_s = await self._link.answer_s(_PROBE_TIMEOUT_S)
        answered_s = [answer_s for answer_s in answers_s if answer_s is not None]
        match self._toxic:
            case "latency":
                # The jitter goes both ways.
                least_s = (self._attributes["latency"] - self._attributes["jitter"]) / 1_000
                if answered_s and min(answered_s) < least_s:
                    raise DidNotHappenError(
                        f"{self._link.name} answers within {min(answered_s):.3f} s"
                    )
            case "timeout" | "reset_peer" if answered_s:
                raise DidNotHappenError(f"{self._link.name} answers though nothing should arrive")
        return {"answering": len(answered_s), "of": len(answers_s)}

    async def heal(self) -> None:
        """Removes it."""
        if self._link is not None:
            await self._link.remove_toxic(self._toxic)
            self._link = None


def toxic(name: str, attributes: Attributes) -> Callable[[FaultContext, str, Strength], ToxicFault]:
    """Makes faults with one kind of toxic."""

    def make(context: FaultContext, target: str, strength: Strength) -> ToxicFault:
        return ToxicFault(context, target, strength, toxic=name, attributes=attributes)

    return make


class CutLinkFault:
    """Every connection of a link is closed, and new ones are refused."""

    def __init__(self, context: FaultContext, target: str, strength: Strength) -> None:  # noqa: ARG002
        self._context = context
        self._target = target
        self._link: Link | None = None

    async def inject(self) -> Evidence:
        """Closes it."""
        self._link = find(self._context, self._target)
        await self._link.close()
        return {"link": self._link.name}

    async def verify(self) -> Evidence:
        """No connection gets through."""
        assert self._link is not None
        if any(answer is not None for answer in await self._link.answer_s(_PROBE_TIMEOUT_S)):
            raise DidNotHappenError(f"{self._link.name} answers though it is closed")
        return {}

    async def heal(self) -> None:
        """Opens it."""
        if self._link is not None:
            await self._link.open()
            self._link = None


def find(context: FaultContext, target: str) -> Link:
    """The link of that name; NotAvailableError if this run has none."""
    try:
        return context.links[target]
    except KeyError:
        raise NotAvailableError(f"{target}: this run has no Toxiproxy between the two") from None
