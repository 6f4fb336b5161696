"""What a worker was asked for, checked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """See Worker, which documents each of them; units last.

    Attributes:
        margin_s: how long before its expiry a lease is taken for lost.
        idle_s: stop when nothing was due for so long; None: never.
    """

    topics: tuple[str, ...]
    concurrency: int
    lease: timedelta
    max_run: timedelta | None
    grace_s: float
    poll_s: float
    max_jobs: int | None
    idle_s: float | None
    margin_s: float

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency is {self.concurrency}; it has to be at least 1")
        if self.max_jobs is not None and self.max_jobs < 1:
            raise ValueError(f"max_jobs is {self.max_jobs}; it has to be at least 1")
        if self.max_run is not None and self.max_run <= timedelta(0):
            raise ValueError(f"max_run is {self.max_run}; it has to be more than nothing")
