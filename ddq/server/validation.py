"""Checks requests against the limits, and names every field that is out of bounds at once.

Each function reads one kind of field and returns its value in ddq's own terms; what is wrong is
noted in a Problems, which raises InvalidArgument with all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ddq.config import LIMITS, UNLIMITED_ATTEMPTS
from ddq.durations import exact_span_text, moment_text
from ddq.errors import FieldViolation, InvalidArgument, PayloadTooLarge
from ddq.task import NO_OVERRIDES, Durability, RetryOverrides, RetryPolicy, Schedule, TopicSettings
from ddq.v1 import delay_queue_service_pb2 as queue_pb2
from ddq.v1 import task_pb2, topic_pb2

T = TypeVar("T")

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]+")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NANOS_PER_MS = 1_000_000
_EARLIEST_S = -62_135_596_800  # 0001-01-01T00:00:00Z, the beginning of that range
_LATEST_S = 253_402_300_799  # 9999-12-31T23:59:59Z, the end of a Timestamp's range


VIOLATIONS_MAX_COUNT = 20
"""Violations that an error names; for the others it gives their number. There may be a million."""


class _Leaving(AbstractContextManager[list[str]]):
    """Leaves the field that was entered last.

    One object for all blocks of a request: a generator for each would cost a batch several
    microseconds per item.
    """

    def __init__(self, path: list[str]) -> None:
        self._path = path

    def __enter__(self) -> list[str]:
        return self._path

    def __exit__(self, *_: object) -> None:
        self._path.pop()


class Problems:
    """Collects what is wrong with a request, under the path of the field in question."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []
        self._count = 0
        self._too_large = False
        self._path: list[str] = []
        self._leaving = _Leaving(self._path)

    def add(self, field: str, description: str) -> None:
        """Notes that ``field``, within the present path, is out of bounds."""
        self._count += 1
        if self._count <= VIOLATIONS_MAX_COUNT:
            self._violations.append(FieldViolation(".".join([*self._path, field]), description))

    def add_too_large(self, field: str, description: str) -> None:
        """Like add; alone it makes the error a PayloadTooLarge."""
        self._too_large = True
        self.add(field, description)

    def within(self, field: str) -> AbstractContextManager[list[str]]:
        """Fields noted in the block lie within ``field``.

        The block is given the path; it may replace the last part by that of another item.
        """
        self._path.append(field)
        return self._leaving

    def raise_if_any(self) -> None:
        """Raises what was noted.

        Raises:
            InvalidArgument: with the first VIOLATIONS_MAX_COUNT violations, and the number of all
                in its metadata if there are more; PayloadTooLarge if the only one is a payload's.
        """
        if not self._violations:
            return
        first = self._violations[0]
        more = self._count - 1
        message = f"{first.field}: {first.description}" + (f" (and {more} more)" if more else "")
        kind = PayloadTooLarge if self._too_large and not more else InvalidArgument
        is_cut = self._count > len(self._violations)
        metadata = {"violations_count": str(self._count)} if is_cut else None
        raise kind(message, metadata=metadata, violations=tuple(self._violations))


# Names and small values --------------------------------------------------------------------


def topic_name(problems: Problems, value: str, field: str = "topic") -> str:
    """A topic's name."""
    limit = LIMITS.topic_name_max_chars
    if not value:
        problems.add(field, f"is empty; give 1 to {limit} characters of A-Z a-z 0-9 . _ -")
    elif len(value) > limit or not _TOPIC_NAME.fullmatch(value):
        problems.add(field, f"has to be 1 to {limit} characters of A-Z a-z 0-9 . _ -")
    return value


def task_id(problems: Problems, value: str, field: str = "id") -> str:
    """A task's id."""
    size, limit = len(value.encode()), LIMITS.task_id_max_bytes
    if not 1 <= size <= limit:
        problems.add(field, f"has {size} bytes; give 1 to {limit}")
    elif _CONTROL_CHARACTERS.search(value):
        problems.add(field, "has control characters; leave them out")
    return value


