"""The processes of ddq as local processes, on loopback addresses of the cluster's own net."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from chaos.clusters import ClusterError
from chaos.clusters.process.launch import launch
from chaos.clusters.process.sentinel import SentinelCluster
from chaos.clusters.process.sharded import ShardedCluster
from chaos.clusters.resp import as_list, as_text
from chaos.eventually import eventually
from chaos.systems.ddq.http import ask_http
from chaos.systems.ddq.journal import open_store, write_journal
from chaos.systems.ddq.options import SystemOptions
from chaos.systems.ddq.previous_release import previous_server
from chaos.systems.ddq.process import METRICS_PORT, DdqProcess, Launcher
from chaos.systems.ddq.replicas import differing_keys
from chaos.systems.protocol import FindTarget, Observation
from ddq.client import Client
from ddq.errors import DdqError
from ddq.store.ids import unpack_id
from ddq.store.keys import ShardId

API_PORT = 50_051
_FIRST_API, _FIRST_SCHEDULER = 101, 121
_LEADER_TIMEOUT_S = 10.0
_EQUAL_TIMEOUT_S = 15.0
"""How long replicas may take to hold what their master does, once no request is under way."""
_READ_TIMEOUT_S = 10.0
_SHARDS_LED = "ddq_scheduler_shards_led"
_COUNTERS = {"ddq_scheduler_deposed_total": "deposed_batches_refused"}
"""Counters of the processes that gates are measured on, by their name in a history."""


class ProcessSystem:
    """``ddq serve`` and ``ddq scheduler`` beside a cluster of local processes; a ``System``.

    Their connections to the store come from 127.0.0.1, which no partition between nodes names: a
    process that is connected to a master stays connected while that is cut off from all others.

    Args:
        folder: where logs go.
        maps: by the name of a link (api-store, scheduler-store, client-api): address → the address
            of the proxy in front of it.
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
                f"scheduler{n + 1}",
                cluster.net.ip(_FIRST_SCHEDULER + n),
                ["scheduler"],
                " schedules, store ",
            )
            for n in range(options.schedulers)
        ]

    def _process(self, name: str, ip: str, words: Sequence[str], says: str) -> DdqProcess:
        link = "api-store" if words[0] == "serve" else "scheduler-store"
        reached = ",".join(f"{a}={b}" for a, b in self._maps.get(link, {}).items())
        # The process has a working folder of its own.
        file = (self.folder / f"{name}.failpoint").absolute()
        failpoint = file if self._options.failpoints else None
        command = [
            *self._program(name, failpoint),
            *words,
            "--store",
            self._cluster.store_url,
            "--data-nodes",
            self._cluster.data_nodes,
            # Hosts of a cluster in containers are not the loopback; what is tested is the queue.
            "--insecure",
            "--metrics-listen",
            f"{ip}:{METRICS_PORT}",
            *(["--store-address-map", reached] if reached else []),
            *self._options.flags(),
        ]
        return DdqProcess(
            name,
            ip,
            command,
            self.folder,
            says,
            self._launcher(name, ip),
            clock=self._cluster.clock(self.folder / f"{name}.clock"),
            failpoint=failpoint,
        )

    def _program(self, name: str, failpoint: Path | None) -> list[str]:
        """The command in front of ddq's arguments, for the process of this name."""
        if arguments := self._options.python(name, failpoint):
            return [sys.executable, *arguments]
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
        """Where the APIs listen, in their order."""
        return [f"{api.ip}:{API_PORT}" for api in self._apis]

    @property
    def reached_addresses(self) -> Sequence[str]:
        """Where clients reach the APIs: through proxies where there are any."""
        proxies = self._maps.get("client-api", {})
        return [proxies.get(address, address) for address in self.addresses]

    @asynccontextmanager
    async def connect(self, *, failover: bool = True) -> AsyncIterator[list[Client]]:
        """One client per API; see ``System.connect``."""
        found = list(self.reached_addresses)
        orders = [found[n:] + found[:n] if failover else [found[n]] for n in range(len(found))]
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(Client(f"ipv4:{','.join(order)}"))
                for order in orders
            ]

    @property
    def targets(self) -> Mapping[str, FindTarget]:
        """By target; of the APIs and schedulers one that is up, so that each fault has one."""
        return {"api": self._api, "scheduler": self._scheduler, "scheduler-leader": self.leader}

    async def _api(self) -> DdqProcess:
        up = (api for api in self._apis if api.alive() and not api.paused())
        return next(up, self._apis[0])

    async def _scheduler(self) -> DdqProcess:
        up = [one for one in self._schedulers if one.alive() and not one.paused()]
        return up[-1] if up else self._schedulers[-1]

    async def start(self) -> None:
        """Returns when every API serves and every scheduler schedules."""
        self.folder.mkdir(parents=True, exist_ok=True)
        starting = [*self._apis, *self._schedulers]
        if self._options.previous:
            starting = self._apis
            master = (await self._cluster.wait_for_master()).address
            for api, address in zip(self._apis, self.addresses, strict=True):
                api.previous = previous_server(address, master, self._options.leader_lease_ms)
        try:
            # All at once: containers take their time, most of it waiting.
            restarts = [process.restart() for process in starting]
            for failed in await asyncio.gather(*restarts, return_exceptions=True):
                if failed is not None:
                    raise failed
            await self.wait_until_serving()
            for one in starting:
                problem = f"{one.name} is not ready (see {one.log})"
                await eventually(one.ready, 30.0, problem, error=ClusterError)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends every process; may be called at any time, and twice."""
        for process in (*self._apis, *self._schedulers):
            await process.kill()

    async def upgrade(self, process: DdqProcess) -> None:
        """Starts one that has ended again, as this version, whatever it was before."""
        process.previous = ()
        await process.restart()

    async def accept_rollback(self) -> None:
        """``ddq store accept-rollback``."""
        command = [
            str(Path(sys.executable).parent / "ddq"),
            "store",
            "accept-rollback",
            "--yes",
            "--store",
            self._cluster.store_url,
            "--data-nodes",
            self._cluster.data_nodes,
            *self._options.flags(),
        ]
        log = self.folder / "accept-rollback.log"
        child = await launch(command, log=log, cwd=self.folder)
        if await child.wait():
            raise ClusterError(f"ddq store accept-rollback failed: {child.last_words()}")

    async def wait_until_serving(self, timeout_s: float = 30.0) -> None:
        """Waits until every API says that it serves; ClusterError if one does not in time."""
        for api, address in zip(self._apis, self.addresses, strict=True):

            async def serves(address: str = address) -> bool:
                return await _serves(address)

            problem = f"{api.name} does not serve (see {api.log})"
            await eventually(serves, timeout_s, problem, error=ClusterError)

    async def observe(self) -> Sequence[Observation]:
        """What each scheduler's metrics say now."""
        found = await asyncio.gather(*map(self.metrics, self._schedulers))
        return [
            Observation(
                process.name,
                metrics.get(_SHARDS_LED, 0.0),
                {name: metrics[key] for key, name in _COUNTERS.items() if key in metrics},
            )
            for process, metrics in zip(self._schedulers, found, strict=True)
        ]

    async def metrics(self, process: DdqProcess) -> Mapping[str, float]:
        """The metrics of a process, summed over labels; empty if it does not answer."""
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

        Between two leaders no scheduler leads, and on a busy machine none may answer in time.
        """

        async def leading() -> DdqProcess | None:
            led = [one.shards_led for one in await self.observe()]
            return self._schedulers[led.index(max(led))] if any(led) else None

        problem = "no scheduler leads a shard"
        found = await eventually(leading, _LEADER_TIMEOUT_S, problem, error=ClusterError)
        assert found is not None
        return found

    def shard_key(self, topic: str, shard: int = 0) -> str:
        """The control key of the shard."""
        return ShardId(topic, shard).key("control")

    async def stored_ids(self, topic: str) -> set[str]:
        """Ids of the payloads that the surviving master holds."""
        key = ShardId(topic, 0).key("payloads")
        if isinstance(self._cluster, ShardedCluster):
            master = await self._cluster.owner(self._cluster.slot_of(key))
        else:
            master = await self._cluster.wait_for_master()
        reply = await self._cluster.command(master, "HKEYS", key, timeout_s=_READ_TIMEOUT_S)
        return {
            unpack_id(as_text(word).encode(errors="surrogateescape")) for word in as_list(reply)
        }

    async def differing_keys(self, shards: Mapping[str, int]) -> list[str]:
        """Keys of these topics that some node of the store holds in another form."""
        found = []
        for shard in (ShardId(topic, n) for topic, count in shards.items() for n in range(count)):
            if isinstance(self._cluster, ShardedCluster):
                slot = self._cluster.slot_of(shard.key("control"))
                master = await self._cluster.owner(slot)
            else:
                master = await self._cluster.wait_for_master()
            nodes = self._cluster.group(master)
            found += await differing_keys(nodes, shard.keys, _EQUAL_TIMEOUT_S)
        return found

    async def write_journal(self, path: Path, shards: Mapping[str, int]) -> Mapping[str, list[int]]:
        """The journals of these topics, from the surviving masters."""
        async with open_store(self._cluster) as store:
            return await write_journal(path, store, shards)


async def _serves(address: str) -> bool:
    async with Client(address) as client:
        try:
            return await client.check_health(timeout_s=1.0)
        except DdqError:
            return False
