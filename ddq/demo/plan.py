"""Which tasks the demo has: decided beforehand, so that the end can be checked against it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import timedelta

from ddq.client import NewTask, RetryPolicy

TOPIC = "demo"
MAX_ATTEMPTS = 4
POLICY = RetryPolicy(
    max_attempts=MAX_ATTEMPTS,
    initial_backoff=timedelta(milliseconds=400),
    max_backoff=timedelta(seconds=2),
)
LEASE = timedelta(seconds=3)
ALWAYS = 1_000


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One task of the demo.

    Attributes:
        delay_s: from its enqueue until it is due.
        work_s: how long its handler takes.
        fails: attempts that fail before one succeeds; ALWAYS: all of them.
        cancelled: it is cancelled before it is due.
    """

    id: str
    delay_s: float
    work_s: float
    fails: int
    cancelled: bool

    def new_task(self) -> NewTask:
        """As its producer describes it."""
        payload = json.dumps({"work_s": self.work_s, "fails": self.fails}).encode()
        return NewTask(
            payload, id=self.id, delay=timedelta(seconds=self.delay_s), retry_policy=POLICY
        )


def make_plan(count: int, seed: int) -> list[PlannedTask]:
    """``count`` tasks: most go well, every 10th is cancelled, some fail once or twice, a few
    always."""
    chance = random.Random(seed)  # noqa: S311 - a plan, not a secret
    plan = []
    for number in range(count):
        cancelled = number % 10 == 3
        kind = chance.random()
        fails = ALWAYS if kind < 0.03 else chance.randint(1, 2) if kind < 0.15 else 0
        # A cancelled one is due late enough that the cancel comes first.
        delay_s = chance.uniform(8.0, 12.0) if cancelled else chance.uniform(0.2, 10.0)
        plan.append(
            PlannedTask(
                id=f"order-{number:04d}",
                delay_s=round(delay_s, 3),
                work_s=round(chance.uniform(0.02, 0.25), 3),
                fails=fails,
                cancelled=cancelled,
            )
        )
    return plan
