"""A lease reads its fields from the reply late, and is a value like any other."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from ddq.client import Lease, convert
from ddq.v1 import delay_queue_service_pb2 as pb
from ddq.v1 import task_pb2


def message() -> pb.LeasedTask:
    leased = pb.LeasedTask(
        task=task_pb2.Task(topic="mail", id="t", state=task_pb2.TASK_STATE_LEASED, attempt=2),
        lease_token=b"token",
        receipt=task_pb2.Receipt(durability=task_pb2.DURABILITY_FAST),
    )
    leased.task.payload = b"hello"
    leased.task.headers["k"] = "v"
    leased.task.due_time.seconds = 5
    leased.lease_expire_time.seconds = 9
    leased.lease_remaining.seconds = 4
    leased.max_run.seconds = 60
    return leased


def whole() -> Lease:
    """The same lease, all of its fields given."""
    leased = message()
    return Lease(
        "mail",
        "t",
        b"token",
        convert.task(leased.task),
        datetime(1970, 1, 1, 0, 0, 9, tzinfo=UTC),
        timedelta(seconds=4),
        convert.receipt(leased.receipt),
        timedelta(seconds=60),
    )


@pytest.mark.parametrize("name", [field.name for field in fields(Lease)])
def test_each_field_is_that_of_the_reply(name: str) -> None:
    assert getattr(convert.lease(message()), name) == getattr(whole(), name)


@pytest.mark.parametrize("name", ["due_time", "payload", "headers", "attempt"])
def test_each_property_is_that_of_the_reply(name: str) -> None:
    assert getattr(convert.lease(message()), name) == getattr(whole(), name)


def test_an_unset_time_is_none() -> None:
    lease = convert.lease(pb.LeasedTask())
    assert (lease.expire_time, lease.max_run, lease.due_time) == (None, None, None)


@pytest.mark.parametrize(
    "made_of",
    [
        pytest.param(lambda lease: lease, id="itself"),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda lease: pickle.loads(pickle.dumps(lease)), id="pickle"),  # noqa: S301 - of our own
        pytest.param(replace, id="replace"),
    ],
)
def test_a_lease_is_equal_to_one_whose_fields_were_given(made_of: Callable[[Lease], Lease]) -> None:
    found = made_of(convert.lease(message()))
    assert found == whole()
    assert repr(found) == repr(whole())
    with pytest.raises(AttributeError):
        found.nonsense  # noqa: B018 - asked for on purpose
    with pytest.raises(AttributeError):
        found.id = "other"  # type: ignore[misc]
