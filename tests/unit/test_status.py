"""Errors on the wire: google.rpc.Status with the details that apply."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from ddq import errors
from ddq.errors import DdqError, FieldViolation, InvalidArgument, Overloaded, TaskNotFound
from ddq.server.status import OK, cut, to_status

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


TRAILERS_MAX_BYTES = 8 * 1024
"""What clients take."""
# Long ones are short ones repeated: to draw thousands of characters takes minutes under load.
TEXT = st.builds(
    lambda text, times: (text * times)[:2_000],
    st.text(min_size=1, max_size=20) | st.text("\x00\U0010ffff%\n", min_size=1, max_size=20),
    st.sampled_from([0, 1, 50, 100, 2_000]),
)


@given(
    message=TEXT,
    metadata=st.dictionaries(TEXT, TEXT, max_size=20),
    violations=st.lists(st.builds(FieldViolation, TEXT, TEXT), max_size=40),
)
def test_an_error_fits_into_the_trailers_whatever_it_says(
    message: str, metadata: dict[str, str], violations: list[FieldViolation]
) -> None:
    error = InvalidArgument(message, metadata=metadata, violations=tuple(violations))
    status = to_status(error)
    size_bytes = len(b64encode(status.SerializeToString())) + len(quote(status.message))
    assert size_bytes < TRAILERS_MAX_BYTES - 1_024, "the keys and the other trailers need some too"


def test_text_that_is_cut_stays_readable() -> None:
    assert cut("short", 5) == "short"
    assert cut("longer", 5) == "lo…"
    assert cut("\u00e9" * 4, 7) == "\u00e9\u00e9…", "no half of a character"
    assert cut("\ud800", 5) == "?"


def test_an_id_is_never_cut() -> None:
    metadata = {"topic": "t" * 128, "id": "i" * 256, "revision": "9" * 20}
    info = detail(to_status(TaskNotFound("no", metadata=metadata)), error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == metadata
