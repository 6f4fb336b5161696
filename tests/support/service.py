"""A process of ddq that faults can hit: a server, a scheduler, a worker."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos.clusters import ClusterError
from chaos.clusters.process.launch import Child, launch

_STOP_TIMEOUT_S = 5.0
_POLL_S = 0.005


class Service:
    """One command, started as often as need be; it ends with this process.

    Args:
        name: for the history: ``scheduler-2``.
        command: program and arguments.
        folder: where it runs, and where its log is.
        env: beside what this process has.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = list(command)
        self._folder = folder
        self._env = dict(env or {})
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        """Its present process; ClusterError if it was never started."""
        if self._child is None:
            raise ClusterError(f"{self.name} was never started")
        return self._child

    async def start(self) -> None:
        """Starts it; the caller knows how to check that it is ready."""
        if self.alive():
            raise ClusterError(f"{self.name} runs already")
        self._child = await launch(self._command, log=self.log, cwd=self._folder, env=self._env)

    async def restart(self) -> None:
        """Starts it again."""
        await self.start()

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        await self.child.kill()

    async def terminate(self) -> int:
        """SIGTERM, and waits until it has drained; returns its exit status."""
        self.child.signal(signal.SIGTERM)
        return await self.child.wait()

    async def pause(self) -> None:
        """SIGSTOP; returns when the kernel has stopped it."""
        self.child.signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                while not self.paused():  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise ClusterError(f"{self.name} does not stop") from None

    async def resume(self) -> None:
        """SIGCONT."""
        self.child.signal(signal.SIGCONT)

    def alive(self) -> bool:
        """Whether its process exists."""
        return self._child is not None and self._child.alive

    def paused(self) -> bool:
        """Whether the kernel says that it is stopped."""
        return self.alive() and self.child.stopped
