"""The errors for the statuses with which a script refuses a task."""

from __future__ import annotations

from ddq.errors import (
    DdqError,
    LeaseLost,
    RevisionMismatch,
    SnoozeLimit,
    StoreMalformed,
    TaskFinished,
    TaskIdConflict,
    TaskLeased,
    TaskNotDead,
    TaskNotFound,
    TaskReady,
    TopicFull,
)
from ddq.task import Topic

_REFUSALS: dict[str, tuple[type[DdqError], str]] = {
    "CONFLICT": (TaskIdConflict, "{name} exists with other content"),
    "SCHEDULED": (TaskIdConflict, "{name} is scheduled, and only a finished one is replaced"),
    "READY": (TaskReady, "{name} is ready; it is not replaced in this state"),
    "LEASED": (TaskLeased, "{name} is leased by a worker"),
    "FINISHED": (TaskFinished, "{name} has ended"),
    "REVISION": (RevisionMismatch, "{name} is not at the expected revision but at {revision}"),
    "FULL": (TopicFull, "no room for {name}: the topic holds max_tasks already"),
    "FULL_BYTES": (
        TopicFull,
        "no room for {name}: with it the topic would hold more than max_bytes",
    ),
    "NOT_FOUND": (TaskNotFound, "{name} is not known"),
    "NOT_DEAD": (TaskNotDead, "{name} is not dead"),
    "SNOOZED_OUT": (
        SnoozeLimit,
        "{name} was snoozed too often in this run; nack it, which counts as an attempt",
    ),
    "LEASE_LOST": (LeaseLost, "the lease token no longer holds {name}"),
    "MALFORMED": (StoreMalformed, "the record of {name} in the store cannot be read"),
}


def refused(topic: Topic, task_id: str, status: str, revision: int) -> DdqError:
    """The error that a script's status for one task stands for."""
    name = f"task {task_id!r} in topic {topic.name!r}"
    metadata = {"topic": topic.name, "id": task_id}
    if revision:
        metadata["revision"] = str(revision)
    kind, message = _REFUSALS[status]
    return kind(message.format(name=name, revision=revision), metadata=metadata)
