"""One process of ddq, as a target of faults."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from chaos.clusters import Ability, ClusterError, NotAvailableError
from chaos.clusters.process.fakeclock import FakeClock
from chaos.clusters.process.launch import Child, launch
from chaos.eventually import eventually
from chaos.systems.ddq.http import ask_http, offset_ms

METRICS_PORT = 9_100
_RESTART_PAUSE_S = 0.5


class Launcher(Protocol):
    """Starts a program; see ``launch``."""

    async def __call__(
        self, command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str] | None = None
    ) -> Child: ...


@dataclass(eq=False, slots=True)
class DdqProcess:
    """One process of ddq; a ``Target``, and ``Clocked``.

    As under any supervisor, one that ends by itself is started again: ddq does not start while the
    store is away.

    Attributes:
        command: starts it, the same each time.
        says: words in its log that show that it is ready.
        previous: starts it instead, until it is upgraded: the previous release.
        launcher: what starts it.
        clock: its own one, if it can be shifted.
        failpoint: a file that names the point at which it is to die; see failpoints.py.
        ended_count: how often it has ended by itself and been started again.
    """

    name: str
    ip: str
    command: Sequence[str]
    folder: Path
    says: str
    launcher: Launcher = launch
    previous: Sequence[str] = ()
    clock: FakeClock | None = None
    failpoint: Path | None = None
    ended_count: int = 0
    _child: Child | None = field(default=None)
    _keeper: asyncio.Task[None] | None = field(default=None)
    _log_start: int = 0

    @property
    def log(self) -> Path:
        """Its output since the first start."""
        return self.folder / f"{self.name}.log"

    async def restart(self) -> None:
        """Starts it; returns when it was started, not when it is ready."""
        if self.alive():
            raise ClusterError(f"{self.name} runs; kill it before it is started again")
        child = await self._launch()
        self._keeper = asyncio.create_task(self._keep(child), name=f"chaos keeps {self.name}")

    async def _launch(self) -> Child:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._child = await self.launcher(
            self.previous or self.command,
            log=self.log,
            cwd=self.folder,
            env={"GRPC_VERBOSITY": "NONE", **(self.clock.environment() if self.clock else {})},
        )
        return self._child

    async def _keep(self, child: Child) -> None:
        while True:
            await child.wait()
            await asyncio.sleep(_RESTART_PAUSE_S)
            child = await self._launch()
            self.ended_count += 1

    async def _stop_keeping(self) -> None:
        """From now on it is not started again when it ends."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    def ready(self) -> bool:
        """Whether it has said so since its last start."""
        if not self.alive():
            return False
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return self.says.encode() in log.read()

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        await self._stop_keeping()
        if self._child is not None:
            await self._child.kill()

    async def terminate(self) -> None:
        """SIGTERM; returns when it has ended."""
        await self._stop_keeping()
        if self._child is not None:
            self._child.signal(signal.SIGTERM)
            await self._child.wait()

    async def pause(self) -> None:
        """SIGSTOP; returns when the kernel has stopped it."""
        if self._child is None or not self._child.alive:
            raise ClusterError(f"{self.name} is down and cannot be stopped")
        self._child.signal(signal.SIGSTOP)
        child = self._child
        await eventually(lambda: child.stopped or not child.alive, None, poll_s=0.001)

    async def resume(self) -> None:
        """SIGCONT."""
        if self._child is not None:
            self._child.signal(signal.SIGCONT)

    def alive(self) -> bool:
        """Whether its process exists."""
        return self._child is not None and self._child.alive

    def paused(self) -> bool:
        """Whether the kernel says that it is stopped."""
        return self.alive() and self._child is not None and self._child.stopped

    def set_failpoint(self, failpoint: str) -> None:
        """The next time that it gets to this point it dies; "": it does not."""
        if self.failpoint is None:
            raise NotAvailableError(f"{Ability.FAILPOINT}: {self.name} was started without any")
        if not failpoint:
            self.failpoint.unlink(missing_ok=True)
            return
        fresh = self.failpoint.with_suffix(".new")
        fresh.write_text(failpoint)
        # Never half a name.
        fresh.replace(self.failpoint)

    async def shift_clock(self, offset_ms: int) -> None:
        """Sets its clock so far from the true one; it sees it within a second."""
        if self.clock is None:
            raise NotAvailableError(f"{Ability.CLOCK}: {self.name} has no clock of its own")
        self.clock.shift(offset_ms)

    async def clock_offset_ms(self) -> int:
        """How far its clock is from the true one, by the Date of its answers."""

        async def date_ms() -> int:
            return (await ask_http(self.ip, METRICS_PORT, "/metrics")).date_ms

        return await offset_ms(date_ms)


__all__ = ["METRICS_PORT", "DdqProcess", "Launcher"]
