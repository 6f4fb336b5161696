"""Each RPC, and which of its errors stay true after an attempt whose outcome is unknown.

An error is definite for the attempt that it answers. The request as a whole may have had other
attempts, one of which took effect without its answer coming through, or is still stuck somewhere
and takes effect later. So after an unknown attempt every error of a mutation becomes
OutcomeUnknown, but for those that follow from something an attempt of the same request cannot
have changed. What would go wrong otherwise, by RPC:

    Enqueue     TASK_ID_CONFLICT: it was created, and another request replaced it since.
                TOPIC_FULL: it is the task that filled the topic, which replaced or finished
                since; or the first attempt arrives when there is room again.
    Retrieve    any: leases may have been granted that no client knows of.
    Ack         LEASE_LOST: it was acknowledged, and the finished id enqueued again since.
    RunAgain    LEASE_LOST: it took effect, and the store has forgotten the request since.
    Nack        LEASE_LOST: it took effect, and the next worker holds the task by now.
    Release     LEASE_LOST: the same.
    Snooze      LEASE_LOST: the same. SNOOZE_LIMIT: the first attempt arrives when a server of 0.2
                has extended the lease, and dropped the count with that.
    Cancel      TASK_LEASED: the first attempt arrives when the lease has ended.
                TASK_NOT_FOUND: it was cancelled, and the topic deleted since.
    Reschedule  REVISION_MISMATCH: the first attempt made the revision. TASK_LEASED: it was made
                due at once, and a worker has it.
    CreateTopic TOPIC_EXISTS: it was created, and another request changed its settings since.
    UpdateTopic REVISION_MISMATCH: the first attempt made the revision.
    DeleteDeadTask  TASK_NOT_FOUND, REVISION_MISMATCH: the first attempt ended it.

Two kinds of errors do stay true. INVALID_ARGUMENT follows from the request alone: every attempt
gets it. And for Extend a lease that is lost, or a task that is gone: a token that does not hold
never holds again, so whatever an earlier attempt added is void.

A read changes nothing, so its errors are always what they say.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddq.errors import DdqError, InvalidArgument, LeaseLost, NotFound


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC as the repeating of requests sees it.

    Attributes:
        mutates: it may have an effect.
        stays_true: errors that hold for the request as a whole, whatever became of its other
            attempts.
    """

    name: str
    mutates: bool = True
    stays_true: tuple[type[DdqError], ...] = (InvalidArgument,)


ENQUEUE = Rpc("Enqueue")
RETRIEVE = Rpc("Retrieve")
ACK = Rpc("Ack")
RUN_AGAIN = Rpc("RunAgain")
NACK = Rpc("Nack")
EXTEND = Rpc("Extend", stays_true=(InvalidArgument, LeaseLost, NotFound))
RELEASE = Rpc("Release")
SNOOZE = Rpc("Snooze")
CANCEL = Rpc("Cancel")
RESCHEDULE = Rpc("Reschedule")
GET_TASK = Rpc("GetTask", mutates=False)
LIST_TASKS = Rpc("ListTasks", mutates=False)

CREATE_TOPIC = Rpc("CreateTopic")
GET_TOPIC = Rpc("GetTopic", mutates=False)
LIST_TOPICS = Rpc("ListTopics", mutates=False)
UPDATE_TOPIC = Rpc("UpdateTopic")
DELETE_TOPIC = Rpc("DeleteTopic")
PAUSE_TOPIC = Rpc("PauseTopic")
RESUME_TOPIC = Rpc("ResumeTopic")
PURGE_TOPIC = Rpc("PurgeTopic")
LIST_DEAD_TASKS = Rpc("ListDeadTasks", mutates=False)
REDRIVE_DEAD_TASKS = Rpc("RedriveDeadTasks")
DELETE_DEAD_TASK = Rpc("DeleteDeadTask")
GET_TOPIC_STATS = Rpc("GetTopicStats", mutates=False)
CHECK_HEALTH = Rpc("Check", mutates=False)
