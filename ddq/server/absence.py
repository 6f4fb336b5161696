"""Shards and records that do not answer: skipped, and probed in the background until they do.

A Retrieve asks several shards, and each may live on another node. Without this, one shard that
hangs would cost every call the time that is allowed for one answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ddq.errors import DdqError, Overloaded, StoreMalformed, Unavailable

log = logging.getLogger(__name__)

PROBE_INTERVAL_S = 0.25
"""From one probe to the next."""

_TROUBLE = (Unavailable, Overloaded, StoreMalformed)


def is_trouble(error: BaseException) -> bool:
    """Whether an error is about one shard or its node, and says nothing of the others."""
    return isinstance(error, _TROUBLE)


@dataclass(frozen=True, slots=True)
class Watch:
    """How a shard or record that does not answer is probed.

    Attributes:
        probe: asks it once, without an effect; returns how many tasks are ready there. It raises
            DdqError when it gets no answer, and ends by itself within a second or so.
        wanted: whether a call waits for it.
        on_return: called with the number of ready tasks when it has answered.
    """

    probe: Callable[[], Awaitable[int]]
    wanted: Callable[[], bool]
    on_return: Callable[[int], None]


@dataclass(slots=True)
class _Absence:
    error: DdqError
    watch: Watch
    task: asyncio.Task[None] | None = None
    asked: bool = True


class Absences:
    """Everything that did not answer this process, by its name."""

    def __init__(self) -> None:
        self._absences: dict[str, _Absence] = {}

    def error(self, name: str) -> DdqError | None:
        """Why it is skipped; None if it is not."""
        absence = self._absences.get(name)
        if absence is None:
            return None
        absence.asked = True
        return absence.error.copy()

    def note(self, name: str, error: DdqError, watch: Watch) -> None:
        """It did not answer. Calls skip it until it does, or until no call asks for it."""
        absence = self._absences.get(name)
        if absence is not None:
            absence.error = error.copy()
            return
        log.warning(
            "%(shard)s is skipped until it answers: %(error)s", {"shard": name, "error": error}
        )
        absence = self._absences[name] = _Absence(error.copy(), watch)
        absence.task = asyncio.create_task(self._probe(name, absence), name=f"ddq {name}")

    async def _probe(self, name: str, absence: _Absence) -> None:
        ready = 0
        try:
            while True:
                await asyncio.sleep(PROBE_INTERVAL_S)
                if not (absence.asked or absence.watch.wanted()):
                    # The next call that needs it asks it itself.
                    return
                absence.asked = False
                try:
                    ready = await absence.watch.probe()
                except DdqError as error:
                    if is_trouble(error):
                        absence.error = error.copy()
                        continue
                log.info("%(shard)s answers again", {"shard": name})
                break
        finally:
            del self._absences[name]
        absence.watch.on_return(ready)

    async def close(self) -> None:
        """Ends all probes."""
        tasks = [absence.task for absence in self._absences.values() if absence.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
