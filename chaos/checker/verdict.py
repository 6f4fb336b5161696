"""What the judge says: verdicts, anomalies, and what each checker found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Verdict(IntEnum):
    """Ordered: the verdict of a whole is the greatest of its parts."""

    VALID = 0
    UNKNOWN = 1
    INVALID = 2

    @property
    def exit_code(self) -> int:
        """The exit status of a program that reports it; 3 means that the harness failed."""
        return {Verdict.VALID: 0, Verdict.UNKNOWN: 2, Verdict.INVALID: 1}[self]


HARNESS_FAILED = 3
"""Exit code when there is no verdict because the harness failed."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One promise broken once.

    Attributes:
        promise: G1 to G14.
        summary: what happened, in one line, with times and the indexes of events.
        topic, task: of the task; "" where it is about a shard or a topic.
        events: indexes in the history of the events that witness it, in order.
        entries: positions in the journal of the entries that do.
        lost_lineage: a witness was acknowledged in a lineage that the surviving store does not
            hold.
    """

    promise: str
    summary: str
    topic: str = ""
    task: str = ""
    events: tuple[int, ...] = ()
    entries: tuple[int, ...] = ()
    lost_lineage: bool = False


@dataclass(slots=True)
class Found:
    """The findings of one checker.

    Attributes:
        anomalies: each of them makes it INVALID.
        unknown: why it could not be judged in whole; each makes it UNKNOWN at best.
        figures: what was measured and what bounds were used, to be printed.
        looked_at: how many things were judged: a checker that saw nothing proves nothing.
    """

    anomalies: list[Anomaly] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    looked_at: int = 0

    @property
    def verdict(self) -> Verdict:
        """INVALID, UNKNOWN or VALID."""
        if self.anomalies:
            return Verdict.INVALID
        return Verdict.UNKNOWN if self.unknown else Verdict.VALID


__all__ = ["HARNESS_FAILED", "Anomaly", "Found", "Verdict"]
