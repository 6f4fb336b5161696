"""The processes of ddq as local processes, on loopback addresses of the cluster's own net."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from prometheus_client.parser import text_string_to_metric_families

from chaos.clusters import Ability, ClusterError, NotAvailableError
from chaos.clusters.process.fakeclock import FakeClock
from chaos.clusters.process.launch import Child, launch
from chaos.clusters.process.sentinel import SentinelCluster
from chaos.clusters.process.sharded import ShardedCluster
from chaos.faults.model import Target
from chaos.systems.ddq.http import ask_http, offset_ms
from chaos.systems.ddq.previous_release import previous_server
from chaos.systems.protocol import SystemOptions
from ddq.client import Client
from ddq.errors import DdqError

API_PORT = 50_051
METRICS_PORT = 9_100
_FIRST_API, _FIRST_SCHEDULER = 101, 121
_POLL_S = 0.05
_RESTART_PAUSE_S = 0.5
_LEADER_TIMEOUT_S = 10.0


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
        earlier: starts it instead, until it is upgraded: the release before this one.
        says: words in its log that tell that it is ready.
        launcher: what starts it.
        clock: its own one, if it can be shifted.
    """

    name: str
    ip: str
    command: Sequence[str]
    folder: Path
    says: str
    launcher: Launcher = launch
    earlier: Sequence[str] = ()
    clock: FakeClock | None = None
    _child: Child | None = field(default=None)
    _keeper: asyncio.Task[None] | None = field(default=None)
    _log_start: int = 0

    @property
    def log(self) -> Path:
        """What it says, of all its lives."""
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
            self.earlier or self.command, log=self.log, cwd=self.folder,
            env={"GRPC_VERBOSITY": "NONE", **(self.clock.environment() if self.clock else {})},
        )  # fmt: skip
        return self._child

    async def _keep(self, child: Child) -> None:
        while True:
            await child.wait()
            await asyncio.sleep(_RESTART_PAUSE_S)
            child = await self._launch()

    async def _let_go(self) -> None:
        """It may end now."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    def ready(self) -> bool:
        """Whether it has said so in this life."""
        if not self.alive():
            return False
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return self.says.encode() in log.read()

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        await self._let_go()
        if self._child is not None:
            await self._child.kill()

    async def terminate(self) -> None:
        """SIGTERM; returns when it has ended."""
        await self._let_go()
        if self._child is not None:
            self._child.signal(signal.SIGTERM)
            await self._child.wait()

    async def pause(self) -> None:
        """SIGSTOP; returns when the kernel has stopped it."""
        if self._child is None or not self._child.alive:
            raise ClusterError(f"{self.name} is down and cannot be stopped")
        self._child.signal(signal.SIGSTOP)
        child = self._child
        while child.alive and not child.stopped:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)

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


class ProcessSystem:
    """``ddq serve`` and ``ddq scheduler`` beside a cluster of local processes; a ``System``.

    Their connections to the store come from 127.0.0.1, which no partition between nodes names: who
    speaks to a master goes on speaking to it while that is cut off from all others.

    Args:
        folder: where logs go.
        maps: by the name of a link (api-store, scheduler-store), through which addresses its
            proxies let one reach others.
    """

    def __init__(
        self,
        cluster: SentinelCluster | ShardedCluster,
        folder: Path,
        options: SystemOptions,
        *,
        maps: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.folder = folder
        self._cluster = cluster
        self._options = options
        self._maps = maps or {}
        self._apis = [
            self._process(
                f"api{n + 1}",
                cluster.net.ip(_FIRST_API + n),
                ["serve", "--listen", f"{cluster.net.ip(_FIRST_API + n)}:{API_PORT}"],
                " on ",
            )
            for n in range(options.apis)
        ]
        self._schedulers = [
            self._process(
                f"scheduler{n + 1}", cluster.net.ip(_FIRST_SCHEDULER + n), ["scheduler"],
                " schedules, store ",
            )
            for n in range(options.schedulers)
        ]  # fmt: skip

    def _process(self, name: str, ip: str, words: Sequence[str], says: str) -> DdqProcess:
        link = "api-store" if words[0] == "serve" else "scheduler-store"
        reached = ",".join(f"{a}={b}" for a, b in self._maps.get(link, {}).items())
        command = [
            *self._program(name), *words,
            "--store", self._cluster.store_url,
            "--data-nodes", self._cluster.data_nodes,
            "--metrics-listen", f"{ip}:{METRICS_PORT}",
            *(["--store-address-map", reached] if reached else []),
            *self._options.flags(),
        ]  # fmt: skip
        return DdqProcess(
            name, ip, command, self.folder, says, self._launcher(name, ip),
            clock=self._cluster.clock(self.folder / f"{name}.clock"),
        )  # fmt: skip

    def _program(self, name: str) -> list[str]:
        """The command behind which the words of ddq come, for the process of this name."""
        if self._options.bug_of(name):
            return [sys.executable, "-m", "chaos.experiments.mutants.launch", self._options.bug]
        return [str(Path(sys.executable).parent / "ddq")]

    def _launcher(self, name: str, ip: str) -> Launcher:  # noqa: ARG002
        """What starts the process of this name and address."""
        return launch

    @property
    def apis(self) -> Sequence[DdqProcess]:
        """Those of ``ddq serve``."""
        return self._apis

    @property
    def schedulers(self) -> Sequence[DdqProcess]:
        """Those of ``ddq scheduler``."""
        return self._schedulers

    @property
    def addresses(self) -> Sequence[str]:
        """Where the APIs are reached."""
        return [f"{api.ip}:{API_PORT}" for api in self._apis]

    async def start(self) -> None:
        """Returns when every API serves and every scheduler schedules."""
        self.folder.mkdir(parents=True, exist_ok=True)
        starting = [*self._apis, *self._schedulers]
        if self._options.earlier:
            starting = self._apis
            master = (await self._cluster.wait_for_master()).address
            for api, address in zip(self._apis, self.addresses, strict=True):
                api.earlier = previous_server(address, master, self._options.leader_lease_ms)
        try:
            # All at once: containers take their time, most of it waiting.
            restarts = [process.restart() for process in starting]
            for failed in await asyncio.gather(*restarts, return_exceptions=True):
                if failed is not None:
                    raise failed
            await self.wait_until_serving()
            for one in starting:
                await self._until(one.ready, f"{one.name} is not ready (see {one.log})")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends every process; may be called at any time, and twice."""
        for process in (*self._apis, *self._schedulers):
            await process.kill()

    async def terminate(self, process: Target) -> None:
        """SIGTERM; returns when it has ended by itself."""
        assert isinstance(process, DdqProcess)
        await process.terminate()

    async def upgrade(self, process: Target) -> None:
        """Starts one that has ended again, as this version, whatever it was before."""
        assert isinstance(process, DdqProcess)
        process.earlier = ()
        await process.restart()

    async def accept_rollback(self) -> None:
        """``ddq store accept-rollback``."""
        command = [
            str(Path(sys.executable).parent / "ddq"), "store", "accept-rollback", "--yes",
            "--store", self._cluster.store_url, "--data-nodes", self._cluster.data_nodes,
            *self._options.flags(),
        ]  # fmt: skip
        log = self.folder / "accept-rollback.log"
        child = await launch(command, log=log, cwd=self.folder)
        if await child.wait():
            raise ClusterError(f"ddq store accept-rollback failed: {child.last_words()}")

    async def wait_until_serving(self, timeout_s: float = 30.0) -> None:
        """Waits until every API says that it serves; ClusterError if one does not in time."""
        for api, address in zip(self._apis, self.addresses, strict=True):

            async def serves(address: str = address) -> bool:
                return await _serves(address)

            await self._until(serves, f"{api.name} does not serve (see {api.log})", timeout_s)

    async def _until(
        self,
        condition: Callable[[], Awaitable[bool] | bool],
        otherwise: str,
        timeout_s: float = 30.0,
    ) -> None:
        end_s = time.monotonic() + timeout_s
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            if time.monotonic() > end_s:
                raise ClusterError(f"{otherwise} within {timeout_s:g} s")
            await asyncio.sleep(_POLL_S)

    async def metrics(self, process: Target) -> Mapping[str, float]:
        """What a process tells Prometheus, summed over labels; empty if it does not answer."""
        assert isinstance(process, DdqProcess)
        if not process.alive() or process.paused():
            return {}
        try:
            text = (await ask_http(process.ip, METRICS_PORT, "/metrics")).body
        except OSError:
            return {}
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    async def leader(self) -> DdqProcess:
        """The scheduler that leads most shards; ClusterError if none leads any for seconds.

        Between two leaders nobody leads, and on a busy machine nobody may say so in time.
        """
        found: list[DdqProcess] = []

        async def somebody_leads() -> bool:
            said = await asyncio.gather(*map(self.metrics, self._schedulers))
            led = [metrics.get("ddq_scheduler_shards_led", 0.0) for metrics in said]
            if most := max(led):
                found.append(self._schedulers[led.index(most)])
            return bool(found)

        await self._until(somebody_leads, "no scheduler leads a shard", _LEADER_TIMEOUT_S)
        return found[0]


async def _serves(address: str) -> bool:
    async with Client(address) as client:
        try:
            return await client.check_health(timeout_s=1.0)
        except DdqError:
            return False
