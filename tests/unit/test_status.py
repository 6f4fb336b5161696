"""Errors on the wire: google.rpc.Status with the details that apply."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ddq import errors
from ddq.errors import DdqError, FieldViolation, InvalidArgument, Overloaded, TaskNotFound
from ddq.status import OK, to_status

SENT = [
    cls
    for cls in errors.all_errors()
    if cls.__module__ == errors.__name__
    and cls not in {DdqError, errors.OutcomeUnknown, errors.TransportError, errors.NotConnected}
]


def detail(status: status_pb2.Status, message: type[Message]) -> Message | None:
    for packed in status.details:
        unpacked = message()
        if packed.Unpack(unpacked):
            return unpacked
    return None


@pytest.mark.parametrize("cls", SENT, ids=lambda cls: cls.__name__)
def test_code_reason_and_message_travel(cls: type[DdqError]) -> None:
    status = to_status(cls("what is wrong", metadata={"id": "a"}))
    assert status.code == cls.code.value[0]
    assert status.message == "what is wrong"
    info = detail(status, error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, dict(info.metadata)) == (cls.reason, "ddq.v1", {"id": "a"})


@pytest.mark.parametrize("cls", SENT, ids=lambda cls: cls.__name__)
def test_no_error_travels_as_ok_or_unknown(cls: type[DdqError]) -> None:
    assert cls.code not in {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN}


def test_each_bad_field_is_named() -> None:
    error = InvalidArgument(
        "two", violations=(FieldViolation("topic", "is empty"), FieldViolation("id", "is long"))
    )
    request = detail(to_status(error), error_details_pb2.BadRequest)
    assert isinstance(request, error_details_pb2.BadRequest)
    named = [(field.field, field.description) for field in request.field_violations]
    assert named == [("topic", "is empty"), ("id", "is long")]


def test_a_wait_is_sent_where_it_helps() -> None:
    retry = detail(to_status(Overloaded("busy")), error_details_pb2.RetryInfo)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 100
    assert detail(to_status(TaskNotFound("no")), error_details_pb2.RetryInfo) is None
    assert detail(to_status(TaskNotFound("no")), error_details_pb2.BadRequest) is None


def test_ok_is_ok() -> None:
    assert (OK.code, OK.message, list(OK.details)) == (0, "", [])
