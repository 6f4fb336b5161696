"""Writes down what the nemesis does, and when the queue works again after it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from typing import Literal

from chaos.experiments.progress import Progress
from chaos.faults.nemesis import FaultEvent, FaultPhase
from chaos.history.operations import FaultNote
from chaos.history.writer import HistoryWriter
from ddq.client import Client
from ddq.errors import DdqError

PROBE_TOPIC = "chaos-probe"
PROBE_TIMEOUT_S = 1.0
PROBE_PAUSE_S = 0.05
SERVED_TIMEOUT_S = 60.0


class FaultRecorder:
    """Takes the nemesis's events.

    A fault's window begins before anything is done, and ends when, after its healing, a write is
    acknowledged again at the run's durability: from then on G6 counts.

    Args:
        clients: for probes, which are no part of the history; one that cannot be served by one
            API is made through the next.
        group: where probes run.
    """

    def __init__(
        self,
        writer: HistoryWriter,
        progress: Progress,
        clients: Sequence[Client],
        group: asyncio.TaskGroup,
    ) -> None:
        self._writer = writer
        self._progress = progress
        self._clients = itertools.cycle(clients)
        self._group = group
        self._numbers = itertools.count()
        self._happened: dict[str, bool] = {}
        self._details: dict[str, list[str]] = {}
        self.not_available: dict[str, str] = {}
        self.did_not_happen: dict[str, str] = {}
        self.unserved: list[str] = []

    def tell(self, event: FaultEvent) -> None:
        """One moment of a step."""
        name = f"{event.step.kind} {event.step.target}"
        details = self._details.setdefault(event.number, [])
        details += (f"{key} {value}" for key, value in event.evidence.items())
        match event.phase:
            case FaultPhase.BEGUN:
                self._progress.faults[event.number] = name
                self._happened[event.number] = False
                self._writer.note("nemesis", "fault", _fault(event, "inject"))
            case FaultPhase.VERIFIED:
                self._happened[event.number] = True
            case FaultPhase.NOT_AVAILABLE:
                self.not_available[name] = str(event.evidence.get("why", ""))
                if event.number in self._happened:
                    self._end(event)
            case FaultPhase.DID_NOT_HAPPEN:
                self.did_not_happen[f"{event.number} {name}"] = str(event.evidence.get("why", ""))
            case FaultPhase.HEALED if event.number in self._happened:
                self._group.create_task(
                    self._until_served(event), name=f"chaos probe {event.number}"
                )
            case _:
                pass

    async def _until_served(self, event: FaultEvent) -> None:
        await self.probe()
        self._end(event)

    def _end(self, event: FaultEvent) -> None:
        self._progress.faults.pop(event.number, None)
        happened = self._happened.pop(event.number)
        detail = ", ".join(self._details.pop(event.number))
        fault = _fault(event, "heal", verified=happened, detail=detail)
        self._writer.note("nemesis", "fault", fault)

    async def probe(self) -> None:
        """Returns when a write is acknowledged, or when there is no more hope."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVED_TIMEOUT_S):
                while not await self._served():  # noqa: ASYNC110 - only trying tells
                    await asyncio.sleep(PROBE_PAUSE_S)
                return
        self.unserved.append(f"no write was acknowledged within {SERVED_TIMEOUT_S:g} s")

    async def _served(self) -> bool:
        try:
            await next(self._clients).enqueue(
                PROBE_TOPIC, task_id=f"probe-{next(self._numbers)}", timeout_s=PROBE_TIMEOUT_S
            )
        except DdqError:
            return False
        return True


def _fault(
    event: FaultEvent, phase: Literal["inject", "heal"], *, verified: bool = True, detail: str = ""
) -> FaultNote:
    return FaultNote(event.step.kind, event.step.target, phase, verified, detail, event.number)


__all__ = ["PROBE_TOPIC", "FaultRecorder"]
