"""Files that a process reads again when they change."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

Signature: TypeAlias = tuple[tuple[int, int, int] | None, ...]
"""Of each file its inode, size in bytes and time of the last change in ns; None: it is missing."""


def signature(*paths: Path) -> Signature:
    """What is compared to see whether one of the files has changed."""
    return tuple(_of(path) for path in paths)


def _of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
