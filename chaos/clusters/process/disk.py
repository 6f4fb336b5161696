"""What a data node has on disk, damaged."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from chaos.clusters import ClusterError

FILLER = "filler"


def why_not_small() -> str | None:
    """Why no disk can be run full here, and what would help; None if one can."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "a small disk is a tmpfs of its own, and mounting one needs root; run this as root"
    return None


def empty(folder: Path) -> None:
    """Removes every file of data; configurations stay."""
    shutil.rmtree(folder / "appendonlydir", ignore_errors=True)
    for dump in folder.glob("*.rdb"):
        dump.unlink()


def truncate_tail(folder: Path, tail_bytes: int) -> int:
    """Cuts so many bytes off the append-only file, as a power loss does; returns how many went."""
    part = _newest_part(folder)
    size = part.stat().st_size
    gone = min(size, tail_bytes)
    os.truncate(part, size - gone)
    return gone


def spoil_middle(folder: Path, middle_bytes: int) -> int:
    """Writes zeros over the middle of the append-only file; returns over how many bytes.

    More than one command is long, so that the server cannot take them for a value.
    """
    part = _newest_part(folder)
    size = part.stat().st_size
    spoilt = min(size // 2, middle_bytes)
    with part.open("r+b") as file:
        file.seek((size - spoilt) // 2)
        file.write(bytes(spoilt))
    return spoilt


def _newest_part(folder: Path) -> Path:
    """Where the writes go; a resync begins a new part."""
    parts = sorted((folder / "appendonlydir").glob("*.incr.aof"), key=_part_number)
    if not parts:
        raise ClusterError(f"{folder} has no append-only file to damage")
    return parts[-1]


def mount_small(folder: Path, size_bytes: int) -> None:
    """Puts a file system of this size, in memory, at a folder."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "ddq-chaos", str(folder)],
        check=True,
    )


def unmount(folder: Path) -> None:
    """Takes it away again, also while a process has a file in it open."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Writes until there is no room for another byte."""
    chunk = bytes(65_536)
    with contextlib.suppress(OSError), (folder / FILLER).open("ab", buffering=0) as filler:
        while True:
            filler.write(chunk)


def free(folder: Path) -> None:
    """Gives back what ``fill`` took."""
    (folder / FILLER).unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """How much more a file system takes."""
    return shutil.disk_usage(folder).free


def _part_number(path: Path) -> int:
    return int(path.name.split(".")[-3])
