"""Requests that no client of ours sends: each gets an error of its own, and the log stays short."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from random import Random
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc.aio import EOF  # type: ignore[attr-defined]

from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.support import http2
from tests.support.messages import fill
from tests.support.rpc import Producer, failure_from
from tests.support.server import RunningServer

SERVICES = [
    pb.DESCRIPTOR.services_by_name["DelayQueueService"],
    admin_pb.DESCRIPTOR.services_by_name["DelayQueueAdminService"],
]
METHODS: list[MethodDescriptor] = [method for each in SERVICES for method in each.methods]
BROKEN = (
    b"\xff\xff\xff",  # no tag
    b"\x0a\x05ab",  # a field longer than the message
    b"\x0a\x02\xff\xfe",  # a string that is not UTF-8
)
USELESS = {"UNKNOWN", "INTERNAL", "DATA_LOSS", "DEADLINE_EXCEEDED", "no reason"}
STREAM = next(method for method in METHODS if method.name == "StreamRetrieve")
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def path(method: MethodDescriptor) -> str:
    """As it stands in a request."""
    return f"/{method.containing_service.full_name}/{method.name}"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Warnings and errors."""
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


async def ask(server: RunningServer, name: str, data: bytes) -> Any:
    """How a unary call with these bytes ended."""
    channel: Any = server.channel
    call = channel.unary_unary(name)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(data, timeout=10)
    return failure_from(caught.value)


@pytest.mark.parametrize(
    "name", [*map(path, METHODS), "/grpc.health.v1.Health/Check"], ids=lambda name: name[1:]
)
async def test_bytes_that_are_no_message_are_an_invalid_argument(
    server: RunningServer, name: str
) -> None:
    for data in BROKEN:
        if data.startswith(b"\x0a") and name.endswith("/ListTopics"):
            # Its first field is a number.
            continue
        failure = await ask(server, name, data)
        assert (failure.code, failure.reason) == ("INVALID_ARGUMENT",) * 2
        assert "Error" not in failure.message, "nothing of the inside"
        assert name[1:] in failure.message


async def test_streams_of_other_services_are_answered_alike(server: RunningServer) -> None:
    channel: Any = server.channel
    watch = channel.unary_stream(WATCH)(BROKEN[0], timeout=10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert failure_from(caught.value).reason == "INVALID_ARGUMENT"
    reflect = channel.stream_stream(REFLECTION)(timeout=10)
    await reflect.write(BROKEN[0])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reflect.read()
    assert failure_from(caught.value).reason == "INVALID_ARGUMENT"


async def test_a_stream_whose_message_cannot_be_parsed_ends_with_one_status(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It was answered twice, which gRPC logged with a traceback."""
    channel: Any = server.channel
    first = pb.StreamRetrieveRequest(add_credit_tasks=1, add_credit_bytes=1)
    first.subscribe.topics.append("jobs")
    for messages in ([BROKEN[0]], [first.SerializeToString(), BROKEN[0]]):
        stream = channel.stream_stream(path(STREAM))(timeout=10)
        for message in messages:
            await stream.write(message)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert failure_from(caught.value).reason == "INVALID_ARGUMENT"
    (line,) = lines(caplog)
    assert "could not be parsed" in line


async def test_metadata_that_is_not_text_is_one_line_without_its_value(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = server.address.rpartition(":")
    extra = [(b"authorization", b"Bearer secret \xff")]
    block = http2.call_headers("/grpc.health.v1.Health/Check", extra)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(http2.PREFACE + http2.settings())
    for stream in (1, 3, 5):
        writer.write(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, block))
        writer.write(http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(b"")))
    data, ended = b"", 0
    while ended < 3:
        data += await reader.read(65_536)
        ended = sum(
            kind == http2.HEADERS and flags & http2.END_STREAM
            for kind, flags, *_ in http2.frames(data)
        )
    writer.close()
    assert lines(caplog) == ["a call had metadata that is not text"]
    assert "secret" not in caplog.text


async def test_log_lines_of_grpc_about_clients_that_are_gone_become_one(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    grpc_log = logging.getLogger("grpc._cython.cygrpc")
    for method in ("/a", "/b"):
        grpc_log.error("ExecuteBatchError raised in core by servicer method [%s]", method)
        grpc_log.error("Unexpected [%s] raised by servicer method [%s]", "KeyError", method)
    assert lines(caplog) == [
        "a client was gone before its call was answered",
        "Unexpected [KeyError] raised by servicer method [/a]",
        "Unexpected [KeyError] raised by servicer method [/b]",
    ]


async def test_streams_of_other_services_still_work(server: RunningServer) -> None:
    channel: Any = server.channel
    watch = channel.unary_stream(WATCH)(b"", timeout=10)
    assert await watch.read() == b"\x08\x01", "SERVING"
    reflect = channel.stream_stream(REFLECTION)(timeout=10)
    await reflect.write(b"\x3a\x00")  # list_services
    assert b"ddq.v1.DelayQueueService" in await reflect.read()
    await reflect.done_writing()
    assert await reflect.read() is EOF
    watch.cancel()


async def test_a_flood_of_broken_requests_is_one_line(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(200):
        await ask(server, path(METHODS[0]), BROKEN[0])
    (line,) = lines(caplog)
    assert "could not be parsed" in line


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_no_message_ends_in_an_internal_error(
    server: RunningServer, method: MethodDescriptor, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor in any code that says nothing, nor with a traceback in the log."""
    await Producer(server.queue).add("a")
    random = Random(f"{method.name}")
    codes: Counter[str] = Counter()
    channel: Any = server.channel
    call = channel.unary_unary(path(method))
    for _ in range(60):
        message = GetMessageClass(method.input_type)()
        fill(message, random)
        if "wait" in message.DESCRIPTOR.fields_by_name:
            message.ClearField("wait")
        try:
            await call(message.SerializeToString(), timeout=10)
            codes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            codes[error.code().name] += bool(failure_from(error).reason)
            codes["no reason"] += not failure_from(error).reason
    assert not (+codes).keys() & USELESS, codes
    assert not lines(caplog)
