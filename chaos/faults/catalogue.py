"""The catalogue: every kind of fault, its targets, and which durability promises to bear it.

The claims are those of docs/GUARANTEES.md: QUORUM bears the crash, pause or isolation of any one
host at a time; ALL also partitions that split a host, any choice of replica, and planned failovers;
FAST bears what brings no failover.
"""

from __future__ import annotations

from chaos.clusters import Ability, NotAvailableError
from chaos.faults import partitions
from chaos.faults.cables import CableFault
from chaos.faults.clocks import ClockDriftFault, ClockJumpFault
from chaos.faults.disks import (
    FullDiskFault,
    KillInRewriteFault,
    ReturnFault,
    SlowDiskFault,
    SpoiltLogFault,
)
from chaos.faults.elections import PauseThenStrikeFault
from chaos.faults.model import FaultRow, Kind, Mode
from chaos.faults.network import CutLinkFault, toxic
from chaos.faults.orders import (
    ClientKillFault,
    FailoverFault,
    ScriptFlushFault,
    SentinelCrashFault,
)
from chaos.faults.partitions import partition
from chaos.faults.power import PowerLossFault
from chaos.faults.settings import PriorityFault, UnconfiguredReplicaFault
from chaos.faults.signals import (
    FailpointFault,
    KillFault,
    PauseFault,
    PauseUntilReplacedFault,
    StutterFault,
)

NO_MODE: frozenset[Mode] = frozenset()
ALL = frozenset({Mode.ALL})
QUORUM = frozenset({Mode.QUORUM, Mode.ALL})
EVERY = frozenset(Mode)

_SIGNAL_TARGETS = {
    "master": QUORUM,
    "replica": EVERY,
    "sentinel": EVERY,
    "master-host": QUORUM,
    "replica-host": EVERY,
    "api": EVERY,
    "scheduler": EVERY,
    "scheduler-leader": EVERY,
}
_LINK_TARGETS = {"api-store": EVERY, "scheduler-store": EVERY, "client-api": EVERY}
_SIDES = ("both", "inside", "outside")
_STREAMS = ("upstream", "downstream")

