"""Calls that no client of ours makes, drawn from a random source and made from the descriptors."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import delay_queue_service_pb2 as pb
from tests.support import http2
from tests.support.messages import fill

METHODS: list[MethodDescriptor] = [
    method
    for file, service in (
        (pb, "DelayQueueService"),
        (admin_pb, "DelayQueueAdminService"),
    )
    for method in file.DESCRIPTOR.services_by_name[service].methods
]
OTHER_PATHS = (
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/ddq.v1.DelayQueueService/NoSuchMethod",
    "/no.such.Service/Enqueue",
    "/",
    "",
    "ddq.v1.DelayQueueService/Enqueue",
    "/ddq.v1.DelayQueueService/" + "x" * 3_000,
)
TOPICS = tuple(f"fuzz-{number}" for number in range(12))
"""Few: each topic that is created stays."""
IDS = tuple(f"task-{number}" for number in range(300))
DUE_WITHIN_MS = 2_000

Extra = tuple[bytes, bytes]


class Call:
    """A call as it is sent.

    Attributes:
        headers: its header block.
        data: its body: gRPC messages, or what claims to be such; none follow.
    """

    __slots__ = ("data", "headers", "path")

    def __init__(self, path: str, extra: list[Extra], data: bytes) -> None:
        self.path = path
        self.headers = http2.call_headers(path, extra)
        self.data = data


def draw(random: Random) -> Call:
    """A call of any kind."""
    (make,) = random.choices(_KINDS, _WEIGHTS)
    return make(random)


def path_of(method: MethodDescriptor) -> str:
    """As it stands in a request."""
    return f"/{method.containing_service.full_name}/{method.name}"


# What is in a request -------------------------------------------------------------------------


def request(method: MethodDescriptor, random: Random) -> bytes:
    """A message of a method: hostile values, and often names that exist."""
    message = GetMessageClass(method.input_type)()
    fill(message, random)
    _aim(message, random)
    return message.SerializeToString()


def _aim(message: Any, random: Random) -> None:
    """Points most requests at a topic and at tasks that exist, so that they get further."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        if field.message_type is not None:
            value = getattr(message, field.name)
            for child in value if field.is_repeated else [value]:
                if field.is_repeated or message.HasField(field.name):
                    _aim(child, random)
        elif (
            random.random() < 0.8
            and field.type == FieldDescriptor.TYPE_STRING
            and (names := _NAMES.get(field.name))
        ):
            if field.is_repeated:
                getattr(message, field.name)[:] = random.sample(names, random.choice((1, 2, 5)))
            else:
                setattr(message, field.name, random.choice(names))
    fields = message.DESCRIPTOR.fields_by_name
    if random.random() < 0.5:
        _set_delay(message, random)
    if "wait" in fields and random.random() < 0.9:
        # Longer than a burst is waited for.
        message.ClearField("wait")


_NAMES: dict[str, tuple[str, ...]] = {
    "topic": TOPICS,
    "topics": TOPICS,
    "name": TOPICS,
    "id": IDS,
    "request_id": ("r1", "r2", "r3", "r4"),
}


