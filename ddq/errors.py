"""What can go wrong, as one tree.

    DdqError
    ├── InvalidArgument          INVALID_ARGUMENT
    │   └── PayloadTooLarge
    ├── NotFound                 NOT_FOUND
    │   ├── TaskNotFound
    │   └── TopicNotFound
    ├── AlreadyExists            ALREADY_EXISTS
    │   ├── TaskIdConflict
    │   └── TopicExists
    ├── FailedPrecondition       FAILED_PRECONDITION
    │   ├── LeaseLost
    │   ├── SnoozeLimit
    │   ├── TaskReady
    │   ├── TaskLeased
    │   ├── TaskFinished
    │   ├── TaskNotDead
    │   └── RequestExpired
    ├── ResourceExhausted        RESOURCE_EXHAUSTED
    │   ├── TopicFull
    │   ├── StoreFull
    │   └── Overloaded
    ├── Aborted                  ABORTED
    │   ├── RevisionMismatch
    │   └── TopicChanged
    ├── Unavailable              UNAVAILABLE
    │   ├── StoreUnreachable
    │   ├── NotEnoughReplicas
    │   ├── WriteOutcomeUnknown
    │   ├── RollbackDetected
    │   └── ClockUnsafe
    ├── StoreMalformed           DATA_LOSS
    ├── Unauthenticated          UNAUTHENTICATED
    ├── PermissionDenied         PERMISSION_DENIED
    ├── Unimplemented            UNIMPLEMENTED
    ├── OutcomeUnknown           raised by the client only
    └── TransportError           raised by the client only: gRPC's own codes
        └── NotConnected

An error is *definite* when the request it answers certainly had no effect. That holds for the
request as a whole only if no earlier attempt of it ended indefinitely: LEASE_LOST after an
unknown nack says nothing about that nack. The table in docs/API.md is generated from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import grpc

DOMAIN = "ddq.v1"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is out of bounds.

    Attributes:
        field: path in the request message, for example ``items[3].task.id``.
        description: what is wrong and what would be right.
    """

    field: str
    description: str


class DdqError(Exception):
    """Base of all errors of ddq.

    Attributes:
        code: the gRPC status code.
        reason: stable name for programs, the ``reason`` of ``google.rpc.ErrorInfo``.
        definite: whether this attempt certainly had no effect.
        repeatable: whether the same request may succeed if it is simply repeated.
        retry_delay_s: seconds to wait before a repeat, sent as ``google.rpc.RetryInfo``.
        metadata: further facts, strings both ways.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    reason: ClassVar[str] = "UNKNOWN"
    definite: ClassVar[bool] = False
    repeatable: ClassVar[bool] = False
    retry_delay_s: ClassVar[float | None] = None

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = violations

    def copy(self) -> Self:
        """The same error without a traceback, for an error that several callers raise.

        One object that they all raised would collect the frames of every call that it ended.
        """
        return type(self)(self.message, metadata=self.metadata, violations=self.violations)

    def __str__(self) -> str:
        return self.message


class InvalidArgument(DdqError):
    """A field of the request is out of bounds; each one is named."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"
    definite = True


class PayloadTooLarge(InvalidArgument):
    """A payload is larger than a task may carry."""

    reason = "PAYLOAD_TOO_LARGE"


class NotFound(DdqError):
    """What the request names is not there."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"
    definite = True


class TaskNotFound(NotFound):
    """No task has this id, nor had one within the tombstone retention."""

    reason = "TASK_NOT_FOUND"


class TopicNotFound(NotFound):
    """The topic does not exist, or is being deleted."""

    reason = "TOPIC_NOT_FOUND"


class AlreadyExists(DdqError):
    """The name is taken."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"
    definite = True


class TaskIdConflict(AlreadyExists):
    """The id is taken by a task with other content, or one the replacement does not cover."""

    reason = "TASK_ID_CONFLICT"


class TopicExists(AlreadyExists):
    """The topic exists with other settings."""

    reason = "TOPIC_EXISTS"


class FailedPrecondition(DdqError):
    """The task is not in a state that allows this; a repeat will not change that."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"
    definite = True


class LeaseLost(FailedPrecondition):
    """The token does not hold: superseded, revoked, or the task has ended."""

    reason = "LEASE_LOST"


class SnoozeLimit(FailedPrecondition):
    """The run was snoozed as often as the limit allows; the lease still holds."""

    reason = "SNOOZE_LIMIT"


class TaskReady(FailedPrecondition):
    """The task is ready, and the request applies to scheduled or finished ones only."""

    reason = "TASK_READY"


class TaskLeased(FailedPrecondition):
    """A worker holds the task."""

    reason = "TASK_LEASED"


class TaskFinished(FailedPrecondition):
    """The task has ended: it succeeded, is dead, or was cancelled or purged."""

    reason = "TASK_FINISHED"


class TaskNotDead(FailedPrecondition):
    """The request applies to dead tasks only."""

    reason = "TASK_NOT_DEAD"


class RequestExpired(FailedPrecondition):
    """The request reached the store after its not_after and did nothing."""

    reason = "REQUEST_EXPIRED"


class ResourceExhausted(DdqError):
    """A bound is reached; make room or wait."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"
    definite = True
    repeatable = True
    retry_delay_s = 1.0


