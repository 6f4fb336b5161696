"""Payloads from lines: bounded while they are read, and byte for byte."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from ddq.cli.sources import Source, _lines, from_lines
from ddq.config import LIMITS

MAX_BYTES = LIMITS.payload_max_bytes


class Watched(io.BytesIO):
    """Refuses to read without a bound, and remembers the largest piece."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.largest_bytes = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 < size <= MAX_BYTES + 6
        piece = super().readline(size)
        self.largest_bytes = max(self.largest_bytes, len(piece))
        return piece

    def __next__(self) -> bytes:
        raise AssertionError("a line without a bound")

    def read(self, *_: Any) -> bytes:
        raise AssertionError("all of it")


def read(content: bytes, *, skip_blank: bool = False) -> list[tuple[str, bytes | None]]:
    sources = _lines("f", Watched(content), skip_blank=skip_blank)
    return [(source.name, source.payload) for source in sources]


def test_a_line_that_is_too_large_is_named_and_the_next_one_read() -> None:
    largest = b"x" * MAX_BYTES
    content = b"\0" * (3 * MAX_BYTES) + b"\nshort\r\n" + largest + b"\r\n" + largest + b"y\nend"
    assert read(content) == [
        ("f:1", None),
        ("f:2", b"short"),
        ("f:3", largest),
        ("f:4", None),
        ("f:5", b"end"),
    ]


@pytest.mark.parametrize("more_bytes", range(8))
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_around_the_bound(more_bytes: int, end: bytes, mark: bytes) -> None:
    """Where a piece could end between the end of a line and the next one."""
    line = b"x" * (MAX_BYTES - 2 + more_bytes)
    found = read(mark + line + end)
    assert found == [("f:1", line if len(line) <= MAX_BYTES else None)]
    if end:
        assert read(mark + line + end + b"next") == [*found, ("f:2", b"next")]


def test_a_byte_order_mark_is_dropped_before_the_first_line_only() -> None:
    mark = b"\xef\xbb\xbf"
    assert read(mark + b"a\n" + mark + b"b") == [("f:1", b"a"), ("f:2", mark + b"b")]
    assert read(mark) == []
    assert read(b"") == []


def test_blank_lines_are_tasks_unless_they_are_to_be_skipped() -> None:
    content = b"a\n\n \t\r\nb\n"
    assert [payload for _, payload in read(content)] == [b"a", b"", b" \t", b"b"]
    # Names stay: the same command once more adds nothing twice.
    assert read(content, skip_blank=True) == [("f:1", b"a"), ("f:4", b"b")]


def test_a_file_is_read_like_stdin(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\n\nb")
    assert list(from_lines(path, skip_blank=True)) == [
        Source(f"{path}:1", b"a"),
        Source(f"{path}:3", b"b"),
    ]
