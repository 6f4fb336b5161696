"""What the store has to be set to, so that a confirmed write is where it is said to be.

Looked at when a process starts, and again every two minutes: each finding says what is set, why
that breaks a promise, and what to do. Where the server's durability is FAST, or the checks are
switched off, a finding is a warning; else a process does not start with it, and one that runs is
unhealthy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import redis.exceptions

from ddq.config import MS_PER_SECOND, Settings
from ddq.errors import StoreUnreachable
from ddq.store.barrier import DataNodes, Timing
from ddq.store.connection import Command, NotSentError, Reply, ReplyLostError
from ddq.store.topology import (
    Node,
    SentinelSettings,
    Topology,
    importing_slots,
    info_fields,
)

UNKNOWN_COMMAND = "unknown command"
FAILOVER_TIMEOUT_MAX_MS = 60_000
MAX_LAG_S = 2
SENTINELS_MIN_COUNT = 3
_ASKED = (
    "appendonly",
    "appendfsync",
    "maxmemory-policy",
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "repl-diskless-sync-delay",
    "replica-priority",
    "cluster-node-timeout",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One setting that breaks a promise.

    Attributes:
        where: the node, Sentinel or setting of ddq.
    """

    where: str
    found: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.found}; {self.why}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Examination:
    """The findings of one check of the store.

    Attributes:
        down_after_ms: the shortest silence after which the store replaces a master, of all nodes
            and Sentinels that were asked; None where a master is never replaced.
        unreachable: nodes that could not be asked, which is not for these checks to judge.
    """

    findings: tuple[Finding, ...]
    down_after_ms: int | None
    unreachable: tuple[str, ...] = ()

    def timing(self, settings: Settings) -> Timing | None:
        """The barrier's timing by what the store says; None if it does not say."""
        known_ms = [each for each in (settings.down_after_ms, self.down_after_ms) if each]
        return Timing.of(min(known_ms) / MS_PER_SECOND) if known_ms else None


async def examine(
    topology: Topology, nodes: DataNodes, settings: Settings, deadline_s: float
) -> Examination:
    """Asks every data node and Sentinel for its settings.

    Raises:
        StoreUnreachable: no master can be asked.
    """
    findings: list[Finding] = []
    unreachable: list[str] = []
    sentinels = await topology.sentinel_settings(deadline_s)
    # The smallest: two Sentinels of three may replace the master, whatever the third one waits for.
    silences_ms = [each.down_after_ms for each in sentinels]
    findings += _of_sentinels(sentinels)
    for master in await topology.masters(deadline_s):
        election = await topology.elections(master, deadline_s)
        findings += _of_questions(sentinels, election.missing)
        if settings.fsync:
            findings += await _of_fsync(topology, master, deadline_s)
        replicas = [each.node for each in await topology.replicas(master, deadline_s)]
        attached = await _attached(topology, master, deadline_s)
        findings += _of_replicas(master, attached, nodes, settings)
        if topology.kind == "cluster" and (slots := await _arriving(topology, master, deadline_s)):
            good_count = await _good_replicas(topology, master, deadline_s)
            findings += _of_arriving(master, slots, good_count, nodes)
        priorities: dict[Node, str] = {}
        for node in (master, *replicas):
            try:
                config = await _config(topology, node, deadline_s)
            except StoreUnreachable as error:
                if node == master:
                    raise
                unreachable.append(str(error))
                continue
            if not config:
                findings.append(_no_config(node))
                continue
            findings += _of_node(node, config, nodes, settings)
            priorities[node] = config.get("replica-priority", "")
            if topology.kind == "cluster":
                silences_ms.append(int(config["cluster-node-timeout"]))
        findings += _of_priorities(priorities)
    return Examination(tuple(findings), min(silences_ms, default=None), tuple(unreachable))


# Asking ------------------------------------------------------------------------------------


async def _ask(topology: Topology, node: Node, command: Command, deadline_s: float) -> Reply:
    connection = topology.look_at(node)
    try:
        timeout_s = max(0.001, deadline_s - asyncio.get_running_loop().time())
        (reply,) = await connection.send([command], timeout_s)
        return reply
    except (NotSentError, ReplyLostError) as error:
        raise StoreUnreachable(f"{node} does not say how it is set: {error}") from error
    finally:
        await connection.close()