def request_id(problems: Problems, value: str, *, required: bool, field: str = "request_id") -> str:
    """A request_id; empty for none where it is not required."""
    size, limit = len(value.encode()), LIMITS.request_id_max_bytes
    if required and not value:
        problems.add(field, "is empty; give a unique one, and the same one again in a repeat")
    elif size > limit:
        problems.add(field, f"has {size} bytes; give at most {limit}")
    return value


def lease_token(problems: Problems, value: bytes, field: str = "lease_token") -> bytes:
    """A lease token."""
    if len(value) != LIMITS.lease_token_bytes:
        problems.add(
            field, f"has {len(value)} bytes; give the {LIMITS.lease_token_bytes} of the lease"
        )
    return value


def uid(problems: Problems, value: bytes, field: str = "uid") -> bytes:
    """A topic's uid; empty for none."""
    if value and len(value) != LIMITS.topic_uid_bytes:
        problems.add(field, f"has {len(value)} bytes; give the {LIMITS.topic_uid_bytes} of a topic")
    return value


def count(
    problems: Problems, value: int, field: str, *, default: int, most: int, least: int = 1
) -> int:
    """A number from ``least`` to ``most``; 0 means ``default``."""
    if value == 0:
        return default
    if not least <= value <= most:
        problems.add(field, f"is {value}; give {least} to {most}")
    return value


def enum(problems: Problems, value: int, kind: type[T], field: str, *, default: T) -> T:
    """A known number of an enumeration; zero means ``default``."""
    if value == 0:
        return default
    try:
        return kind(value)  # type: ignore[call-arg]
    except ValueError:
        known = ", ".join(str(int(member)) for member in kind)  # type: ignore[attr-defined]
        problems.add(field, f"is {value}, which this version does not know; known are {known}")
        return default


def unique_ids(problems: Problems, ids: Iterable[str], field: str) -> None:
    """No id may stand in a batch twice: which of the two would come first?"""
    ids = list(ids)
    if len(set(ids)) == len(ids):
        return
    seen: dict[str, int] = {}
    for position, item_id in enumerate(ids):
        if item_id and item_id in seen:
            problems.add(
                f"{field}[{position}]", f"has the id of {field}[{seen[item_id]}]; send it once"
            )
        seen.setdefault(item_id, position)


def not_too_many(problems: Problems, values: Sequence[object], field: str, *, most: int) -> bool:
    """Whether a field has at most ``most`` values.

    Where it has more, each one is not to be looked at: a message holds millions of empty ones.
    """
    if len(values) > most:
        problems.add(field, f"has {len(values)} entries; give at most {most}")
        return False
    return True


def batch_size(problems: Problems, items: Sequence[object], field: str) -> bool:
    """Whether there are 1 to batch_max_items items; of more, none is to be looked at."""
    if not 1 <= len(items) <= LIMITS.batch_max_items:
        problems.add(field, f"has {len(items)} entries; give 1 to {LIMITS.batch_max_items}")
        return False
    return True


def batch(
    problems: Problems, items: Sequence[Any], field: str, read: Callable[[Problems, Any], T]
) -> list[T]:
    """1 to batch_max_items items, each read under its own path, no two with the same ``id``."""
    if not batch_size(problems, items, field):
        return []
    values = []
    with problems.within(field) as path:
        for position, item in enumerate(items):
            # Not a block for each item: to enter and leave it are two calls.
            path[-1] = f"{field}[{position}]"
            values.append(read(problems, item))
    unique_ids(problems, [item.id for item in items], field)
    return values


# Times -------------------------------------------------------------------------------------


