"""The workloads: what is asked of a system, one per file, and what of it is measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.systems import Driver, System

Figures = dict[str, float]
"""Measured values by name; the unit ends the name: per_s, ms, us, bytes."""


@dataclass(frozen=True)
class Sizes:
    """How much work a run does.

    Attributes:
        tasks: of an enqueue or a drain, bounded by the system's tasks_max.
        memory_tasks: pending when their memory is read.
        steady_s: how long a steady load lasts.
        steady_delay_ms: its shortest and longest delay.
        overload_s: how long an overload lasts.
    """

    tasks: int = 100_000
    memory_tasks: int = 20_000
    steady_s: float = 20.0
    steady_delay_ms: tuple[int, int] = (1_000, 5_000)
    overload_s: float = 20.0


@dataclass
class Setting:
    """What a workload is run with.

    Attributes:
        folder: for files of this measurement only.
        pace: tasks per second that an earlier workload of this run enqueued, by (system, batch).
    """

    system: System
    driver: Driver
    sizes: Sizes
    folder: Path
    pace: dict[tuple[str, int], float] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        return min(self.sizes.tasks, self.system.tasks_max)


@dataclass(frozen=True)
class Workload:
    """A workload.

    Attributes:
        name: as the report shows it.
        title: one line for readers.
        measure: runs it once on an instance of its own. Raises BenchError.
        suits: whether a system can be asked for it.
        figure: the figure that the ratios are about.
        more_is_better: of that figure.
        alone: whether it is for ddq and its variants only.
    """

    name: str
    title: str
    measure: Callable[[Setting], Awaitable[Figures]]
    figure: str
    more_is_better: bool = True
    suits: Callable[[System], bool] = lambda _: True
    alone: bool = False
