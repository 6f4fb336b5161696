"""The digest of a task's content is stored: computed otherwise, repeats become conflicts."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ddq.server.new_tasks import task_digest
from ddq.v1.task_pb2 import RetryPolicy, TaskSpec


def spec() -> TaskSpec:
    return TaskSpec(
        id="a",
        payload=b"hello",
        headers={"b": "2", "a": "1"},
        delay=Duration(seconds=5),
        retry_policy=RetryPolicy(max_attempts=3),
    )


def test_the_digest_is_what_it_was_in_format_1() -> None:
    assert task_digest("mail", spec()).hex() == "9c590fdf1fb6963651836ae0c6331ebf"


def test_the_id_is_not_part_of_it() -> None:
    other = spec()
    other.id = "b"
    assert task_digest("mail", other) == task_digest("mail", spec())


def changed(field: str) -> TaskSpec:
    other = spec()
    if field == "payload":
        other.payload = b"hell"
    elif field == "headers":
        other.headers["a"] = "2"
    elif field == "delay":
        other.delay.nanos = 1
    elif field == "no schedule":
        other.ClearField("delay")
    elif field == "due time":
        other.due_time.CopyFrom(Timestamp(seconds=5))
    else:
        other.retry_policy.jitter = 0.1
    return other


@pytest.mark.parametrize(
    "field", ["payload", "headers", "delay", "no schedule", "due time", "retry policy"]
)
def test_everything_else_is(field: str) -> None:
    assert task_digest("mail", changed(field)) != task_digest("mail", spec())


def test_the_topic_is() -> None:
    assert task_digest("mails", spec()) != task_digest("mail", spec())