async def _config(topology: Topology, node: Node, deadline_s: float) -> dict[str, str]:
    """The settings of a node; empty if it does not let itself be asked."""
    reply = await _ask(topology, node, ("CONFIG", "GET", *_ASKED), deadline_s)
    if isinstance(reply, redis.exceptions.RedisError):
        return {}
    words = [word.decode() for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))


async def _attached(topology: Topology, master: Node, deadline_s: float) -> frozenset[Node]:
    role = await _ask(topology, master, ("ROLE",), deadline_s)
    if not isinstance(role, list) or role[0] != b"master":
        raise StoreUnreachable(f"{master} was demoted")
    return frozenset(Node(host.decode(), int(port)) for host, port, _ in role[2])


async def _arriving(topology: Topology, master: Node, deadline_s: float) -> list[int]:
    """The slots that are being moved to a master of a Cluster."""
    reply = await _ask(topology, master, ("CLUSTER", "NODES"), deadline_s)
    return importing_slots(reply.decode()) if isinstance(reply, bytes) else []


async def _good_replicas(topology: Topology, master: Node, deadline_s: float) -> int:
    """How many replicas have lately reported their offset to the master."""
    reply = await _ask(topology, master, ("INFO", "replication"), deadline_s)
    if not isinstance(reply, bytes):
        raise StoreUnreachable(f"{master} does not list its replicas: {reply}")
    # Left out where min-replicas-to-write is 0, which is a finding of its own.
    return int(info_fields(reply).get("min_slaves_good_slaves", 0))


async def _of_fsync(topology: Topology, master: Node, deadline_s: float) -> list[Finding]:
    """Whether a master can say what is on its disk."""
    reply = await _ask(topology, master, ("WAITAOF", 0, 0, 1), deadline_s)
    if not isinstance(reply, redis.exceptions.RedisError) or UNKNOWN_COMMAND not in str(reply):
        return []
    info = await _ask(topology, master, ("INFO", "server"), deadline_s)
    fields = info_fields(info) if isinstance(info, bytes) else {}
    version = fields.get("valkey_version") or fields.get("redis_version") or "unknown"
    return [
        Finding(
            str(master), f"its version, {version}, does not have WAITAOF",
            "with fsync a reply waits until that command says that the write is on disk",
            "use Redis 7.2, Valkey 7.2 or newer, or leave --fsync out",
        )
    ]  # fmt: skip


# Judging -----------------------------------------------------------------------------------


def _no_config(node: Node) -> Finding:
    return Finding(
        str(node),
        "it does not let its settings be read",
        "it is not known whether confirmed writes are kept",
        "allow CONFIG GET to ddq's user, or check docs/OPERATIONS.md by hand and start with "
        "--no-store-checks",
    )


def _of_node(
    node: Node, config: Mapping[str, str], nodes: DataNodes, settings: Settings
) -> list[Finding]:
    wanted: list[tuple[str, tuple[str, ...], str]] = [
        ("appendonly", ("yes",), "a restart loses all that came since the last snapshot"),
        ("maxmemory-policy", ("noeviction",), "the store drops tasks and fences at will"),
    ]
    syncs = ("always",) if settings.fsync else ("always", "everysec")
    wanted.append(("appendfsync", syncs, "writes reach the disk later than the durability says"))
    if nodes.replicas_count == 0:
        wanted.append(
            ("min-replicas-to-write", ("0",), "no write is ever taken: there are no replicas")
        )
    else:
        enough = str(nodes.majority_replicas_count)
        wanted += [
            (
                "min-replicas-to-write", (enough,),
                "a master that is cut off accepts writes, or a healthy one refuses them",
            ),
            (
                "repl-diskless-sync-delay", ("0",),
                "a replica that comes back stays without data for as long, and may be promoted so",
            ),
        ]  # fmt: skip
    findings = [
        Finding(
            str(node), f"{name} is {config[name]}", why,
            f"CONFIG SET {name} {values[0]}, and in its configuration file",
        )
        for name, values, why in wanted
        if name in config and config[name] not in values
    ]  # fmt: skip
    lag = config.get("min-replicas-max-lag", "")
    if nodes.replicas_count and lag.isdecimal() and not 1 <= int(lag) <= MAX_LAG_S:
        findings.append(
            Finding(
                str(node), f"min-replicas-max-lag is {lag}",
                "a replica that is gone counts as there for so many seconds",
                f"CONFIG SET min-replicas-max-lag {MAX_LAG_S}",
            )
        )  # fmt: skip
    return findings


