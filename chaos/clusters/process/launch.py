"""One child process that ends with this one, however that ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos.clusters import ClusterError
from ddq.child import launched


class Child:
    """A program that runs; made by ``launch``."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def stopped(self) -> bool:
        """Whether the kernel says that it is stopped by a signal."""
        return process_state(self.pid) == "T"

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; one that is gone does not mind."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        if self.alive:
            self.signal(signal.SIGKILL)
        await self._process.wait()

    async def wait(self) -> int:
        """Waits until it ends; returns its exit status."""
        return await self._process.wait()

    def last_words(self) -> str:
        """The end of its log, for an error's one line."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"{lines[-1].strip()} (see {self.log})"
        return f"see {self.log}"


async def launch(
    command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str] | None = None
) -> Child:
    """Starts a program; its output is appended to ``log``.

    Raises:
        ClusterError: there is no such program.
    """
    program = Path(command[0])
    if not os.access(program, os.X_OK):
        raise ClusterError(f"cannot run {program}: not an executable file")
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *launched(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
    return Child(process, log)


def process_state(pid: int) -> str | None:
    """The letter that /proc has for a process (R, S, T, Z …); None if it is gone."""
    try:
        # The name in parentheses may itself hold parentheses and spaces.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
