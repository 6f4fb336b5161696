"""Where a run takes place: a store cluster, ddq's processes on it, and proxies between them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.clusters import Ability, Cluster, NotAvailableError
from chaos.clusters.process import SentinelCluster, ShardedCluster
from chaos.experiments.plan import RunPlan
from chaos.faults import FaultContext, Target
from chaos.faults.links import GRPC_HELLO, STORE_HELLO, Link, Toxiproxy
from chaos.systems.ddq.processes import ProcessSystem
from chaos.systems.protocol import System, SystemOptions

DISK_BYTES = 64 * 1024 * 1024
_TOXIPROXY_LAST = 190
_Cluster = SentinelCluster | ShardedCluster
TOXIPROXY = Path(__file__).parents[2] / ".tools" / "bin" / "server"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a run has to work with.

    Attributes:
        folder: of the run.
        addresses: where clients reach the APIs.
        missing: what this place lacks, each with the reason and the remedy.
    """

    folder: Path
    cluster: Cluster
    system: System
    context: FaultContext
    addresses: list[str]
    missing: list[str]


def docker_missing() -> str | None:
    """Why runs cannot take place in containers here; None if they can."""
    # Late: the engine's library is slow to load, and runs in processes do without.
    from chaos.clusters.docker import why_unavailable  # noqa: PLC0415

    return why_unavailable()


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
        earlier: processes of ddq start as the release before this one.
    """

    abilities: frozenset[Ability] = frozenset()
    links: frozenset[str] = frozenset()
    sharded: bool = False
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class _Backend:
    """How the parts of a place are made on one kind of cluster.

    Attributes:
        always_proxied: whether connections go through Toxiproxy when no fault of the run needs it.
        client_ips: where the store sees ddq come from, with Toxiproxy between them or without.
    """

    cluster: Callable[..., _Cluster]
    sharded: Callable[..., _Cluster] | None
    toxiproxy: Callable[[_Cluster, Path], Toxiproxy]
    why_no_toxiproxy: Callable[[], str | None]
    system: Callable[..., ProcessSystem]
    client_ips: Callable[[ProcessSystem, Toxiproxy | None], list[str]]
    always_proxied: bool = False


def _why_no_toxiproxy() -> str | None:
    if TOXIPROXY.exists():
        return None
    return f"Toxiproxy: {TOXIPROXY} is not there; `tools/gotool.sh server` builds it"


_PROCESSES = _Backend(
    cluster=SentinelCluster,
    sharded=ShardedCluster,
    toxiproxy=lambda cluster, folder: Toxiproxy(TOXIPROXY, cluster.net.ip(_TOXIPROXY_LAST), folder),
    why_no_toxiproxy=_why_no_toxiproxy,
    system=ProcessSystem,
    # Of those who bind no address.
    client_ips=lambda system, toxiproxy: ["127.0.0.1"],  # noqa: ARG005
)


def _containers() -> _Backend:
    from chaos.clusters.docker import DockerCluster  # noqa: PLC0415
    from chaos.systems.ddq.containers import DockerSystem, DockerToxiproxy  # noqa: PLC0415

    def toxiproxy(cluster: _Cluster, folder: Path) -> DockerToxiproxy:
        assert isinstance(cluster, DockerCluster)
        return DockerToxiproxy(cluster, folder)

    def client_ips(system: ProcessSystem, toxiproxy: Toxiproxy | None) -> list[str]:
        assert isinstance(system, DockerSystem)
        return [toxiproxy.ip] if isinstance(toxiproxy, DockerToxiproxy) else system.ips

    return _Backend(
        cluster=DockerCluster,
        sharded=None,
        toxiproxy=toxiproxy,
        why_no_toxiproxy=lambda: None,
        system=DockerSystem,
        client_ips=client_ips,
        always_proxied=True,
    )


@contextlib.asynccontextmanager
async def open_deployment(plan: RunPlan, folder: Path, needs: Needs) -> AsyncIterator[Deployment]:
    """Starts everything; ends everything when the block does, however it does."""
    ground = _containers() if plan.cluster == "docker" else _PROCESSES
    cluster = _cluster(plan, ground, folder / "store", needs)
    bug, bug_process = _server_bug(plan)
    options = SystemOptions(
        plan.mode, plan.fsync, leader_lease_ms=plan.leader_lease_ms, bug=bug,
        bug_process=bug_process, earlier=needs.earlier,
    )  # fmt: skip
    (folder / "ddq").mkdir(parents=True, exist_ok=True)
    (folder / "store").mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        missing = [f"{ability}: {why}" for ability, why in cluster.unavailable.items()]
        links: dict[str, Link] = {}
        toxiproxy: Toxiproxy | None = None
        if needs.links or ground.always_proxied:
            if why := ground.why_no_toxiproxy():
                missing.append(why)
            else:
                toxiproxy = ground.toxiproxy(cluster, folder)
                stack.push_async_callback(toxiproxy.stop)
                await toxiproxy.start()
                apis = ground.system(cluster, folder / "ddq", options).addresses
                links = await _links(toxiproxy, cluster, list(apis))
        system = ground.system(
            cluster, folder / "ddq", options,
            maps={name: link.address_map for name, link in links.items()},
        )  # fmt: skip
        stack.push_async_callback(system.stop)
        await system.start()
        reached = links["client-api"].address_map if links else {}
        addresses = [reached.get(address, address) for address in system.addresses]
        client_ips = ground.client_ips(system, toxiproxy)
        context = FaultContext(cluster, _victims(system), client_ips, links)
        yield Deployment(folder, cluster, system, context, addresses, missing)


def _server_bug(plan: RunPlan) -> tuple[str, str]:
    """The planted bug of the processes of ddq, and of which one; clients' bugs are not theirs."""
    if not plan.bug:
        return "", ""
    # Late: who runs ddq as it is must not load its server.
    from chaos.experiments.mutants.registry import bug  # noqa: PLC0415

    planted = bug(plan.bug)
    return ("", "") if planted.in_client else (planted.name, planted.only)