class TopicFull(ResourceExhausted):
    """The topic holds max_tasks tasks, or with this one would hold more than max_bytes."""

    reason = "TOPIC_FULL"


class StoreFull(ResourceExhausted):
    """The store is at its maxmemory; what it holds can still be delivered and ended."""

    reason = "STORE_FULL"


class Overloaded(ResourceExhausted):
    """More calls wait, or are under way, than a server or a client has room for."""

    reason = "OVERLOADED"
    retry_delay_s = 0.1


class Aborted(DdqError):
    """Another client changed it first; read it again and decide."""

    code = grpc.StatusCode.ABORTED
    reason = "ABORTED"
    definite = True


class RevisionMismatch(Aborted):
    """The task or topic is not at the expected revision."""

    reason = "REVISION_MISMATCH"


class TopicChanged(Aborted):
    """The topic's settings kept changing under the request; repeat it."""

    reason = "TOPIC_CHANGED"
    repeatable = True
    retry_delay_s = 0.1


class Unavailable(DdqError):
    """The store cannot serve this now."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"
    repeatable = True
    retry_delay_s = 0.2


class StoreUnreachable(Unavailable):
    """No connection to the store; the request was not sent."""

    reason = "STORE_UNREACHABLE"
    definite = True


class NotEnoughReplicas(Unavailable):
    """The store refused the write because too few replicas are attached."""

    reason = "NOT_ENOUGH_REPLICAS"
    definite = True


class WriteOutcomeUnknown(Unavailable):
    """The request was sent, and no answer came: it may or may not have taken effect."""

    reason = "WRITE_OUTCOME_UNKNOWN"


class RollbackDetected(Unavailable):
    """The store has lost writes it had acknowledged; an operator has to look."""

    reason = "ROLLBACK_DETECTED"
    definite = True


class ClockUnsafe(Unavailable):
    """The store's clock and the server's differ by more than max_clock_skew."""

    reason = "CLOCK_UNSAFE"
    definite = True
    retry_delay_s = 1.0


class StoreMalformed(DdqError):
    """A key or record in the store cannot be read; the message names it.

    Not definite: a script that fails on such a record midway is not rolled back.
    """

    code = grpc.StatusCode.DATA_LOSS
    reason = "STORE_MALFORMED"


class Unauthenticated(DdqError):
    """The caller is not known."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"
    definite = True


class PermissionDenied(DdqError):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"
    definite = True


class Unimplemented(DdqError):
    """This server does not know the request; it is of another version."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"
    definite = True


class OutcomeUnknown(DdqError):
    """The client repeated the request until its deadline and still does not know."""

    reason = "OUTCOME_UNKNOWN"


class TransportError(DdqError):
    """The connection to the server failed, or the call was cut short.

    The gRPC code is in ``metadata["code"]``. Its codes DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE
    and INTERNAL say nothing about the effect.
    """

    reason = "TRANSPORT_ERROR"
    repeatable = True


class NotConnected(TransportError):
    """There is no connection to the server; the request was not sent."""

    reason = "NOT_CONNECTED"
    definite = True


def all_errors() -> list[type[DdqError]]:
    """Every class of the tree, parents before children, in the order of this file."""

    def walk(cls: type[DdqError]) -> list[type[DdqError]]:
        return [cls, *(found for child in cls.__subclasses__() for found in walk(child))]

    return walk(DdqError)


BY_REASON: dict[str, type[DdqError]] = {cls.reason: cls for cls in all_errors()}

__all__ = [
    "BY_REASON",
    "DOMAIN",
    "Aborted",
    "AlreadyExists",
    "ClockUnsafe",
    "DdqError",
    "FailedPrecondition",
    "FieldViolation",
    "InvalidArgument",
    "LeaseLost",
    "NotConnected",
    "NotEnoughReplicas",
    "NotFound",
    "OutcomeUnknown",
    "Overloaded",
    "PayloadTooLarge",
    "PermissionDenied",
    "RequestExpired",
    "ResourceExhausted",
    "RevisionMismatch",
    "RollbackDetected",
    "SnoozeLimit",
    "StoreFull",
    "StoreMalformed",
    "StoreUnreachable",
    "TaskFinished",
    "TaskIdConflict",
    "TaskLeased",
    "TaskNotDead",
    "TaskNotFound",
    "TaskReady",
    "TopicChanged",
    "TopicExists",
    "TopicFull",
    "TopicNotFound",
    "TransportError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "WriteOutcomeUnknown",
    "all_errors",
]
