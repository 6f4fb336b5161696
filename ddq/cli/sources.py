"""Where `ddq enqueue` takes payloads from: the command line, files, folders, lines, stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ddq.cli.exits import CommandError, ExitCode
from ddq.config import LIMITS

STDIN = Path("-")


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
        raise CommandError(f"{folder} is no folder", ExitCode.USAGE)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield from_file(path, path.relative_to(folder).as_posix())


def from_lines(path: Path) -> Iterator[Source]:
    """Each line of a file, or of stdin for ``-``, without its end."""
    if path == STDIN:
        yield from _lines("-", sys.stdin.buffer)
        return
    try:
        with path.open("rb") as file:
            yield from _lines(str(path), file)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", ExitCode.USAGE) from None


def _bounded(name: str, file: BinaryIO) -> Source:
    """Reads no more than it takes to see that it is too much."""
    payload = file.read(LIMITS.payload_max_bytes + 1)
    return Source(name, payload if len(payload) <= LIMITS.payload_max_bytes else None)


def _lines(name: str, file: BinaryIO) -> Iterator[Source]:
    for number, line in enumerate(file, start=1):
        payload = line.removesuffix(b"\n").removesuffix(b"\r")
        too_large = len(payload) > LIMITS.payload_max_bytes
        yield Source(f"{name}:{number}", None if too_large else payload)
