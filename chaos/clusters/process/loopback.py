"""Addresses on the loopback that no other run on this machine uses at the same time."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

from chaos.clusters import ClusterError

_NETS = range(1, 255)
# 127.0.0.0/16 is where others expect to be alone: resolvers, and programs that take 127.0.0.2.
_PREFIX = "127.77"
WATCHER = 200
_MARK_PREFIX = "net-"


def registry() -> Path:
    """Where runs of this user leave a mark while they last."""
    folder = Path(tempfile.gettempdir()) / f"ddq-chaos-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


class LoopbackNet:
    """The addresses 127.77.N.1 to .254 of one run.

    The mark is a locked file with the run's folder in it. The lock goes with the process that holds
    it, so a mark that names a folder and is not locked belongs to a run that died.
    """

    def __init__(self, number: int, mark: IO[str]) -> None:
        self.number = number
        self._mark = mark

    @classmethod
    def take(cls, folder: Path) -> LoopbackNet:
        """Takes a free net, and notes in its mark where the files of the run are.

        Raises:
            ClusterError: none is free.
        """
        # Start where another process is unlikely to look, else all fight for the first one.
        start = os.getpid() % len(_NETS)
        for number in (*_NETS[start:], *_NETS[:start]):
            mark = (registry() / f"{_MARK_PREFIX}{number}").open("a+")
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                mark.close()
                continue
            if read_mark(mark) is not None:
                # Of a run that died and has not been cleared up: its rules may still be there.
                mark.close()
                continue
            mark.write(f"{folder}\n")
            mark.flush()
            return cls(number, mark)
        raise ClusterError(f"no free loopback net below {_PREFIX}.0.0; end another chaos run first")

    def ip(self, last: int) -> str:
        """One address of the net."""
        return f"{_PREFIX}.{self.number}.{last}"

    @property
    def watcher_ip(self) -> str:
        """Where the harness speaks from, apart from every client."""
        return self.ip(WATCHER)

    def release(self) -> None:
        """Gives the net back; may be called twice."""
        if not self._mark.closed:
            # Emptied, not removed: a process that has opened it by now would lock a file that has
            # no name.
            self._mark.truncate(0)
            self._mark.close()


def marks() -> list[tuple[int, Path]]:
    """The marks that there are, in use or not."""
    paths = registry().glob(f"{_MARK_PREFIX}*")
    return [(int(path.name.removeprefix(_MARK_PREFIX)), path) for path in paths]


def read_mark(mark: IO[str]) -> Path | None:
    """The folder of the run that a mark belongs to; None if it is free."""
    mark.seek(0)
    text = mark.read().strip()
    return Path(text) if text else None
