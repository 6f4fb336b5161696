"""The promises of ddq. Tests, checkers, reports and documents refer to them by id."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Scope(Enum):
    """The scope of a promise across a failover in FAST, which does not wait for replicas."""

    ALWAYS = "kept across a failover too"
    LINEAGE = "only within the surviving lineage"


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise.

    Attributes:
        id: G1 to G14.
        name: two or three words.
        sentence: the promise itself.
        in_fast: its scope across a failover in FAST; in QUORUM and ALL all promises hold within
            their fault models.
        documented: page and heading.
    """

    id: str
    name: str
    sentence: str
    in_fast: Scope
    documented: str = "README.md#promises"


PROMISES: tuple[Promise, ...] = (
    Promise(
        "G1",
        "no phantom",
        "Only enqueued tasks are delivered, with the bytes that were enqueued.",
        Scope.ALWAYS,
    ),
    Promise(
        "G2",
        "no loss",
        "An acknowledged enqueue reaches SUCCEEDED, CANCELLED, DEAD or PURGED, or is still held; "
        "never nothing.",
        Scope.LINEAGE,
    ),
    Promise(
        "G3",
        "promote once",
        "Each (id, incarnation, promotion) happens exactly once in the surviving lineage, never "
        "by a deposed scheduler.",
        Scope.LINEAGE,
    ),
    Promise(
        "G4",
        "cancel is final",
        "After a cancel was acknowledged that incarnation is never delivered; 'too late' and 'not "
        "found' are true when said.",
        Scope.LINEAGE,
    ),
    Promise(
        "G5",
        "never early",
        "No delivery before the due time, beyond the stated clock error.",
        Scope.LINEAGE,
    ),
    Promise(
        "G6",
        "bounded lateness",
        "A due task is ready within 250 ms when healthy, and within leadership time-out + "
        "settling time + 2 s after the store accepts writes at its durability again.",
        Scope.LINEAGE,
    ),
    Promise(
        "G7",
        "one holder",
        "Two unexpired, unsuperseded leases on one task never exist at once.",
        Scope.LINEAGE,
    ),
    Promise(
        "G8",
        "fenced",
        "Ack, nack and extend with a superseded token change nothing; a stale scheduler epoch "
        "moves nothing.",
        Scope.LINEAGE,
    ),
    Promise(
        "G9",
        "ack is final",
        "After an acknowledged ack that incarnation is never delivered again.",
        Scope.LINEAGE,
    ),
    Promise(
        "G10",
        "retry bound",
        "Never more than max_attempts leases in a run, and never sooner than the backoff.",
        Scope.LINEAGE,
    ),
    Promise(
        "G11",
        "conservation",
        "enqueued = scheduled + ready + leased + succeeded + cancelled + dead + purged, at every "
        "moment.",
        Scope.ALWAYS,
    ),
    Promise(
        "G12",
        "one leader",
        "Per shard, leadership epochs only grow in the surviving lineage and one epoch has one "
        "owner.",
        Scope.LINEAGE,
    ),
    Promise(
        "G13",
        "idempotent",
        "Repeating a request with the same id or token never has a second effect.",
        Scope.LINEAGE,
    ),
    Promise(
        "G14",
        "prompt delivery",
        "A ready task is delivered within 250 ms of a worker waiting for it when healthy, and "
        "within leadership time-out + settling time + 2 s after the store accepts writes at its "
        "durability again.",
        Scope.LINEAGE,
    ),
)

BY_ID = {promise.id: promise for promise in PROMISES}
