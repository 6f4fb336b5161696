"""Runs workloads on systems, one measurement at a time; writes each result as a line of JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from tests.bench.processes import BenchError
from tests.bench.systems import Driver, MissingError, System
from tests.bench.workloads import Figures, Setting, Sizes, Workload

INEXACT = ("missing", "duplicated", "early", "foreign", "left", "failed")
"""Figures that are 0 where each task was delivered exactly once and not early."""


@dataclass(frozen=True)
class Result:
    """One measurement.

    Attributes:
        repetition: from 1.
        error: why there are no figures.
        load: the machine's load average of one minute before it.
    """

    repetition: int
    system: str
    workload: str
    figures: Figures = field(default_factory=dict)
    error: str | None = None
    load: float = 0.0

    @property
    def flaws(self) -> dict[str, float]:
        """What was not exact; empty if every task was delivered once and none early."""
        return {name: self.figures[name] for name in INEXACT if self.figures.get(name)}


@dataclass(frozen=True)
class Missing:
    """A system that was not measured."""

    system: str
    what: str
    remedy: str


@dataclass
class Run:
    """Everything a run has found."""

    sizes: Sizes
    results: list[Result] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    seconds: float = 0.0
    machine: str = f"{os.cpu_count()} cores, Python {platform.python_version()}, {sys.platform}"


async def run(
    cells: Sequence[tuple[Workload, System]],
    sizes: Sizes,
    repetitions: int,
    *,
    output: TextIO,
    log: TextIO,
) -> Run:
    """Measures each cell once per repetition.

    The systems of a workload follow each other directly, so that their ratio is affected as little
    as possible by what else the machine does.

    Args:
        output: each result, as a line of JSON, at once.
        log: a line for people per measurement.
    """
    began_s = time.monotonic()
    done = Run(sizes)
    drivers = _prepare([system for _, system in cells], done, log)
    pace: dict[tuple[str, int], float] = {}
    for repetition in range(1, repetitions + 1):
        for workload, system in cells:
            if system.name not in drivers or not workload.suits(system):
                continue
            load = os.getloadavg()[0]
            with TemporaryDirectory(prefix="ddq-bench-") as folder:
                setting = Setting(system, drivers[system.name], sizes, Path(folder), pace)
                try:
                    figures, error = await workload.measure(setting), None
                except BenchError as failure:
                    figures, error = {}, str(failure)
            result = Result(repetition, system.name, workload.name, figures, error, load)
            done.results.append(result)
            output.write(json.dumps(asdict(result)) + "\n")
            output.flush()
            log.write(_line(result, workload) + "\n")
            log.flush()
    done.seconds = time.monotonic() - began_s
    return done


def _prepare(systems: Iterable[System], done: Run, log: TextIO) -> dict[str, Driver]:
    """The drivers by the names of the systems, without those that something is missing for."""
    drivers: dict[str, Driver] = {}
    for system in {each.name: each for each in systems}.values():
        try:
            drivers[system.name] = system.prepare()
        except MissingError as error:
            done.missing.append(Missing(system.name, error.what, error.remedy))
            log.write(f"{system.name}: not measured: {error}\n")
    return drivers


def _line(result: Result, workload: Workload) -> str:
    head = f"#{result.repetition} {result.workload:<14} {result.system:<16}"
    if result.error is not None:
        return f"{head} {result.error}"
    flaws = "".join(f", {name} {value:g}" for name, value in result.flaws.items())
    return f"{head} {workload.figure} {result.figures[workload.figure]:,.1f}{flaws}"
