"""What a data node has on disk, damaged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from chaos.clusters import ClusterError


def empty(folder: Path) -> None:
    """Removes every file of data; configurations stay."""
    shutil.rmtree(folder / "appendonlydir", ignore_errors=True)
    for dump in folder.glob("*.rdb"):
        dump.unlink()


def truncate_tail(folder: Path, tail_bytes: int) -> int:
    """Cuts so many bytes off the append-only file, as a power loss does; returns how many went."""
    # The newest part is where the writes go; a resync begins a new one.
    parts = sorted((folder / "appendonlydir").glob("*.incr.aof"), key=_part_number)
    if not parts:
        raise ClusterError(f"{folder} has no append-only file to cut")
    size = parts[-1].stat().st_size
    gone = min(size, tail_bytes)
    os.truncate(parts[-1], size - gone)
    return gone


def _part_number(path: Path) -> int:
    return int(path.name.split(".")[-3])
