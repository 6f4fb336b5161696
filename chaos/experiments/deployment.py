"""What a run works with: a store cluster, the system under test on it, and proxies between them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.clusters import Ability, Cluster, NotAvailableError
from chaos.clusters.process import SentinelCluster, ShardedCluster
from chaos.experiments.plan import RunPlan
from chaos.faults import FaultContext
from chaos.faults.links import GRPC_HELLO, STORE_HELLO, Link, Toxiproxy
from chaos.systems.ddq.options import SystemOptions
from chaos.systems.ddq.processes import ProcessSystem
from chaos.systems.protocol import System

DISK_BYTES = 64 * 1024 * 1024
_TOXIPROXY_LAST = 190
_Cluster = SentinelCluster | ShardedCluster
TOXIPROXY = Path(__file__).parents[2] / ".tools" / "bin" / "server"
_MUTATION_LAUNCHER = "chaos.experiments.mutants.launch"


@dataclass(frozen=True, slots=True)
class Deployment:
    """The parts of a run, started.

    Attributes:
        folder: of the run.
        context: what faults act on.
        missing: what this deployment lacks, each with the reason and the remedy.
    """

    folder: Path
    cluster: Cluster
    system: System
    context: FaultContext
    missing: list[str]


@dataclass(frozen=True, slots=True)
class Needs:
    """What an experiment needs of its deployment.

    Attributes:
        links: connections that have to go through Toxiproxy.
        sharded: a Cluster, instead of Sentinel.
        previous: processes of ddq start as the previous release.
    """

    abilities: frozenset[Ability] = frozenset()
    links: frozenset[str] = frozenset()
    sharded: bool = False
    previous: bool = False


def docker_missing() -> str | None:
    """Why runs cannot use containers here; None if they can."""
    # Late: the engine's library is slow to load, and runs in processes do without.
    from chaos.clusters.docker import why_unavailable  # noqa: PLC0415

    return why_unavailable()


def choose_backend(asked: str | None) -> tuple[str, str]:
    """Which backend to use, and a line that gives the reason."""
    if asked is not None:
        return asked, f"cluster: {asked}, as asked for"
    why = docker_missing()
    if why is None:
        return "docker", "cluster: docker, since an engine answers"
    return "process", f"cluster: local processes ({why})"


@dataclass(frozen=True, slots=True)
class _Backend:
    """How the parts of a deployment are made as processes or in containers.

    Attributes:
        sharded: None: it has no Cluster.
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
    # Connections that bind no address.
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
    """Starts everything; ends everything when the block ends, also with an error.

    Raises:
        ClusterError: a part of it did not start.
    """
    backend = _containers() if plan.cluster == "docker" else _PROCESSES
    cluster = _cluster(plan, backend, folder / "store", needs)
    mutation, mutated_process = _mutation(plan)
    options = SystemOptions(
        plan.mode,
        plan.fsync,
        leader_lease_ms=plan.leader_lease_ms,
        mutation=mutation,
        mutated_process=mutated_process,
        failpoints=Ability.FAILPOINT in needs.abilities and not mutation,
        previous=needs.previous,
    )
    (folder / "ddq").mkdir(parents=True, exist_ok=True)
    (folder / "store").mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        missing = [f"{ability}: {why}" for ability, why in cluster.unavailable.items()]
        links: dict[str, Link] = {}
        toxiproxy: Toxiproxy | None = None
        if needs.links or backend.always_proxied:
            if why := backend.why_no_toxiproxy():
                missing.append(why)
            else:
                toxiproxy = backend.toxiproxy(cluster, folder)
                stack.push_async_callback(toxiproxy.stop)
                await toxiproxy.start()
                apis = backend.system(cluster, folder / "ddq", options).addresses
                links = await _links(toxiproxy, cluster, list(apis))
        system = backend.system(
            cluster,
            folder / "ddq",
            options,
            maps={name: link.address_map for name, link in links.items()},
        )
        stack.push_async_callback(system.stop)
        await system.start()
        client_ips = backend.client_ips(system, toxiproxy)
        context = FaultContext(
            cluster,
            system.targets,
            client_ips,
            links,
            {} if options.failpoints else {Ability.FAILPOINT: "ddq was started without failpoints"},
        )
        yield Deployment(folder, cluster, system, context, missing)


def _mutation(plan: RunPlan) -> tuple[tuple[str, ...], str]:
    """The seeded mutation of ddq's processes, and of which one; not one of the client library."""
    if not plan.mutation:
        return (), ""
    # Late: a run of ddq as it is must not load its server.
    from chaos.experiments.mutants.registry import find_mutation  # noqa: PLC0415

    found = find_mutation(plan.mutation)
    return ((), "") if found.in_client else (("-m", _MUTATION_LAUNCHER, found.name), found.only)


def _cluster(plan: RunPlan, backend: _Backend, folder: Path, needs: Needs) -> _Cluster:
    options = {
        "folder": folder,
        "appendfsync": "always" if plan.fsync else "everysec",
        "clocks": Ability.CLOCK in needs.abilities,
        "power": Ability.POWER in needs.abilities,
        "disk_bytes": DISK_BYTES if Ability.FULL_DISK in needs.abilities else None,
    }
    if not needs.sharded:
        return backend.cluster(**options, down_after_ms=plan.down_after_ms)
    if backend.sharded is None:
        raise NotAvailableError("a Cluster runs as local processes only; give --cluster process")
    return backend.sharded(**options, node_timeout_ms=plan.down_after_ms)


async def _links(toxiproxy: Toxiproxy, cluster: _Cluster, apis: list[str]) -> dict[str, Link]:
    nodes = [node.address for node in cluster.nodes]
    return {
        "api-store": await toxiproxy.link("api-store", nodes, STORE_HELLO),
        "scheduler-store": await toxiproxy.link("scheduler-store", nodes, STORE_HELLO),
        "client-api": await toxiproxy.link("client-api", apis, GRPC_HELLO),
    }


__all__ = ["Deployment", "Needs", "choose_backend", "docker_missing", "open_deployment"]
