"""Protobuf messages with arbitrary values in all fields, made from their descriptors."""

from __future__ import annotations

from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

DEPTH_MAX_COUNT = 4
_TEXTS = ("", "jobs", "a", "\0", "é" * 200, "x" * 300, "%s{}", "../..", "{jobs:1}", "\U0010ffff")
_BYTES = (b"", b"\0" * 16, b"x", b"\xff" * 16, b"y" * 5_000)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


def fill(message: Message, random: Random, depth: int = 0) -> None:
    """Sets about half of the fields, each to a value at some edge."""
    for field in message.DESCRIPTOR.fields:
        if random.random() < 0.5 or depth > DEPTH_MAX_COUNT:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)[random.choice(_TEXTS)] = random.choice(_TEXTS)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(random.choice((1, 2, 5))):
                if field.message_type is not None:
                    fill(values.add(), random, depth + 1)
                else:
                    values.append(_value(field, random))
        elif field.message_type is not None:
            child = getattr(message, field.name)
            child.SetInParent()
            fill(child, random, depth + 1)
        else:
            setattr(message, field.name, _value(field, random))


def _value(field: Any, random: Random) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        is_text = field.type == FieldDescriptor.TYPE_STRING
        return random.choice(_TEXTS) if is_text else random.choice(_BYTES)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if kind in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        return random.choice(_FLOATS)
    least, most = _RANGES[kind]
    return random.choice((0, 1, 2, 1_000, least, most, random.randint(least, most)))
