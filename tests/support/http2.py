"""HTTP/2 frame by frame, for clients that a library does not let one write."""

from __future__ import annotations

import struct
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """A SETTINGS frame; the names are numbers after an underscore: ``_4=0`` closes all windows."""
    pairs = [struct.pack(">HI", int(name[1:]), value) for name, value in values.items()]
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def header(name: bytes, value: bytes) -> bytes:
    """A header as HPACK's literal without indexing."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)])
    rest, encoded = len(text) - 127, [127]
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes([*encoded, rest])


def call_headers(path: str, extra: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """The header block of a gRPC call."""
    pairs = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *extra,
    ]
    return b"".join(header(name, value) for name, value in pairs)


def message(data: bytes) -> bytes:
    """A gRPC message: its prefix and its bytes."""
    return struct.pack(">BI", 0, len(data)) + data


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """The whole frames at the beginning of ``data``: kind, flags, stream and payload of each."""
    found = []
    while len(data) >= 9:
        size = int.from_bytes(data[:3], "big")
        if len(data) < 9 + size:
            break
        kind, flags, stream = struct.unpack(">BBI", data[3:9])
        found.append((kind, flags, stream, data[9 : 9 + size]))
        data = data[9 + size :]
    return found
