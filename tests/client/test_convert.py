"""Values to messages and back."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ddq.client import (
    Client,
    Lease,
    NewTask,
    RetryPolicy,
    TopicSettings,
    convert,
    convert_topics,
)
from ddq.errors import InvalidArgument, Unimplemented
from ddq.v1 import task_pb2
from ddq.v1.delay_queue_admin_service_pb2 import RedriveDeadTasksResponse
from ddq.v1.delay_queue_service_pb2 import LeasedTask
from tests.client.fake import FakeServer


def test_no_schedule_is_not_a_delay_of_zero() -> None:
    assert convert.task_spec(NewTask(), "a").WhichOneof("schedule") is None
    zero = convert.task_spec(NewTask(delay=timedelta(0)), "a")
    assert zero.WhichOneof("schedule") == "delay"


def test_a_due_time_keeps_its_instant_in_any_zone() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    spec = convert.task_spec(NewTask(due=datetime(2030, 1, 1, 5, 30, tzinfo=zone)), "a")
    assert spec.due_time.ToDatetime(tzinfo=UTC) == datetime(2030, 1, 1, tzinfo=UTC)


def test_a_due_time_without_zone_is_refused() -> None:
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 - that is the point
    with pytest.raises(InvalidArgument, match="time zone"):
        convert.task_spec(NewTask(due=naive), "a")


def test_a_delay_and_a_due_time_are_refused() -> None:
    task = NewTask(delay=timedelta(0), due=datetime(2030, 1, 1, tzinfo=UTC))
    with pytest.raises(InvalidArgument, match="not both"):
        convert.task_spec(task, "a")


@pytest.mark.parametrize(
    "task", [NewTask(headers={"\udcff": "a"}), NewTask(headers={"a": "\udcff"})]
)
def test_text_that_is_not_utf8_is_refused(task: NewTask) -> None:
    with pytest.raises(InvalidArgument, match="UTF-8"):
        convert.task_spec(task, "a")


def test_an_id_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="UTF-8"):
        convert.task_spec(NewTask(), "\udcff")


def test_errors_are_kept_whatever_they_hold() -> None:
    assert convert.verdict("bad \udcff", None, dead_letter=False).error == "bad ?"


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_numbers_that_do_not_fit_are_refused(value: int) -> None:
    with pytest.raises(InvalidArgument, match="max_attempts"):
        convert.task_spec(NewTask(retry_policy=RetryPolicy(max_attempts=value)), "a")


def test_an_unset_policy_is_not_sent() -> None:
    assert not convert.task_spec(NewTask(), "a").HasField("retry_policy")
    spec = convert.task_spec(NewTask(retry_policy=RetryPolicy(jitter=0.0)), "a")
    assert spec.retry_policy.HasField("jitter")
    assert not spec.retry_policy.HasField("max_backoff")


def test_an_empty_payload_is_not_a_missing_one() -> None:
    scheduled = task_pb2.TASK_STATE_SCHEDULED
    assert convert.task(task_pb2.Task(state=scheduled)).payload == b""
    basic = task_pb2.Task(state=scheduled, payload_size_bytes=5)
    assert convert.task(basic).payload is None
    finished = task_pb2.Task(state=task_pb2.TASK_STATE_SUCCEEDED)
    assert convert.task(finished).payload is None


def test_a_state_of_a_newer_server_is_named() -> None:
    message = task_pb2.Task()
    message.state = 99  # type: ignore[assignment]
    with pytest.raises(Unimplemented, match="TaskState 99"):
        convert.task(message)


def test_a_mask_names_what_is_set_and_nothing_else() -> None:
    settings = convert_topics.topic_settings(
        TopicSettings(
            max_tasks=0,
            journal=False,
            default_retry_policy=RetryPolicy(max_attempts=3, max_backoff=timedelta(0)),
        )
    )
    assert sorted(convert_topics.set_paths(settings)) == [
        "default_retry_policy.max_attempts",
        "default_retry_policy.max_backoff",
        "journal",
        "max_tasks",
    ]


def test_an_error_of_any_length_can_be_sent() -> None:
    message = convert.verdict("é" * 5_000_000, None, dead_letter=False)
    assert message.error == "é" * 1_024
    # Not through the middle of a character.
    assert convert.verdict("x" + "é" * 2_000, None, dead_letter=False).error == "x" + "é" * 1_023


def test_a_due_time_that_utc_does_not_have_is_refused() -> None:
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=10)))
    late = datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=10)))
    for due in (early, late):
        with pytest.raises(InvalidArgument, match="years 1 to 9999"):
            convert.task_spec(NewTask(due=due), "a")


async def test_an_empty_id_is_refused(client: Client, server: FakeServer) -> None:
    """The server would make one, and each repeat would be a task of its own."""
    with pytest.raises(InvalidArgument, match=r"task\.id: is empty"):
        await client.enqueue("mail", b"x", task_id="")
    with pytest.raises(InvalidArgument, match=r"task\.id: is empty"):
        await client.enqueue_batch("mail", [NewTask(id="")])
    with pytest.raises(InvalidArgument, match="request_id: is empty"):
        await client.retrieve("mail", request_id="")
    assert not server.requests


async def test_an_empty_selection_is_not_all_dead_tasks(client: Client, server: FakeServer) -> None:
    """To the server no ids are all of them."""
    with pytest.raises(InvalidArgument, match="task_ids: is empty"):
        await client.redrive("mail", [])
    assert not server.requests
    server.script["RedriveDeadTasks"] = [RedriveDeadTasksResponse(done=True)]
    await client.redrive("mail", "one id")
    assert [list(request.ids) for request in server.requests["RedriveDeadTasks"]] == [["one id"]]


def test_a_lease_that_is_read_when_it_is_asked_for_equals_one_that_is_made_of_its_fields() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    message = LeasedTask(lease_token=b"t" * 16)
    message.task.topic, message.task.id, message.task.payload = "mail", "a", b"x"
    message.task.state = task_pb2.TASK_STATE_LEASED
    message.task.due_time.FromDatetime(moment)
    message.lease_expire_time.FromDatetime(moment + timedelta(seconds=30))
    message.lease_remaining.FromTimedelta(timedelta(seconds=29))
    message.max_run.FromTimedelta(timedelta(minutes=5))
    message.receipt.store_time.FromDatetime(moment + timedelta(seconds=1))
    made = Lease(
        topic="mail",
        id="a",
        token=b"t" * 16,
        task=convert.task(message.task),
        expire_time=moment + timedelta(seconds=30),
        remaining=timedelta(seconds=29),
        receipt=convert.receipt(message.receipt),
        max_run=timedelta(minutes=5),
    )
    assert convert.lease(message) == made
    assert repr(convert.lease(message)) == repr(made)
    assert convert.lease(message).due_time == made.due_time == moment
    assert replace(convert.lease(message), max_run=None) == replace(made, max_run=None)
    assert copy.deepcopy(convert.lease(message)) == made
    assert not hasattr(convert.lease(message), "no_such_field")