def _cluster(plan: RunPlan, ground: _Backend, folder: Path, needs: Needs) -> _Cluster:
    options = {
        "folder": folder,
        "appendfsync": "always" if plan.fsync else "everysec",
        "clocks": Ability.CLOCK in needs.abilities,
        "disk_bytes": DISK_BYTES if Ability.FULL_DISK in needs.abilities else None,
    }
    if not needs.sharded:
        return ground.cluster(**options, down_after_ms=plan.down_after_ms)
    if ground.sharded is None:
        raise NotAvailableError("a Cluster runs as local processes only; give --cluster process")
    return ground.sharded(**options, node_timeout_ms=plan.down_after_ms)


async def _links(toxiproxy: Toxiproxy, cluster: _Cluster, apis: list[str]) -> dict[str, Link]:
    nodes = [node.address for node in cluster.nodes]
    return {
        "api-store": await toxiproxy.link("api-store", nodes, STORE_HELLO),
        "scheduler-store": await toxiproxy.link("scheduler-store", nodes, STORE_HELLO),
        "client-api": await toxiproxy.link("client-api", apis, GRPC_HELLO),
    }


def _victims(system: System) -> dict[str, Callable[[], Awaitable[Target]]]:
    """By target; of the APIs and schedulers the first that is up, so that each fault has one."""

    async def api() -> Target:
        return next(
            (one for one in system.apis if one.alive() and not one.paused()), system.apis[0]
        )

    async def scheduler() -> Target:
        up = [one for one in system.schedulers if one.alive() and not one.paused()]
        return up[-1] if up else system.schedulers[-1]

    async def leader() -> Target:
        return await system.leader()

    return {"api": api, "scheduler": scheduler, "scheduler-leader": leader}


__all__ = ["Deployment", "Needs", "choose", "docker_missing", "open_deployment"]