def duration_ms(
    problems: Problems, value: Duration, field: str, *, least_ms: int, most_ms: int
) -> int:
    """A duration as ms, rounded up: never sooner than was asked for."""
    valid = abs(value.nanos) < 10**9 and (value.seconds == 0 or value.nanos * value.seconds >= 0)
    ms = value.seconds * 1_000 - -value.nanos // _NANOS_PER_MS
    if not valid:
        problems.add(
            field, "is not a valid duration: nanos are out of range or differ in sign from seconds"
        )
    elif value.seconds < 0 or value.nanos < 0:
        problems.add(field, "is negative")
    elif not least_ms <= ms <= most_ms:
        least, most = exact_span_text(least_ms), exact_span_text(most_ms)
        problems.add(field, f"is {exact_span_text(ms)}; give {least} to {most}")
    return ms


def timestamp_ms(problems: Problems, value: Timestamp, field: str) -> int:
    """A point in time as ms since 1970, rounded up."""
    if not (0 <= value.nanos < 10**9 and _EARLIEST_S <= value.seconds <= _LATEST_S):
        problems.add(
            field,
            f"is not a valid timestamp: {value.seconds} s and {value.nanos} ns since 1970; "
            "expected a time in the years 1 to 9999",
        )
        return 0
    return max(0, value.seconds * 1_000 - -value.nanos // _NANOS_PER_MS)


def schedule(
    problems: Problems,
    request: task_pb2.TaskSpec | queue_pb2.RescheduleRequest | queue_pb2.NextRun,
    now_ms: int,
) -> Schedule:
    """When a task becomes due; RescheduleRequest and NextRun have the same fields."""
    kind = request.WhichOneof("schedule")
    if kind == "delay":
        return Schedule(
            duration_ms(problems, request.delay, "delay", least_ms=0, most_ms=LIMITS.delay_max_ms)
        )
    if kind == "due_time":
        due_ms = timestamp_ms(problems, request.due_time, "due_time")
        if due_ms > now_ms + LIMITS.delay_max_ms:
            latest = moment_text(now_ms + LIMITS.delay_max_ms)
            problems.add(
                "due_time",
                f"is more than {exact_span_text(LIMITS.delay_max_ms)} ahead; give {latest} or "
                "earlier",
            )
        return Schedule(due_ms, absolute=True)
    return Schedule()


# Larger things -----------------------------------------------------------------------------


def payload(problems: Problems, value: bytes) -> bytes:
    """A task's payload."""
    if len(value) > LIMITS.payload_max_bytes:
        problems.add_too_large(
            "payload", f"has {len(value)} bytes; give at most {LIMITS.payload_max_bytes}"
        )
    return value


def headers(problems: Problems, values: Mapping[str, str]) -> dict[str, str]:
    """A task's headers."""
    if len(values) > LIMITS.headers_max_count:
        problems.add(
            "headers", f"has {len(values)} entries; give at most {LIMITS.headers_max_count}"
        )
    size = 0
    for key, value in values.items():
        key_bytes = len(key.encode())
        if not 1 <= key_bytes <= LIMITS.header_key_max_bytes:
            problems.add(
                "headers",
                f"has a key of {key_bytes} bytes; give 1 to {LIMITS.header_key_max_bytes}",
            )
        size += key_bytes + len(value.encode())
    if size > LIMITS.headers_max_bytes:
        problems.add(
            "headers",
            f"has {size} bytes of keys and values; give at most {LIMITS.headers_max_bytes}",
        )
    return dict(values)


def retry_policy(problems: Problems, message: task_pb2.RetryPolicy) -> RetryOverrides:
    """The values that a retry policy sets."""
    if not message.ByteSize():
        return NO_OVERRIDES
    attempts = initial_ms = longest_ms = multiplier = jitter = None
    if message.HasField("max_attempts"):
        attempts = message.max_attempts
        if attempts != UNLIMITED_ATTEMPTS and not 1 <= attempts <= LIMITS.max_attempts_max_count:
            problems.add(
                "max_attempts",
                f"is {attempts}; give 1 to {LIMITS.max_attempts_max_count}, or "
                f"{UNLIMITED_ATTEMPTS} for unlimited",
            )
    if message.HasField("initial_backoff"):
        initial_ms = duration_ms(
            problems,
            message.initial_backoff,
            "initial_backoff",
            least_ms=0,
            most_ms=LIMITS.initial_backoff_max_ms,
        )
    if message.HasField("max_backoff"):
        longest_ms = duration_ms(
            problems,
            message.max_backoff,
            "max_backoff",
            least_ms=initial_ms or 0,
            most_ms=LIMITS.max_backoff_max_ms,
        )
    if message.HasField("multiplier"):
        multiplier = message.multiplier
        if not 1 <= multiplier <= LIMITS.multiplier_max:
            problems.add("multiplier", f"is {multiplier:g}; give 1 to {LIMITS.multiplier_max:g}")
    if message.HasField("jitter"):
        jitter = message.jitter
        if not 0 <= jitter <= 1:
            problems.add("jitter", f"is {jitter:g}; give 0 to 1")
    return RetryOverrides(attempts, initial_ms, longest_ms, multiplier, jitter)


def topic_settings(
    problems: Problems,
    message: topic_pb2.TopicSettings,
    *,
    retention_min_ms: int,
    defaults: TopicSettings,
) -> TopicSettings:
    """The settings of a topic; what is unset becomes the server's default."""
    with problems.within("default_retry_policy"):
        policy = retry_policy(problems, message.default_retry_policy).over(RetryPolicy())
    lease_ms = defaults.lease_ms
    if message.HasField("default_lease_duration"):
        lease_ms = duration_ms(
            problems,
            message.default_lease_duration,
            "default_lease_duration",
            least_ms=LIMITS.lease_min_ms,
            most_ms=LIMITS.lease_max_ms,
        )
    max_tasks = message.max_tasks if message.HasField("max_tasks") else defaults.max_tasks
    if max_tasks > LIMITS.max_tasks_max_count:
        problems.add("max_tasks", f"is {max_tasks}; give at most {LIMITS.max_tasks_max_count}")
    retention_ms = max(defaults.tombstone_retention_ms, retention_min_ms)
    if message.HasField("tombstone_retention"):
        retention_ms = duration_ms(
            problems,
            message.tombstone_retention,
            "tombstone_retention",
            least_ms=retention_min_ms,
            most_ms=LIMITS.tombstone_retention_max_ms,
        )
    durability = enum(
        problems, message.durability, Durability, "durability", default=defaults.durability
    )
    fsync = defaults.fsync and durability is not Durability.FAST
    if message.HasField("fsync"):
        fsync = message.fsync
    if fsync and durability is Durability.FAST:
        problems.add("fsync", "does not go with durability FAST, which waits for nothing")
    max_bytes = message.max_bytes if message.HasField("max_bytes") else defaults.max_bytes
    if max_bytes > LIMITS.topic_max_bytes:
        problems.add("max_bytes", f"is {max_bytes}; give at most {LIMITS.topic_max_bytes}")
    max_run_ms = defaults.max_run_ms
    if message.HasField("max_run"):
        max_run_ms = duration_ms(
            problems, message.max_run, "max_run", least_ms=0, most_ms=LIMITS.max_run_max_ms
        )
    entries = defaults.journal_max_entries
    if message.HasField("journal_max_entries"):
        entries = message.journal_max_entries
        least, most = LIMITS.journal_entries_min_count, LIMITS.journal_entries_max_count
        if not least <= entries <= most:
            problems.add("journal_max_entries", f"is {entries}; give {least} to {most}")
    return TopicSettings(
        retry_policy=policy,
        lease_ms=lease_ms,
        max_tasks=max_tasks,
        tombstone_retention_ms=retention_ms,
        durability=durability,
        fsync=fsync,
        journal=message.journal,
        journal_max_entries=entries,
        max_run_ms=max_run_ms,
        max_bytes=max_bytes,
    )
