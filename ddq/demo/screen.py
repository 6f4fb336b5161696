"""What the demo shows while it runs: a live table in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ddq.client import TaskCounts
from ddq.demo.worker_pool import WorkerPool

LINE_INTERVAL_S = 2.0
_STATES = ("scheduled", "ready", "leased", "succeeded", "cancelled", "dead")


class DemoScreen:
    """Shows figures and events; a context manager."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._live = (
            Live(console=self._console, auto_refresh=False) if sys.stdout.isatty() else None
        )
        self._events: deque[str] = deque(maxlen=8)
        self._start_s = time.monotonic()
        self._line_s = 0.0

    def __enter__(self) -> DemoScreen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def elapsed_s(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._start_s

    def tell(self, text: str) -> None:
        """Something happened."""
        line = f"{self.elapsed_s:5.1f} s  {text}"
        if self._live is None:
            self._line(line)
        else:
            self._events.append(line)

    def show(self, counts: TaskCounts, pool: WorkerPool) -> None:
        """The figures of this moment."""
        if self._live is not None:
            self._live.update(self._picture(counts, pool), refresh=True)
        elif self.elapsed_s >= self._line_s:
            self._line_s = self.elapsed_s + LINE_INTERVAL_S
            figures = ", ".join(f"{getattr(counts, state)} {state}" for state in _STATES)
            self._line(f"{self.elapsed_s:5.1f} s  {counts.enqueued} enqueued: {figures}")

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def _picture(self, counts: TaskCounts, pool: WorkerPool) -> Group:
        tasks = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("enqueued", *_STATES, "runs", "retries"):
            tasks.add_column(column, justify="right")
        tasks.add_row(
            *(str(getattr(counts, state)) for state in ("enqueued", *_STATES)),
            str(pool.runs.total()),
            str(pool.retries),
        )
        workers = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("worker", "state", "holds", "started", "acked", "nacked", "dead"):
            workers.add_column(column, justify="left" if column in {"worker", "state"} else "right")
        for member in pool.members:
            workers.add_row(
                member.name,
                Text(member.state, style="red" if member.killed else ""),
                str(len(member.holding)),
                str(member.started),
                *(str(member.ended[verdict]) for verdict in ("acked", "nacked", "dead")),
            )
        title = Text(f"ddq demo, {self.elapsed_s:.0f} s", style="bold")
        return Group(
            title, Text(), tasks, Text(), workers, Text(), *(Text(line) for line in self._events)
        )
