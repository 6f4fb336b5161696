"""Where a run takes place: a store cluster, ddq's processes on it, and proxies between them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.clusters import Ability, Cluster
from chaos.clusters.process import SentinelCluster, ShardedCluster
from chaos.clusters.process.system import ProcessSystem
from chaos.faults import Victim, World
from chaos.faults.links import GRPC_HELLO, STORE_HELLO, Link, Toxiproxy
from chaos.plan import RunPlan
from chaos.system import System, SystemOptions

DISK_BYTES = 64 * 1024 * 1024
_TOXIPROXY_LAST = 190
TOXIPROXY = Path(__file__).parent.parent / ".tools" / "bin" / "server"


@dataclass(frozen=True, slots=True)
class Place:
    """What a run has to work with.

    Attributes:
        folder: of the run.
        addresses: where clients reach the APIs.
        missing: what this place lacks, each with the reason and the remedy.
    """

    folder: Path
    cluster: Cluster
    system: System
    world: World
    addresses: list[str]
    missing: list[str]


def docker_missing() -> str | None:
    """Why runs cannot take place in containers here; None if they can."""
    return "the container cluster is not part of this version"


def choose(asked: str | None) -> tuple[str, str]:
    """Which kind of cluster to take, and a line that says why."""
    if asked is not None:
        return asked, f"cluster: {asked}, as asked for"
    why = docker_missing()
    if why is None:
        return "docker", "cluster: docker, since an engine answers"
    return "process", f"cluster: local processes ({why})"


@dataclass(frozen=True, slots=True)
class Needs:
    """What faults need of a place.

    Attributes:
        links: that have to go through Toxiproxy.
        sharded: a Cluster, instead of Sentinel.
    """

    abilities: frozenset[Ability] = frozenset()
    links: frozenset[str] = frozenset()
    sharded: bool = False


@contextlib.asynccontextmanager
async def open_place(plan: RunPlan, folder: Path, needs: Needs) -> AsyncIterator[Place]:
    """Starts everything; ends everything when the block does, however it does."""
    async with _process_place(plan, folder, needs) as place:
        yield place


def _cluster(plan: RunPlan, folder: Path, needs: Needs) -> SentinelCluster | ShardedCluster:
    clocks = Ability.CLOCK in needs.abilities
    disk_bytes = DISK_BYTES if Ability.FULL_DISK in needs.abilities else None
    appendfsync = "always" if plan.fsync else "everysec"
    if needs.sharded:
        return ShardedCluster(
            folder=folder, node_timeout_ms=plan.down_after_ms, appendfsync=appendfsync,
            clocks=clocks, disk_bytes=disk_bytes,
        )  # fmt: skip
    return SentinelCluster(
        folder=folder, down_after_ms=plan.down_after_ms, appendfsync=appendfsync,
        clocks=clocks, disk_bytes=disk_bytes,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def _process_place(plan: RunPlan, folder: Path, needs: Needs) -> AsyncIterator[Place]:
    cluster = _cluster(plan, folder / "store", needs)
    options = SystemOptions(
        plan.mode, plan.fsync, leader_lease_ms=plan.leader_lease_ms, bug=plan.bug
    )
    (folder / "ddq").mkdir(parents=True, exist_ok=True)
    (folder / "store").mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        missing = [f"{ability}: {why}" for ability, why in cluster.unavailable.items()]
        links: dict[str, Link] = {}
        if needs.links and not TOXIPROXY.exists():
            missing.append(
                f"Toxiproxy: {TOXIPROXY} is not there; `tools/gotool.sh server` builds it"
            )
        elif needs.links:
            links = await _links(stack, cluster, folder, options)
        system = ProcessSystem(
            cluster, folder / "ddq", options,
            maps={name: link.address_map for name, link in links.items()},
        )  # fmt: skip
        stack.push_async_callback(system.stop)
        await system.start()
        reached = links["client-api"].address_map if links else {}
        addresses = [reached.get(address, address) for address in system.addresses]
        world = World(cluster, _victims(system), links=links)
        yield Place(folder, cluster, system, world, addresses, missing)


async def _links(
    stack: contextlib.AsyncExitStack,
    cluster: SentinelCluster | ShardedCluster,
    folder: Path,
    options: SystemOptions,
) -> dict[str, Link]:
    toxiproxy = Toxiproxy(TOXIPROXY, cluster.net.ip(_TOXIPROXY_LAST), folder)
    stack.push_async_callback(toxiproxy.stop)
    await toxiproxy.start()
    nodes = [node.address for node in cluster.nodes]
    apis = list(ProcessSystem(cluster, folder, options).addresses)
    return {
        "api-store": await toxiproxy.link("api-store", nodes, STORE_HELLO),
        "scheduler-store": await toxiproxy.link("scheduler-store", nodes, STORE_HELLO),
        "client-api": await toxiproxy.link("client-api", apis, GRPC_HELLO),
    }


def _victims(system: System) -> dict[str, Callable[[], Awaitable[Victim]]]:
    """By target; of the APIs and schedulers the first that is up, so that each fault has one."""

    async def api() -> Victim:
        return next(
            (one for one in system.apis if one.alive() and not one.paused()), system.apis[0]
        )

    async def scheduler() -> Victim:
        up = [one for one in system.schedulers if one.alive() and not one.paused()]
        return up[-1] if up else system.schedulers[-1]

    async def leader() -> Victim:
        return await system.leader()

    return {"api": api, "scheduler": scheduler, "scheduler-leader": leader}


__all__ = ["Needs", "Place", "choose", "docker_missing", "open_place"]