def mutated(data: bytes, random: Random) -> bytes:
    """The bytes with a few of them changed, left out, repeated or added."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        random.choice(_MUTATIONS)(found, random)
    return bytes(found[: 1 << 20])


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _cut(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data) + 1) :]


def _insert(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = random.choice(_PIECES) if random.random() < 0.7 else random.randbytes(7)


def _repeat(data: bytearray, random: Random) -> None:
    if data:
        begin = random.randrange(len(data))
        data.extend(data[begin : begin + random.randrange(1, 200)] * random.choice((1, 3, 50)))


def _remove(data: bytearray, random: Random) -> None:
    if data:
        begin = random.randrange(len(data))
        del data[begin : begin + random.randrange(1, 20)]


_MUTATIONS: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip, _flip, _cut, _insert, _repeat, _remove,
)  # fmt: skip
_PIECES = (
    b"\xff" * 10,  # a number that is too long
    b"\xff\xff\xff\xff\x0f",
    b"\x0a\xff\xff\xff\xff\x07",  # a field of 2 GiB
    b"\x0a\x80\x01" * 60,
    b"\x0b" * 120,  # groups in groups
    b"\x0a\x02\xff\xfe",  # no UTF-8
    b"\x00",
    b"\x80" * 20,
)


def nearly_valid(method: MethodDescriptor, random: Random) -> bytes:
    """A message that a server accepts, or that would be one but for a single field."""
    message = GetMessageClass(method.input_type)()
    _build(message, random)
    if random.random() < 0.5:
        hostile = GetMessageClass(method.input_type)()
        fill(hostile, random)
        kept = random.choice(method.input_type.fields).name
        for field, _ in hostile.ListFields():
            if field.name != kept:
                hostile.ClearField(field.name)
        message.MergeFrom(hostile)
    return message.SerializeToString()


def _build(message: Any, random: Random) -> None:
    """Sets what a request has to have."""
    for field in message.DESCRIPTOR.fields:
        if field.name in {"items", "leases", "subscribe", "task"} and field.message_type:
            value = getattr(message, field.name)
            if field.is_repeated:
                for _ in range(random.choice((1, 1, 3))):
                    _build(value.add(), random)
            else:
                value.SetInParent()
                _build(value, random)
        elif (names := _NAMES.get(field.name)) and field.is_repeated:
            getattr(message, field.name).append(random.choice(names))
        elif names:
            setattr(message, field.name, random.choice(names))
        elif field.name == "lease_token":
            setattr(message, field.name, random.randbytes(16))
        elif field.name == "payload":
            setattr(message, field.name, random.randbytes(random.choice((0, 30, 3_000))))
        elif field.name in {"state", "add_credit_tasks", "add_credit_bytes", "max_tasks"}:
            setattr(message, field.name, 1)
    _set_delay(message, random)


def _set_delay(message: Message, random: Random) -> None:
    """Makes a task due in this run, so that tasks pass through all states."""
    fields = message.DESCRIPTOR.fields_by_name
    if "delay" in fields and "due_time" in fields:
        delay: Any = getattr(message, "delay")  # noqa: B009 - not of every message
        delay.FromMilliseconds(random.randrange(DUE_WITHIN_MS))


# Kinds of calls -------------------------------------------------------------------------------


def _nearly_valid(random: Random) -> Call:
    method = random.choice(METHODS)
    return Call(path_of(method), [_timeout(random)], http2.message(nearly_valid(method, random)))


def _hostile(random: Random) -> Call:
    method = random.choice(METHODS)
    return Call(path_of(method), [_timeout(random)], http2.message(request(method, random)))


def _mutated(random: Random) -> Call:
    method = random.choice(METHODS)
    data = mutated(request(method, random), random)
    return Call(path_of(method), [_timeout(random)], http2.message(data))


def _random(random: Random) -> Call:
    path = random.choice(OTHER_PATHS) if random.random() < 0.2 else path_of(random.choice(METHODS))
    size = random.choice((0, 1, 5, 100, 3_000, 60_000))
    return Call(path, [_timeout(random)], http2.message(random.randbytes(size)))


def _framed_wrongly(random: Random) -> Call:
    """Its prefix lies about the message."""
    method = random.choice(METHODS)
    data = request(method, random)
    bodies = (
        struct.pack(">BI", 0, len(data) + 100) + data,
        struct.pack(">BI", 0, max(0, len(data) - 3)) + data,
        struct.pack(">BI", 1, len(data)) + data,  # compressed, by nothing
        struct.pack(">BI", 77, len(data)) + data,
        struct.pack(">BI", 0, 0xFFFFFFFF) + data,
        http2.message(data) * 3,
        b"\0\0",
        b"",
    )
    return Call(path_of(method), [_timeout(random)], random.choice(bodies))


def _with_metadata(random: Random) -> Call:
    """Metadata as no library sends it."""
    method = random.choice(METHODS)
    extra = [random.choice(_METADATA)(random) for _ in range(random.choice((1, 2, 5)))]
    flat = [pair for pairs in extra for pair in pairs]
    return Call(path_of(method), flat, http2.message(request(method, random)))


def _timeout(random: Random) -> Extra:
    return b"grpc-timeout", random.choice((b"2S", b"2S", b"500m", b"50m", b"1m", b"1n"))


_TIMEOUTS: tuple[bytes, ...] = (
    b"", b"1", b"99999999H", b"-1S", b"1X", b"0n", b"1e9S", b"999999999999S", b"\xff",
)  # fmt: skip
_METADATA: tuple[Callable[[Random], list[Extra]], ...] = (
    lambda random: [(b"grpc-timeout", random.choice(_TIMEOUTS))],
    lambda random: [(b"x-long", b"x" * random.choice((1_000, 7_000, 15_000)))],
    lambda random: [(b"x-%d" % number, b"v") for number in range(random.choice((20, 150)))],
    lambda random: [(b"x-data-bin", random.choice((b"!!!", b"AA", b"=" * 9, b"/" * 500)))],
    lambda random: [(b"grpc-encoding", random.choice((b"gzip", b"deflate", b"xyz", b"")))],
    lambda random: [(b"authorization", random.choice((b"", b"Bearer", b"Bearer \xff" * 40)))],
    lambda random: [(b"content-type", random.choice((b"text/html", b"application/grpc+json")))],
    lambda random: [(b"traceparent", random.randbytes(12).hex().encode())],
    lambda _: [(b"Upper-Case", b"v")],
    lambda _: [(b"x-control", b"a\x00b\r\nc: d")],
    lambda _: [(b":path", b"/again")],
    lambda _: [(b":status", b"200")],
    lambda _: [(b"te", b"gzip"), (b"connection", b"close")],
    lambda _: [(b"", b"no name")],
    lambda _: [(b"grpc-previous-rpc-attempts", b"-1"), (b"grpc-retry-pushback-ms", b"x")],
    lambda _: [(b"host", b"a" * 300), (b"content-length", b"-5")],
)

_KINDS: tuple[Callable[[Random], Call], ...] = (
    _nearly_valid, _hostile, _mutated, _random, _framed_wrongly, _with_metadata,
)  # fmt: skip
_WEIGHTS = (30, 20, 25, 5, 10, 10)
