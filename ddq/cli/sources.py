"""Where `ddq enqueue` takes payloads from: the command line, files, folders, lines, stdin."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ddq.cli.exits import CommandError, ExitCode
from ddq.config import LIMITS

STDIN = Path("-")
# A byte order mark before the largest payload, the end of its line behind it, and one more.
_LINE_MAX_BYTES = len(codecs.BOM_UTF8) + LIMITS.payload_max_bytes + len(b"\r\n") + 1


@dataclass(frozen=True, slots=True)
class Source:
    """One payload, and a name for it that is the same the next time.

    Attributes:
        payload: None if it is larger than a task may carry.
    """

    name: str
    payload: bytes | None


def from_file(path: Path, name: str | None = None) -> Source:
    """The whole of a file, or of stdin for ``-``."""
    if path == STDIN:
        return _bounded("-", sys.stdin.buffer)
    try:
        with path.open("rb") as file:
            return _bounded(name or str(path), file)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", ExitCode.USAGE) from None


def from_folder(folder: Path) -> Iterator[Source]:
    """Each file below a folder, in the order of their paths."""
    if not folder.is_dir():
        raise CommandError(f"{folder} is not a folder", ExitCode.USAGE)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield from_file(path, path.relative_to(folder).as_posix())


def from_lines(path: Path, *, skip_blank: bool = False) -> Iterator[Source]:
    """Each line of a file, or of stdin for ``-``, without its end.

    Args:
        skip_blank: leave out lines that hold nothing but white space.
    """
    if path == STDIN:
        yield from _lines("-", sys.stdin.buffer, skip_blank=skip_blank)
        return
    try:
        with path.open("rb") as file:
            yield from _lines(str(path), file, skip_blank=skip_blank)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", ExitCode.USAGE) from None


def _bounded(name: str, file: BinaryIO) -> Source:
    """Reads no more than it takes to see that it is too much."""
    payload = file.read(LIMITS.payload_max_bytes + 1)
    return Source(name, payload if len(payload) <= LIMITS.payload_max_bytes else None)


def _lines(name: str, file: BinaryIO, *, skip_blank: bool) -> Iterator[Source]:
    number = 0
    while line := _line(file):
        number += 1
        if number == 1:
            # Editors on Windows put a byte order mark before the first line.
            line = line.removeprefix(codecs.BOM_UTF8)
            if not line:
                return
        payload = line.removesuffix(b"\n").removesuffix(b"\r")
        if skip_blank and not payload.strip():
            continue
        too_large = len(payload) > LIMITS.payload_max_bytes
        yield Source(f"{name}:{number}", None if too_large else payload)


def _line(file: BinaryIO) -> bytes:
    """The next line with its end, or so much of it as shows that it is too large; b"" at the end.

    What is left out of it is read away in pieces, so that no line needs more memory than a payload.
    """
    line = file.readline(_LINE_MAX_BYTES)
    rest = line
    while len(rest) == _LINE_MAX_BYTES and not rest.endswith(b"\n"):
        rest = file.readline(_LINE_MAX_BYTES)
    return line
