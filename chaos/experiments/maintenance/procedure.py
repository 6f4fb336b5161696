"""A maintenance procedure as an experiment: its driver is what an operator does, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chaos.checker.availability import served
from chaos.experiments.deployment import Needs
from chaos.experiments.lifecycle import Driver, Timing
from chaos.experiments.plan import RunPlan
from chaos.experiments.recorded import Experiment, RecordedSession
from chaos.history.reader import Op, read_history
from chaos.history.run_folder import Run
from chaos.workloads import LONG_TIMEOUTS, WORKLOADS

TIMING = Timing(before_s=3.0, after_s=3.0)
GATES = {"operations": 100.0, "operations during faults": 10.0}
_HEALTH_TIMEOUT_S = 90.0
_FIRST_FAILED = 5


@dataclass(frozen=True, slots=True)
class ProcedurePlan(RunPlan):
    """A run whose driver is a program and not a schedule.

    Attributes:
        arguments: what runs it again, behind ``python -m chaos``.
    """

    arguments: str = ""

    @property
    def command(self) -> str:
        """What runs it again."""
        return f"python -m chaos {self.arguments}"


@dataclass(frozen=True, slots=True)
class Procedure:
    """What an operator does, and the traffic around it.

    Attributes:
        sharded: a Cluster, instead of Sentinel.
        other_topics: topics of the procedure's own, of one shard, which are not part of the
            history.
        previous: ddq starts as the previous release, and the procedure upgrades it.
        fails_none: no request may fail. Where a master is killed one may: a cancel whose answer
            died with it, and that comes too late when it is repeated, has an unknown outcome.
    """

    title: str
    driver: Driver[RecordedSession]
    workload: str = LONG_TIMEOUTS.name
    sharded: bool = False
    other_topics: tuple[str, ...] = ()
    previous: bool = False
    fails_none: bool = True

    @property
    def experiment(self) -> Experiment:
        """The experiment that is run."""
        return Experiment(
            title=self.title,
            driver=self.driver,
            workload=WORKLOADS[self.workload],
            gates=GATES,
            timing=TIMING,
            needs=Needs(sharded=self.sharded, previous=self.previous),
            other_topics=self.other_topics,
            health_timeout_s=_HEALTH_TIMEOUT_S,
        )


def failed(ops: Iterable[Op]) -> list[Op]:
    """Requests that were not answered, though their callers waited to the end."""
    return [op for op in ops if served(op) is False]


def failed_lines(folder: Path) -> list[str]:
    """A line for each of the first requests of a run that failed, and how many there were."""
    history = read_history(Run(folder).history)
    ops = failed(history.ops)
    lines = [
        f"{op.op} of {op.process}, sent at {op.begin_ns / 1e9:.1f} s, failed after "
        f"{(op.closed_ns - op.begin_ns) / 1e9:.1f} s: {op.error}"
        for op in ops[:_FIRST_FAILED]
    ]
    return [*lines, f"{len(ops)} of {len(history.ops):,} requests failed"] if ops else []


__all__ = ["Procedure", "ProcedurePlan", "failed", "failed_lines"]
