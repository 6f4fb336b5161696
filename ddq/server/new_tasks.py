"""Tasks to be enqueued: requests as values of the store, by one of two paths.

Nearly every task has an id, a payload and a schedule and nothing else. The short path reads such a
task with the least work, and gives up on any other one and on every value that is out of bounds.
What it gives up on takes the full path, which knows all fields and names what is wrong. The full
path alone says what a task means: whatever the short path returns, it would have returned too,
which tests/unit/test_new_tasks.py holds for generated tasks.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping

from ddq.config import LIMITS
from ddq.entropy import Clock, Entropy, uuid7
from ddq.errors import InvalidArgument
from ddq.server import validation as check
from ddq.server.requests import settlement
from ddq.server.validation import Problems
from ddq.store.job_values import Content, Continuation
from ddq.store.records import DIGEST_BYTES, content_digest, digest_part, pack_headers
from ddq.task import NO_OVERRIDES, NewTask, OnConflict, Schedule
from ddq.tracing import TRACE_HEADERS
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2

_CONDITIONAL = {OnConflict.REPLACE_IF_SCHEDULED, OnConflict.REPLACE_IF_FINISHED}
REPLACING = {*_CONDITIONAL, OnConflict.DEBOUNCE}
"""Forms that may end the task that holds the id: a repeat is known by its request_id."""

_FAIL = (pb.ON_CONFLICT_UNSPECIFIED, pb.ON_CONFLICT_FAIL)
_NANOS_PER_S = 1_000_000_000
_NANOS_PER_MS = 1_000_000
_MS_PER_S = 1_000
_NO_HEADERS = digest_part(b"")
_NO_RETRY_POLICY = digest_part(b"")
_NO_SCHEDULE = digest_part(b"") * 2
_DELAY = digest_part(b"delay")
_DUE_TIME = digest_part(b"due_time")


class TaskReader:
    """Reads tasks to be enqueued.

    Args:
        clock: for due times.
        entropy: for the ids of tasks that have none.
    """

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy

    def new_task(self, request: pb.EnqueueRequest) -> NewTask:
        """The task of an Enqueue.

        Raises:
            InvalidArgument: with every field that is out of bounds.
        """
        problems = Problems()
        topic = check.topic_name(problems, request.topic)
        now_ms = self._clock.now_ms()
        task = _usual_task(topic, request, now_ms) or self._any_task(
            problems, topic, request, now_ms
        )
        check.request_id(problems, request.request_id, required=task.on_conflict in REPLACING)
        problems.raise_if_any()
        return task

    def new_tasks(self, request: pb.BatchEnqueueRequest) -> list[NewTask | InvalidArgument]:
        """The tasks of a BatchEnqueue; an item that is out of bounds has its error.

        Raises:
            InvalidArgument: the request as a whole is out of bounds; with every such field.
        """
        problems = Problems()
        topic, items = check.topic_name(problems, request.topic), request.items
        now_ms = self._clock.now_ms()
        tasks: list[NewTask | InvalidArgument] = []
        replaces = False
        if check.batch_size(problems, items, "items"):
            for item in items:
                task = _usual_task(topic, item, now_ms)
                if task is not None:
                    tasks.append(task)
                    continue
                own = Problems()
                task = self._any_task(own, topic, item, now_ms)
                try:
                    own.raise_if_any()
                    tasks.append(task)
                    replaces = replaces or task.on_conflict in REPLACING
                except InvalidArgument as error:
                    tasks.append(error)
            check.unique_ids(problems, [item.task.id for item in items], "items")
        # The message is larger than what counts in it, so most need not be counted.
        if request.ByteSize() > LIMITS.batch_max_bytes:
            size_bytes = sum(len(each.task.payload) + headers_bytes(each.task) for each in items)
            if size_bytes > LIMITS.batch_max_bytes:
                problems.add(
                    "items",
                    f"has {size_bytes} bytes of payloads and headers; give at most "
                    f"{LIMITS.batch_max_bytes}",
                )
        check.request_id(problems, request.request_id, required=replaces)
        problems.raise_if_any()
        return tasks

    def _any_task(
        self,
        problems: Problems,
        topic: str,
        item: pb.EnqueueRequest | pb.BatchEnqueueItem,
        now_ms: int,
    ) -> NewTask:
        """The full path."""
        spec = item.task
        mode = check.enum(
            problems, item.on_conflict, OnConflict, "on_conflict", default=OnConflict.FAIL
        )
        expected_revision = item.expected_revision if item.HasField("expected_revision") else None
        if expected_revision is not None and mode not in _CONDITIONAL:
            problems.add("expected_revision", "goes with the REPLACE forms of on_conflict only")
        limit_ms = 0
        if mode is OnConflict.DEBOUNCE:
            limit_ms = check.duration_ms(
                problems,
                item.debounce_limit,
                "debounce_limit",
                least_ms=LIMITS.debounce_limit_min_ms,
                most_ms=LIMITS.delay_max_ms,
            )
            if not spec.id:
                problems.add("task.id", "is empty; DEBOUNCE is for tasks of one id")
        elif item.HasField("debounce_limit"):
            problems.add("debounce_limit", "goes with on_conflict DEBOUNCE only")
        with problems.within("task"):
            if spec.id:
                check.task_id(problems, spec.id)
            with problems.within("retry_policy"):
                policy = check.retry_policy(problems, spec.retry_policy)
            return NewTask(
                id=spec.id or uuid7(now_ms, self._entropy),
                payload=check.payload(problems, spec.payload),
                headers=check.headers(problems, spec.headers),
                schedule=check.schedule(problems, spec, now_ms),
                retry_policy=policy,
                digest=task_digest(topic, spec),
                on_conflict=mode,
                expected_revision=expected_revision,
                debounce_limit_ms=limit_ms,
            )

    def continuation(self, problems: Problems, request: pb.RunAgainRequest) -> Continuation:
        """An ack and the next run of its task."""
        settled = settlement(problems, request)
        content = None
        with problems.within("next"):
            schedule = check.schedule(problems, request.next, self._clock.now_ms())
            if request.next.HasField("content"):
                asked = request.next.content
                with problems.within("content"):
                    payload = check.payload(problems, asked.payload)
                    headers = check.headers(problems, asked.headers)
                digest = content_digest(request.topic.encode(), payload, _digested_headers(headers))
                content = Content(payload, headers, digest)
        return Continuation(settled.id, settled.token, schedule, content)


def _usual_task(
    topic: str, item: pb.EnqueueRequest | pb.BatchEnqueueItem, now_ms: int
) -> NewTask | None:
    """The short path: a valid task with an id of printable ASCII, a payload and a schedule."""
    spec = item.task
    task_id, payload = spec.id, spec.payload
    if (
        item.on_conflict not in _FAIL
        or item.HasField("expected_revision")
        or item.HasField("debounce_limit")
        or spec.HasField("retry_policy")
        or spec.headers
        or not 1 <= len(task_id) <= LIMITS.task_id_max_bytes
        or not task_id.isascii()
        or not task_id.isprintable()
        or len(payload) > LIMITS.payload_max_bytes
    ):
        return None
    kind = spec.WhichOneof("schedule")
    if kind == "due_time":
        due_time = spec.due_time
        due_ms = due_time.seconds * _MS_PER_S - -due_time.nanos // _NANOS_PER_MS
        if (
            not 0 <= due_time.nanos < _NANOS_PER_S
            or not 0 <= due_ms <= now_ms + LIMITS.delay_max_ms
        ):
            return None
        schedule = Schedule(due_ms, absolute=True)
        when = _DUE_TIME + digest_part(due_time.SerializeToString(deterministic=True))
    elif kind == "delay":
        delay = spec.delay
        delay_ms = delay.seconds * _MS_PER_S - -delay.nanos // _NANOS_PER_MS
        if (
            delay.seconds < 0
            or not 0 <= delay.nanos < _NANOS_PER_S
            or delay_ms > LIMITS.delay_max_ms
        ):
            return None
        schedule = Schedule(delay_ms)
        when = _DELAY + digest_part(delay.SerializeToString(deterministic=True))
    else:
        schedule, when = Schedule(), _NO_SCHEDULE
    digested = b"".join(
        (_topic_part(topic), digest_part(payload), _NO_HEADERS, when, _NO_RETRY_POLICY)
    )
    digest = hashlib.sha256(digested).digest()[:DIGEST_BYTES]
    return NewTask(task_id, payload, {}, schedule, NO_OVERRIDES, digest)


@functools.lru_cache(maxsize=256)
def _topic_part(topic: str) -> bytes:
    return digest_part(topic.encode())


def headers_bytes(spec: task_pb2.TaskSpec) -> int:
    """The size of a task's headers."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in spec.headers.items())


def _digested_headers(headers: Mapping[str, str]) -> bytes:
    """The headers without those of the trace: a producer that repeats an enqueue after a restart
    sends the same task in another trace."""
    if "traceparent" not in headers:
        return pack_headers(headers)
    return pack_headers({k: v for k, v in headers.items() if k not in TRACE_HEADERS})


def task_digest(topic: str, spec: task_pb2.TaskSpec) -> bytes:
    """Over the content as it was sent: "in 5 s" sent twice is the same, whenever it is sent."""
    kind = spec.WhichOneof("schedule") or ""
    when = getattr(spec, kind).SerializeToString(deterministic=True) if kind else b""
    return content_digest(
        topic.encode(),
        spec.payload,
        _digested_headers(spec.headers),
        kind.encode(),
        when,
        spec.retry_policy.SerializeToString(deterministic=True),
    )
