"""Records the windows of faults: from before the fault until the queue serves again after it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from chaos.eventually import eventually
from chaos.experiments.progress import Progress
from chaos.faults.nemesis import FaultEvent, FaultPhase
from chaos.history.notes import FaultNote
from chaos.history.writer import HistoryWriter
from ddq.client import Client
from ddq.errors import DdqError

PROBE_TOPIC = "chaos-probe"
PROBE_TIMEOUT_S = 1.0
PROBE_PAUSE_S = 0.05
SERVED_TIMEOUT_S = 60.0


class FaultRecorder:
    """Receives the events of the nemesis and the steps of a procedure.

    A fault's window begins before anything is done, and ends when, after its healing, a write is
    acknowledged again at the run's durability: from then on G6 counts.

    Args:
        clients: for probes, which are not part of the history; a probe that one API does not serve
            is repeated through the next.

    Attributes:
        not_available: fault → why this deployment cannot make it.
        did_not_happen: fault → why it counts for nothing.
        unserved: a line for each probe that was never acknowledged.
    """

    def __init__(
        self, writer: HistoryWriter, progress: Progress, clients: Sequence[Client]
    ) -> None:
        self._writer = writer
        self._progress = progress
        self._clients = itertools.cycle(clients)
        self._group: asyncio.TaskGroup | None = None
        self._numbers = itertools.count()
        self._steps = itertools.count(1)
        self._happened: dict[str, bool] = {}
        self._details: dict[str, list[str]] = {}
        self.not_available: dict[str, str] = {}
        self.did_not_happen: dict[str, str] = {}
        self.unserved: list[str] = []

    @asynccontextmanager
    async def windows(self) -> AsyncIterator[None]:
        """Records while the block runs; ends when every window of it is closed."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            yield

    @property
    def problems(self) -> list[str]:
        """What makes a verdict UNKNOWN at best."""
        return [
            *(f"{name} is not available here: {why}" for name, why in self.not_available.items()),
            *(f"{name} did not happen: {why}" for name, why in self.did_not_happen.items()),
            *self.unserved,
        ]

    def record(self, event: FaultEvent) -> None:
        """One event of a fault, within ``windows``."""
        name = f"{event.step.kind} {event.step.target}"
        details = self._details.setdefault(event.number, [])
        details += (f"{key} {value}" for key, value in event.evidence.items())
        match event.phase:
            case FaultPhase.BEGUN:
                self._progress.faults[event.number] = name
                self._happened[event.number] = False
                self._writer.note("nemesis", "fault", _note(event, "inject"))
            case FaultPhase.VERIFIED:
                self._happened[event.number] = True
            case FaultPhase.NOT_AVAILABLE:
                self.not_available[name] = str(event.evidence.get("why", ""))
                if event.number in self._happened:
                    self._end(event)
            case FaultPhase.DID_NOT_HAPPEN:
                self.did_not_happen[f"{event.number} {name}"] = str(event.evidence.get("why", ""))
            case FaultPhase.HEALED if event.number in self._happened:
                assert self._group is not None
                self._group.create_task(
                    self._end_when_served(event), name=f"chaos probe {event.number}"
                )
            case _:
                pass

    async def _end_when_served(self, event: FaultEvent) -> None:
        await self.probe()
        self._end(event)

    def _end(self, event: FaultEvent) -> None:
        self._progress.faults.pop(event.number, None)
        happened = self._happened.pop(event.number)
        detail = ", ".join(self._details.pop(event.number))
        note = _note(event, "heal", verified=happened, detail=detail)
        self._writer.note("nemesis", "fault", note)

    @asynccontextmanager
    async def step(self, kind: str, target: str) -> AsyncIterator[None]:
        """One step of a procedure; its window ends when a write is acknowledged again."""
        name = f"{target} {next(self._steps)}"
        self._progress.faults[name] = f"{kind} {target}"
        self._writer.note("operator", "fault", FaultNote(kind, name, "inject"))
        yield
        await self.probe()
        self._progress.faults.pop(name)
        self._writer.note("operator", "fault", FaultNote(kind, name, "heal"))

    async def probe(self) -> None:
        """Returns when a write is acknowledged, or when the time for that is over."""
        try:
            await eventually(
                self._served, SERVED_TIMEOUT_S, "no write was acknowledged", poll_s=PROBE_PAUSE_S
            )
        except TimeoutError as error:
            self.unserved.append(str(error))

    async def _served(self) -> bool:
        try:
            await next(self._clients).enqueue(
                PROBE_TOPIC, task_id=f"probe-{next(self._numbers)}", timeout_s=PROBE_TIMEOUT_S
            )
        except DdqError:
            return False
        return True


def _note(
    event: FaultEvent, phase: Literal["inject", "heal"], *, verified: bool = True, detail: str = ""
) -> FaultNote:
    return FaultNote(event.step.kind, event.step.target, phase, verified, detail, event.number)


__all__ = ["PROBE_TOPIC", "FaultRecorder"]