def _of_replicas(
    master: Node, attached: frozenset[Node], nodes: DataNodes, settings: Settings
) -> list[Finding]:
    addresses = frozenset((node.host, node.port) for node in attached)
    unknown = nodes.unconfigured(addresses)
    names = ", ".join(sorted(map(str, attached)))
    if not settings.data_nodes and attached:
        return [
            Finding(
                "data_nodes", f"is not set, and {master} has replicas: {names}",
                "without all data nodes a majority is not defined",
                f"give --data-nodes {master},{names.replace(', ', ',')}",
            )
        ]  # fmt: skip
    if unknown or len(attached) > nodes.replicas_count:
        who = ", ".join(sorted(f"{host}:{port}" for host, port in unknown)) or names
        return [
            Finding(
                str(master), f"a replica is attached that data_nodes does not name: {who}",
                "WAIT cannot choose which replicas it counts, so nothing is confirmed",
                "detach it (REPLICAOF NO ONE there, SENTINEL RESET here), or name it in data_nodes "
                "of every ddq process",
            )
        ]  # fmt: skip
    return []


def _of_arriving(
    master: Node, slots: list[int], good_count: int, nodes: DataNodes
) -> list[Finding]:
    if good_count >= nodes.replicas_count:
        return []
    said = ", ".join(map(str, slots))
    return [
        Finding(
            str(master),
            f"slots are moving to it ({said}) while {good_count} of its {nodes.replicas_count} "
            "replicas are in sync",
            "what they hold was acknowledged elsewhere, and is lost if it dies before they have it",
            "wait for its replicas before you continue, or move the slots back",
        )
    ]


def _of_priorities(priorities: Mapping[Node, str]) -> list[Finding]:
    if len(set(priorities.values())) <= 1 and "0" not in priorities.values():
        return []
    said = ", ".join(f"{node} {value}" for node, value in priorities.items())
    return [
        Finding(
            "replica-priority", f"differs or is 0: {said}",
            "the preferred replica is promoted even if it lacks what the others have",
            "CONFIG SET replica-priority 100 on every data node",
        )
    ]  # fmt: skip


def _of_questions(
    sentinels: tuple[SentinelSettings, ...], missing: Mapping[str, str]
) -> list[Finding]:
    """Of Sentinels that answer everything else, and not whether they elect another master."""
    return [
        Finding(
            f"Sentinel {each.sentinel}",
            f"does not answer SENTINEL IS-MASTER-DOWN-BY-ADDR ({missing[str(each.sentinel)]})",
            "without its vote QUORUM cannot tell whether the master is being replaced",
            "allow ddq's user +sentinel|is-master-down-by-addr",
        )
        for each in sentinels
        if "permission" in missing.get(str(each.sentinel), "")
    ]


def _of_sentinels(sentinels: tuple[SentinelSettings, ...]) -> list[Finding]:
    findings = []
    for each in sentinels:
        where = f"Sentinel {each.sentinel}"
        if each.failover_timeout_ms > FAILOVER_TIMEOUT_MAX_MS:
            findings.append(
                Finding(
                    where, f"failover-timeout is {each.failover_timeout_ms} ms",
                    "a Sentinel that dies while it leads a failover costs twice that",
                    "SENTINEL SET <master> failover-timeout 10000",
                )
            )  # fmt: skip
        if each.sentinels_count < SENTINELS_MIN_COUNT:
            findings.append(
                Finding(
                    where, f"it knows {each.sentinels_count} Sentinels, itself included",
                    "with fewer than three the loss of one ends every failover",
                    "start three, each on the host of a data node",
                )
            )  # fmt: skip
    if len({each.down_after_ms for each in sentinels}) > 1:
        said = ", ".join(f"{each.sentinel} {each.down_after_ms} ms" for each in sentinels)
        findings.append(
            Finding(
                "down-after-milliseconds", f"differs: {said}",
                "the barrier's timing is derived from it",
                "SENTINEL SET <master> down-after-milliseconds, the same on all",
            )
        )  # fmt: skip
    return findings
