"""How late this machine's own timers are, measured beside a run by a process of its own.

A promise of 250 ms cannot be judged on a machine that lets a process wait for 200 ms: what it adds
by itself is measured, said, and added to the bound.
"""

from __future__ import annotations

import contextlib
import sys
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

from chaos.clusters.process.launch import launch

HOPS = 3
"""Processes that a promotion waits for to be run: scheduler, store, and the scheduler again."""
_PERIOD_S = 0.01
_PROBE = f"""
import array, sys, time
with open(sys.argv[1], "wb", buffering=0) as out:
    late = array.array("d")
    while True:
        due = time.monotonic() + {_PERIOD_S}
        time.sleep({_PERIOD_S})
        late.append(time.monotonic() - due)
        if len(late) == 100:
            out.write(late.tobytes())
            del late[:]
"""


class Timers:
    """What the probe has measured so far."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def late_ms(self) -> float:
        """At most, since every task has to keep the bound; 0 if there is nothing yet."""
        late = array("d")
        data = self._path.read_bytes() if self._path.exists() else b""
        late.frombytes(data[: len(data) // late.itemsize * late.itemsize])
        return round(max(0.0, max(late, default=0.0) * 1_000), 1)


@contextlib.asynccontextmanager
async def timers(folder: Path) -> AsyncIterator[Timers]:
    """Measures until the block ends."""
    path = folder / "timers.bin"
    command = [sys.executable, "-I", "-S", "-c", _PROBE, path.name]
    child = await launch(command, log=folder / "timers.log", cwd=folder)
    try:
        yield Timers(path)
    finally:
        await child.kill()


__all__ = ["HOPS", "Timers", "timers"]
