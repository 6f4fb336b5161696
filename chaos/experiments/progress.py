"""What a run shows while it lasts: one line that moves, or plain lines without a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

REFRESH_S = 0.5
PLAIN_S = 5.0


@dataclass(slots=True)
class Progress:
    """Where a run is; the runner fills it in.

    Attributes:
        done: operations so far; ``unknown``: of them with unknown outcome.
    """

    title: str
    phase: str = "start"
    faults: dict[str, str] = field(default_factory=dict)
    master: str = "?"
    leader: str = "?"
    done: Callable[[], int] = lambda: 0
    unknown: Callable[[], int] = lambda: 0
    _began_s: float = field(default_factory=time.monotonic)
    _last: tuple[float, int] = (0.0, 0)
    _rate: float = 0.0

    def words(self) -> dict[str, str]:
        """What there is to say now, by its name."""
        now_s, done = time.monotonic(), self.done()
        last_s, last_done = self._last
        if now_s - last_s >= 1.0:
            self._rate = (done - last_done) / (now_s - last_s) if last_s else 0.0
            self._last = (now_s, done)
        return {
            "time": f"{now_s - self._began_s:.0f} s",
            "phase": self.phase,
            "fault": ", ".join(self.faults.values()) or "-",
            "master": self.master,
            "leader": self.leader,
            "operations": f"{done:,} ({self._rate:.0f}/s)",
            "unknown": f"{self.unknown():,}",
        }

    def table(self) -> Table:
        """The same, for a terminal."""
        words = self.words()
        table = Table(*words, title=self.title, title_justify="left", box=None, pad_edge=False)
        table.add_row(*words.values())
        return table

    def line(self) -> str:
        """The same, for a log."""
        return "  ".join(f"{name} {word}" for name, word in self.words().items())


@contextlib.asynccontextmanager
async def shown(progress: Progress, console: Console) -> AsyncIterator[None]:
    """Shows it until the block ends."""
    if console.is_terminal:
        with Live(get_renderable=progress.table, console=console, refresh_per_second=1 / REFRESH_S):
            yield
        return
    console.print(progress.title, soft_wrap=True, highlight=False)

    async def say() -> None:
        while True:
            await asyncio.sleep(PLAIN_S)
            console.print(progress.line(), soft_wrap=True, highlight=False, markup=False)

    task = asyncio.create_task(say(), name="chaos progress")
    try:
        yield
    finally:
        task.cancel()