KINDS: tuple[Kind, ...] = (
    Kind(
        "kill",
        FaultRow.SIGNALS,
        "SIGKILL; started again when healed, a data node through ddq node",
        _SIGNAL_TARGETS,
        KillFault,
        needs=frozenset({Ability.KILL}),
        hold=(0.1, 5.0),
    ),
    Kind(
        "pause",
        FaultRow.SIGNALS,
        "SIGSTOP; short around down-after is where a majority under WAIT alone loses writes",
        _SIGNAL_TARGETS,
        PauseFault,
        needs=frozenset({Ability.PAUSE}),
        hold=(1.0, 3.0),
    ),
    Kind(
        "stutter",
        FaultRow.SIGNALS,
        "SIGSTOP and SIGCONT in turn: alive and slow, and never silent for as long as down-after",
        dict.fromkeys(_SIGNAL_TARGETS, EVERY),
        StutterFault,
        needs=frozenset({Ability.PAUSE}),
        strengths={"pause_ms": (100, 300), "run_ms": (20, 100)},
        hold=(1.0, 4.0),
    ),
    Kind(
        "failpoint",
        FaultRow.SIGNALS,
        "a process of ddq dies before, within or after a send of scripts to the store",
        {"api": EVERY, "scheduler-leader": EVERY},
        FailpointFault,
        needs=frozenset({Ability.FAILPOINT}),
        strengths={
            "failpoint": ("before-send", "after-send", "after-first-reply", "after-replies")
        },
        hold=(0.1, 1.0),
    ),
    Kind(
        "pause-until-replaced",
        FaultRow.SIGNALS,
        "SIGSTOP until a replica has been promoted, and then no longer: the other replica is still "
        "the old master's",
        {"master": QUORUM},
        PauseUntilReplacedFault,
        needs=frozenset({Ability.PAUSE}),
        hold=(0.0, 2.0),
    ),
    Kind(
        "pause-then-isolate",
        FaultRow.ELECTION,
        "the master's host is paused until a Sentinel has selected the replica of its own host; "
        "then that host is isolated instead: the election completes behind the cut",
        {"master-host": QUORUM},
        PauseThenStrikeFault,
        needs=frozenset({Ability.PAUSE, Ability.KILL, Ability.PARTITION}),
        strengths={"second": ("isolate",)},
        hold=(6.0, 9.0),
    ),
    Kind(
        "pause-then-pause",
        FaultRow.ELECTION,
        "the master's host is paused until a replica is selected; the pause ends and the selected "
        "replica's host is paused before or while it reads REPLICAOF NO ONE",
        {"master-host": QUORUM},
        PauseThenStrikeFault,
        needs=frozenset({Ability.PAUSE, Ability.KILL}),
        strengths={"second": ("pause",)},
        hold=(2.0, 5.0),
    ),
    Kind(
        "partition-host",
        FaultRow.PARTITION,
        "whole hosts against the rest, both ways or one way; the minority keeps its clients",
        {"master-host": QUORUM, "replica-host": EVERY},
        partition(partitions.around),
        needs=frozenset({Ability.PARTITION}),
        strengths={"direction": ("both", "in", "out"), "clients": _SIDES},
        hold=(1.0, 12.0),
    ),
    Kind(
        "packet-loss",
        FaultRow.PARTITION,
        "some packets between a host and the rest of the store are dropped, by chance",
        {"master-host": QUORUM, "replica-host": EVERY},
        partition(partitions.around),
        needs=frozenset({Ability.PARTITION}),
        strengths={"share": (0.05, 0.2, 0.5)},
        hold=(1.0, 6.0),
    ),
    Kind(
        "partition-short",
        FaultRow.PARTITION,
        "the master's host cut off for about as long as Sentinel waits",
        {"master-host": QUORUM},
        partition(partitions.around),
        needs=frozenset({Ability.PARTITION}),
        strengths={"clients": _SIDES},
        hold=(1.0, 3.0),
    ),
    Kind(
        "partition-node",
        FaultRow.PARTITION,
        "a data node or a Sentinel against the rest, cut from what is beside it on its host",
        {"master": ALL, "replica": EVERY, "sentinel": EVERY},
        partition(partitions.around),
        needs=frozenset({Ability.PARTITION}),
        strengths={"direction": ("both", "in", "out"), "clients": _SIDES},
        hold=(1.0, 12.0),
    ),
    Kind(
        "partition-through",
        FaultRow.PARTITION,
        "through hosts: master and one replica against all the rest, with or without a Sentinel",
        {"master": ALL},
        partition(partitions.through),
        needs=frozenset({Ability.PARTITION}),
        strengths={"sentinels": (0, 1), "clients": ("both", "inside")},
        hold=(5.0, 12.0),
    ),
    Kind(
        "partition-ring",
        FaultRow.PARTITION,
        "two hosts lose each other and keep the third: every host sees a majority",
        {"master": ALL},
        partition(partitions.ring),
        needs=frozenset({Ability.PARTITION}),
        hold=(1.0, 12.0),
    ),
    Kind(
        "partition-clients",
        FaultRow.PARTITION,
        "clients lose a node that is well",
        # Clients have no connection to a replica.
        {"master": EVERY, "sentinel": EVERY, "sentinels": EVERY},
        partition(partitions.clients),
        needs=frozenset({Ability.PARTITION}),
        strengths={"direction": ("both", "in", "out")},
        hold=(1.0, 12.0),
    ),
    Kind(
        "cable",
        FaultRow.PARTITION,
        "a host is taken off the network: its addresses are gone, and its processes run on",
        {"master-host": QUORUM, "replica-host": EVERY},
        CableFault,
        needs=frozenset({Ability.CABLE}),
        hold=(1.0, 12.0),
    ),
    Kind(
        "slow",
        FaultRow.CONNECTIONS,
        "every packet is late",
        _LINK_TARGETS,
        toxic("latency", lambda strength: {"latency": strength["latency_ms"], "jitter": 20}),
        strengths={"latency_ms": (50, 200, 1_000), "stream": _STREAMS},
    ),
    Kind(
        "stalled",
        FaultRow.CONNECTIONS,
        "nothing arrives, and neither side closes: half open",
        _LINK_TARGETS,
        toxic("timeout", lambda _: {"timeout": 0}),
        strengths={"stream": _STREAMS},
    ),
    Kind(
        "reset",
        FaultRow.CONNECTIONS,
        "every connection is reset",
        _LINK_TARGETS,
        toxic("reset_peer", lambda _: {"timeout": 0}),
        strengths={"stream": _STREAMS},
    ),
    Kind(
        "sliced",
        FaultRow.CONNECTIONS,
        "data arrives in small pieces, with pauses between them",
        _LINK_TARGETS,
        toxic("slicer", lambda _: {"average_size": 64, "size_variation": 32, "delay": 500}),
        strengths={"stream": _STREAMS},
    ),
    Kind(
        "throttled",
        FaultRow.CONNECTIONS,
        "little bandwidth",
        _LINK_TARGETS,
        toxic("bandwidth", lambda strength: {"rate": strength["rate_kib_s"]}),
        strengths={"rate_kib_s": (8, 64), "stream": _STREAMS},
    ),
    Kind(
        "cut",
        FaultRow.CONNECTIONS,
        "connections are closed, and new ones refused",
        _LINK_TARGETS,
        CutLinkFault,
    ),
    Kind(
        "clock-jump",
        FaultRow.CLOCK,
        "a clock is wrong from one moment to the next; calls may end with CLOCK_UNSAFE",
        {
            "master": EVERY,
            "replica": EVERY,
            "master-host": EVERY,
            "api": EVERY,
            "scheduler": EVERY,
            "scheduler-leader": EVERY,
        },
        ClockJumpFault,
        needs=frozenset({Ability.CLOCK}),
        strengths={"offset_ms": (-60_000, -2_500, -500, 500, 2_500, 3_600_000)},
        hold=(2.0, 6.0),
        exempt=frozenset({"G6", "G14"}),
    ),
    Kind(
        "clock-drift",
        FaultRow.CLOCK,
        "a clock runs at the wrong speed",
        # A process of ddq tells its time in whole seconds, and this is less.
        {"master": EVERY, "replica": EVERY, "master-host": EVERY},
        ClockDriftFault,
        needs=frozenset({Ability.CLOCK}),
        strengths={"rate_ppm": (-50_000, -5_000, 5_000, 50_000)},
        hold=(2.0, 10.0),
        exempt=frozenset({"G6", "G14"}),
    ),
    Kind(
        "failover",
        FaultRow.ORDER,
        "an unnecessary failover, with COORDINATED",
        {"master": QUORUM},
        FailoverFault,
        strengths={"coordinated": (True,)},
        hold=(0.0, 1.0),
    ),
    Kind(
        "failover-plain",
        FaultRow.ORDER,
        "an unnecessary failover that Sentinel makes without waiting for the replica",
        {"master": ALL},
        FailoverFault,
        strengths={"coordinated": (False,)},
        hold=(0.0, 1.0),
    ),
    Kind(
        "sentinel-crash",
        FaultRow.ORDER,
        "the master dies, and the Sentinel that leads its failover dies while it does",
        {"master": ALL},
        SentinelCrashFault,
        needs=frozenset({Ability.KILL}),
        strengths={"moment": ("crash-after-election", "crash-after-promotion")},
        hold=(0.0, 1.0),
    ),
    Kind(
        "script-flush",
        FaultRow.ORDER,
        "SCRIPT FLUSH: the node forgets every script",
        {"master": EVERY},
        ScriptFlushFault,
        hold=(0.0, 0.0),
    ),
    Kind(
        "client-kill",
        FaultRow.ORDER,
        "CLIENT KILL: every client's connection is closed, hints included",
        {"master": EVERY},
        ClientKillFault,
        hold=(0.0, 0.0),
    ),
    Kind(
        "empty-disk",
        FaultRow.DISK,
        "killed, its disk emptied, and back at once through ddq node",
        {"master": QUORUM, "replica": EVERY},
        ReturnFault,
        needs=frozenset({Ability.KILL, Ability.DISK}),
        hold=(0.0, 1.0),
    ),
    Kind(
        "truncated-log",
        FaultRow.DISK,
        "killed, the end of its append-only file gone, and back at once through ddq node",
        {"master": QUORUM, "replica": EVERY},
        ReturnFault,
        needs=frozenset({Ability.KILL, Ability.DISK}),
        strengths={"tail_bytes": (1_000, 100_000)},
        hold=(0.0, 1.0),
    ),
    Kind(
        "spoilt-log",
        FaultRow.DISK,
        "killed, zeros in the middle of its append-only file: it does not start before it has an "
        "empty disk",
        {"master": QUORUM, "replica": EVERY},
        SpoiltLogFault,
        needs=frozenset({Ability.KILL, Ability.DISK}),
        hold=(0.0, 1.0),
    ),
    Kind(
        "kill-in-rewrite",
        FaultRow.DISK,
        "SIGKILL while the append-only file is rewritten",
        {"master": QUORUM, "replica": EVERY},
        KillInRewriteFault,
        needs=frozenset({Ability.KILL}),
        hold=(0.1, 2.0),
    ),
    Kind(
        "power-loss",
        FaultRow.DISK,
        "a host loses its power: its processes end, and what was not synchronized is not on the "
        "disk",
        {"master-host": QUORUM, "replica-host": EVERY},
        PowerLossFault,
        needs=frozenset({Ability.KILL, Ability.POWER}),
        hold=(0.1, 4.0),
    ),
    Kind(
        "power-loss-everywhere",
        FaultRow.DISK,
        "all hosts lose their power at once: what is not on the disk of every one may be gone",
        {"all-hosts": ALL},
        PowerLossFault,
        needs=frozenset({Ability.KILL, Ability.POWER}),
        hold=(0.1, 2.0),
        fsync=True,
    ),
    Kind(
        "returning-master",
        FaultRow.DISK,
        "as empty-disk, without ddq node: every replica follows the empty master down",
        {"master": NO_MODE},
        ReturnFault,
        needs=frozenset({Ability.KILL, Ability.DISK}),
        strengths={"guarded": (False,)},
        hold=(0.0, 1.0),
    ),
    Kind(
        "full-disk",
        FaultRow.DISK,
        "no room for the append-only file: the node refuses writes",
        {"master": EVERY, "replica": EVERY},
        FullDiskFault,
        needs=frozenset({Ability.FULL_DISK}),
        hold=(1.0, 5.0),
    ),
    Kind(
        "slow-disk",
        FaultRow.DISK,
        "each write to the append-only file takes long",
        {"master": EVERY, "replica": EVERY},
        SlowDiskFault,
        strengths={"sleep_ms": (20, 100, 400)},
        hold=(1.0, 5.0),
    ),
    Kind(
        "priorities",
        FaultRow.SETTINGS,
        "Sentinel prefers one replica whatever it has received, or never takes it",
        {"replica": ALL},
        PriorityFault,
        strengths={"priority": (0, 1)},
        hold=(2.0, 10.0),
    ),
    Kind(
        "stray-replica",
        FaultRow.SETTINGS,
        "a replica outside data_nodes answers WAIT like any other",
        {"master": ALL},
        UnconfiguredReplicaFault,
        needs=frozenset({Ability.UNCONFIGURED}),
        hold=(2.0, 10.0),
    ),
)


def kind(name: str) -> Kind:
    """A kind by its name; NotAvailableError if there is none."""
    for found in KINDS:
        if found.name == name:
            return found
    raise NotAvailableError(
        f"no fault is called {name!r}; there are {', '.join(k.name for k in KINDS)}"
    )
