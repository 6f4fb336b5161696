"""Requests of the queue service as values of the store; every field that is out of bounds is named.

A reader takes a Problems and a message, notes what is wrong, and returns a value that is used only
if nothing was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ddq.config import DEFAULTS, LIMITS
from ddq.server import validation as check
from ddq.server.validation import Problems
from ddq.store.job_values import Extension, Postponement, Rejection, Removal, Settlement
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2

T = TypeVar("T")
Read = Callable[[Problems, Any], T]


def one(request: Any, read: Read[T]) -> T:
    """The item of a request for one task.

    Raises:
        InvalidArgument: with every field that is out of bounds.
    """
    problems = Problems()
    check.topic_name(problems, request.topic)
    check.request_id(problems, getattr(request, "request_id", ""), required=False)
    item = read(problems, request)
    problems.raise_if_any()
    return item


def many(request: Any, read: Read[T]) -> list[T]:
    """The items of a batch; see one."""
    problems = Problems()
    check.topic_name(problems, request.topic)
    check.request_id(problems, getattr(request, "request_id", ""), required=False)
    items = check.batch(problems, request.items, "items", read)
    problems.raise_if_any()
    return items


def view_is_full(problems: Problems, view: int) -> bool:
    """Whether a view has the payload."""
    if view not in task_pb2.TaskView.values():
        problems.add("view", f"is {view}, which this version does not know; known are 1, 2")
    return view == task_pb2.TASK_VIEW_FULL


def page_size(problems: Problems, request: Any) -> int:
    """The number of tasks on one page of a listing."""
    return check.count(
        problems,
        request.page_size,
        "page_size",
        default=DEFAULTS.page_count,
        most=LIMITS.page_max_count,
    )


def topics(problems: Problems, names: Sequence[str], field: str = "topics") -> list[str]:
    """The topics of a Retrieve."""
    if not 1 <= len(names) <= LIMITS.retrieve_topics_max_count:
        problems.add(field, f"has {len(names)} names; give 1 to {LIMITS.retrieve_topics_max_count}")
    else:
        for position, name in enumerate(names):
            check.topic_name(problems, name, f"{field}[{position}]")
        check.unique_ids(problems, names, field)
    return list(names)


def lease_ms(
    problems: Problems,
    request: pb.RetrieveRequest | pb.ExtendRequest | pb.BatchExtendItem | pb.Subscription,
) -> int | None:
    """The lease that is asked for; None for the topic's default."""
    if not request.HasField("lease_duration"):
        return None
    within = "subscribe." if isinstance(request, pb.Subscription) else ""
    return check.duration_ms(
        problems,
        request.lease_duration,
        f"{within}lease_duration",
        least_ms=LIMITS.lease_min_ms,
        most_ms=LIMITS.lease_max_ms,
    )


def settlement(problems: Problems, item: Any) -> Settlement:
    """A task and its lease token."""
    return Settlement(
        check.task_id(problems, item.id), check.lease_token(problems, item.lease_token)
    )


def extension(problems: Problems, item: pb.ExtendRequest | pb.BatchExtendItem) -> Extension:
    """A lease to be extended."""
    settled = settlement(problems, item)
    return Extension(settled.id, settled.token, lease_ms(problems, item))


def rejection(problems: Problems, item: Any) -> Rejection:
    """A nack."""
    settled = settlement(problems, item)
    verdict: pb.NackVerdict = item.verdict
    delay_ms = None
    with problems.within("verdict"):
        if verdict.HasField("delay"):
            delay_ms = check.duration_ms(
                problems, verdict.delay, "delay", least_ms=0, most_ms=LIMITS.delay_max_ms
            )
            if verdict.dead_letter:
                problems.add("delay", "does not go with dead_letter; leave one of them out")
    return Rejection(settled.id, settled.token, delay_ms, verdict.dead_letter, verdict.error)


def postponement(problems: Problems, item: pb.SnoozeRequest | pb.BatchSnoozeItem) -> Postponement:
    """A snooze."""
    settled = settlement(problems, item)
    least_ms = LIMITS.snooze_min_ms
    # Unset is 0 here, which is below the least: "as soon as possible" is what Release is for.
    delay_ms = check.duration_ms(
        problems, item.delay, "delay", least_ms=least_ms, most_ms=LIMITS.delay_max_ms
    )
    return Postponement(settled.id, settled.token, delay_ms)


def removal(problems: Problems, item: Any) -> Removal:
    """A cancel."""
    return Removal(check.task_id(problems, item.id), item.revoke_lease)
