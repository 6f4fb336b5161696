"""Addresses on the loopback that no other run on this machine uses at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

from chaos.clusters import ClusterError

_NETS = range(1, 255)
# 127.0.0.0/16 is where others expect to be alone: resolvers, and whoever takes 127.0.0.2.
_PREFIX = "127.77"
WATCHER = 200


def registry() -> Path:
    """Where runs of this user leave a mark while they last."""
    folder = Path(tempfile.gettempdir()) / f"ddq-chaos-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


class LoopbackNet:
    """The addresses 127.77.N.1 to .254 of one run.

    The mark is a locked file: the lock goes with the process that holds it, so a net whose file is
    there and not locked belongs to a run that died.
    """

    def __init__(self, number: int, mark: IO[str]) -> None:
        self.number = number
        self._mark = mark

    @classmethod
    def take(cls, folder: Path) -> LoopbackNet:
        """Takes a free net, and notes in the mark whose it is and where its files are.

        Raises:
            ClusterError: none is free.
        """
        # Start where another process is unlikely to look, else all fight for the first one.
        start = os.getpid() % len(_NETS)
        for number in (*_NETS[start:], *_NETS[:start]):
            mark = (registry() / f"net-{number}").open("a+")
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                mark.close()
                continue
            mark.seek(0)
            mark.truncate()
            mark.write(f"{os.getpid()}\n{folder}\n")
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
        """Gives the net back."""
        with contextlib.suppress(OSError):
            Path(self._mark.name).unlink(missing_ok=True)
        self._mark.close()
