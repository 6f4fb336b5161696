"""A loss of power: what a process had written and not synchronized to the disk is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from chaos.clusters import ClusterError

_SOURCE = Path(__file__).with_name("synced.c")


def why_unavailable() -> str | None:
    """Why no power loss can be imitated here, and what would help; None if one can."""
    if sys.platform != "linux":
        return "what is on the disk is noted with LD_PRELOAD, which is Linux's"
    if _compiler() is None:
        return "the library that notes what is on the disk needs a C compiler; install gcc"
    return None


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


@dataclass(frozen=True, slots=True)
class SyncedFiles:
    """The notes of one node's process: how much of each of its files is on the disk.

    Attributes:
        folder: has a file for each inode, with a number of bytes.
        preload: the compiled library.
    """

    folder: Path
    preload: Path

    def environment(self) -> dict[str, str]:
        """Variables that the process must be started with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return {"LD_PRELOAD": str(self.preload), "DDQ_SYNCED_FOLDER": str(self.folder)}

    def cut(self, data: Path) -> int:
        """Takes away what is not on the disk, from the append-only files of a node that is down.

        Names of files count as synchronized: the server synchronizes their folder as well. A new
        file with the inode of a removed one may keep too much until it is synchronized first;
        never too little.

        Args:
            data: the folder of the node.

        Returns:
            How many bytes went.
        """
        gone = 0
        for file in (data / "appendonlydir").glob("*.aof"):
            status = file.stat()
            kept = min(status.st_size, self._synced_bytes(status.st_ino))
            os.truncate(file, kept)
            gone += status.st_size - kept
        return gone

    def _synced_bytes(self, inode: int) -> int:
        note = self.folder / str(inode)
        return int(note.read_text()) if note.exists() else 0


def compiled(folder: Path) -> Path:
    """Compiles the library into a folder, once.

    Raises:
        ClusterError: there is no compiler, or it failed.
    """
    library = folder / "synced.so"
    if library.exists():
        return library
    if why := why_unavailable():
        raise ClusterError(why)
    compiler = _compiler()
    assert compiler is not None
    command = [compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
    done = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{compiler} could not compile {_SOURCE.name}: {done.stderr.strip()}")
    return library
