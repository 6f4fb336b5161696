"""The end of the demo: does what the server counts agree with the plan and the workers?"""

from __future__ import annotations

import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ddq.client import TaskCounts
from ddq.demo.plan import ALWAYS, PlannedTask
from ddq.demo.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the bill."""

    claim: str
    detail: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the server said at the end.

    Attributes:
        cancelled: ids whose cancel was acknowledged.
        succeeded, dead: ids in that state.
    """

    counts: TaskCounts
    cancelled: Set[str]
    succeeded: Set[str]
    dead: Set[str]


def check(plan: Sequence[PlannedTask], outcome: Outcome, pool: WorkerPool) -> list[Check]:
    """The claims of the demo, each held against two independent sources."""
    counts = outcome.counts
    planned = {task.id for task in plan}
    doomed = {task.id for task in plan if task.fails == ALWAYS} - outcome.cancelled
    fine = planned - doomed - outcome.cancelled
    fails = {task.id: task.fails for task in plan}
    again = {task_id for task_id in pool.orphans if pool.runs[task_id] > 1}
    # The worker was killed between the server's answer and its own report.
    just_ended = pool.orphans & (outcome.succeeded | outcome.dead) - again
    # Fewer runs than failures may be: an attempt that was leased to the killed worker and that it
    # had not begun counts as one.
    unexplained = {
        task_id for task_id in fine - pool.orphans if pool.runs[task_id] > 1 + fails[task_id]
    }
    early = sum(late_ms < 0 for late_ms in pool.late_ms)
    late = sorted(pool.late_ms)
    median_ms = late[len(late) // 2] if late else 0.0
    return [
        Check(
            "every task has ended",
            f"{counts.enqueued} enqueued = {counts.succeeded} succeeded + "
            f"{counts.cancelled} cancelled + {counts.dead} dead",
            counts.enqueued == len(plan) == counts.succeeded + counts.cancelled + counts.dead,
        ),
        Check(
            "what should succeed has succeeded",
            f"{len(outcome.succeeded)} of {len(fine)}, also those that failed at first",
            outcome.succeeded == fine and counts.succeeded == len(fine),
        ),
        Check(
            "what always fails is dead",
            f"{len(outcome.dead)} of {len(doomed)}, with its last error kept",
            outcome.dead == doomed and counts.dead == len(doomed),
        ),
        Check(
            "what was cancelled never ran",
            f"{len(outcome.cancelled)} cancelled, "
            f"{sum(task_id in pool.runs for task_id in outcome.cancelled)} of them ran",
            counts.cancelled == len(outcome.cancelled)
            and not any(task_id in pool.runs for task_id in outcome.cancelled),
        ),
        Check(
            "nothing came early",
            f"{len(late)} deliveries, {early} early; half of them within {median_ms:.0f} ms of "
            "their due time",
            bool(late) and not early,
        ),
        Check(
            "the killed worker's tasks were run again",
            f"it held {len(pool.orphans)}: {len(again)} were started once more elsewhere, "
            f"{len(just_ended)} had just ended; delivery is at-least-once",
            bool(pool.orphans) and pool.orphans == again | just_ended,
        ),
        Check(
            "no other task ran more often than it failed",
            f"{pool.runs.total()} runs, {pool.retries} retries, {len(unexplained)} unexplained",
            not unexplained,
        ),
    ]


def show(checks: Sequence[Check]) -> None:
    """Prints the bill."""
    bill = Table(box=None, show_header=False, pad_edge=False)
    bill.add_column(no_wrap=True)
    bill.add_column()
    bill.add_column(overflow="fold")
    for line in checks:
        mark = Text("ok", style="green") if line.holds else Text("NO", style="bold red")
        bill.add_row(mark, Text(line.claim, style="bold"), Text(line.detail))
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print()
    console.print(bill)
    console.print()
    total = "It adds up." if all(line.holds for line in checks) else "It does NOT add up."
    console.print(Text(total))
