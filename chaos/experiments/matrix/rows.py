"""The rows of the durability matrix: one fault each, and the modes that promise to lose nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chaos.clusters import Ability
from chaos.faults import KINDS, Mode
from chaos.faults.catalogue import ALL, EVERY, NO_MODE, QUORUM
from chaos.faults.model import Value
from chaos.faults.nemesis import Schedule, Step

SHORTEST, LONGEST = 1.0, 3.0
"""Of pauses and cuts, as multiples of down-after."""
BLIND_FOR = 4.0
"""For so many down-afters longer clients see no Sentinel: an old master takes as long to step down
as Sentinel takes to tell it."""

Tracks = Callable[[float], list[list[Step]]]


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One fault.

    Attributes:
        claimed: modes that promise to lose nothing under it.
        tracks: of the step at this share of the row, 0 to 1; times in thousandths of down-after.
        steps: how many by default.
        sharded: on a Cluster instead of Sentinel.
        fsync: replies wait for the disks too.
    """

    name: str
    doc: str
    claimed: frozenset[Mode]
    tracks: Tracks
    steps: int = 3
    sharded: bool = False
    fsync: bool = False

    def schedule(self, n: int, of: int, down_after_ms: int) -> Schedule:
        """Of step ``n`` of ``of``."""
        at = n / (of - 1) if of > 1 else 0.5
        tracks = tuple(
            tuple(
                Step(
                    step.kind,
                    step.target,
                    step.strength,
                    step.wait_ms * down_after_ms // 1_000,
                    step.hold_ms * down_after_ms // 1_000,
                    settle=False,
                )
                for step in track
            )
            for track in self.tracks(at)
        )
        return Schedule(tracks, down_after_ms)

    @property
    def needs(self) -> frozenset[Ability]:
        """Abilities of the cluster."""
        kinds = {step.kind for track in self.tracks(0.5) for step in track}
        return frozenset().union(*(each.needs for each in KINDS if each.name in kinds))


def _do(kind: str, target: str, hold: float, wait: float = 0.0, **strength: Value) -> Step:
    return Step(kind, target, strength, round(wait * 1_000), round(hold * 1_000), settle=False)


def _length(at: float) -> float:
    return SHORTEST + (LONGEST - SHORTEST) * at


def _blind(hold: float) -> list[list[Step]]:
    """Clients that see no Sentinel believe in the old master until that refuses them."""
    return [[_do("partition-clients", "sentinels", hold, direction="both")]]


def _returning(kind: str, strength: Mapping[str, Value]) -> Tracks:
    return lambda _: [[Step(kind, "master", strength, hold_ms=500, settle=False)]]


ROWS: tuple[MatrixRow, ...] = (
    MatrixRow(
        "pause",
        "master paused (SIGSTOP) for 1 to 3 down-afters; clients hear from the Sentinels",
        QUORUM,
        lambda at: [[_do("pause", "master", _length(at))]],
        steps=20,
    ),
    MatrixRow(
        "pause-blind",
        "the same, with clients that see no Sentinel and stay with the old master",
        QUORUM,
        lambda at: [
            [_do("pause", "master", _length(at))],
            *_blind(_length(at) + BLIND_FOR),
        ],
        steps=20,
    ),
    MatrixRow(
        "pause-until-replaced",
        "master paused exactly until a replica is promoted; clients see no Sentinel",
        QUORUM,
        lambda _: [
            [_do("pause-until-replaced", "master", BLIND_FOR, wait=0.1)],
            *_blind(2 * BLIND_FOR),
        ],
        steps=5,
    ),
    MatrixRow(
        "pause-then-isolate",
        "master's host paused until a replica is selected, then that replica's host, with the "
        "leading Sentinel, cut off for 8 down-afters",
        QUORUM,
        lambda _: [[_do("pause-then-isolate", "master-host", 8.0, second="isolate")]],
        steps=10,
    ),
    MatrixRow(
        "pause-then-pause",
        "master's host paused until a replica is selected, then that replica's host paused for "
        "3.5 down-afters",
        QUORUM,
        lambda _: [[_do("pause-then-pause", "master-host", 3.5, second="pause")]],
        steps=10,
    ),
    MatrixRow(
        "cut",
        "master's host cut off for 1 to 3 down-afters; clients reach both sides",
        QUORUM,
        lambda at: [[_do("partition-short", "master-host", _length(at), clients="both")]],
        steps=20,
    ),
    MatrixRow(
        "cut-blind",
        "the same, with clients that see no Sentinel and stay with the old master",
        QUORUM,
        lambda at: [
            [_do("partition-short", "master-host", _length(at), clients="both")],
            *_blind(_length(at) + BLIND_FOR),
        ],
        steps=20,
    ),
    MatrixRow(
        "long-cut",
        "master's host cut off for 8 down-afters, with its clients",
        QUORUM,
        lambda _: [[_do("partition-host", "master-host", 8.0, direction="both", clients="inside")]],
    ),
    MatrixRow(
        "kill",
        "master killed (SIGKILL), started again 5 down-afters later through ddq node",
        QUORUM,
        lambda _: [[_do("kill", "master", 5.0)]],
        steps=20,
    ),
    MatrixRow(
        "kill-lagging",
        "one replica paused for 0.6 down-afters, master killed in the middle of it",
        QUORUM,
        lambda _: [[_do("pause", "replica", 0.6)], [_do("kill", "master", 5.0, wait=0.5)]],
    ),
    MatrixRow(
        "failover-coordinated",
        "SENTINEL FAILOVER … COORDINATED",
        QUORUM,
        lambda _: [[_do("failover", "master", 0.5, coordinated=True)]],
    ),
    MatrixRow(
        "failover-plain",
        "SENTINEL FAILOVER",
        ALL,
        lambda _: [[_do("failover-plain", "master", 0.5, coordinated=False)]],
    ),
    MatrixRow(
        "empty-disk",
        "master killed, disk emptied, started at once through ddq node",
        QUORUM,
        _returning("empty-disk", {}),
    ),
    MatrixRow(
        "truncated-log",
        "master killed, 100 kB of its append-only file gone, started at once through ddq node",
        QUORUM,
        _returning("truncated-log", {"tail_bytes": 100_000}),
    ),
    MatrixRow(
        "empty-disk-unguarded",
        "the same with a bare valkey-server",
        NO_MODE,
        _returning("returning-master", {"guarded": False}),
    ),
    MatrixRow(
        "power-loss",
        "master's host loses its power for 5 down-afters, with what was not synchronized",
        QUORUM,
        lambda _: [[_do("power-loss", "master-host", 5.0)]],
    ),
    MatrixRow(
        "power-loss-everywhere",
        "all hosts lose their power at once, with what was not synchronized (appendfsync everysec)",
        NO_MODE,
        lambda _: [[_do("power-loss-everywhere", "all-hosts", 1.0)]],
    ),
    MatrixRow(
        "power-loss-everywhere-fsync",
        "the same, where replies wait for the disks (fsync, appendfsync always)",
        ALL,
        lambda _: [[_do("power-loss-everywhere", "all-hosts", 1.0)]],
        steps=20,
        fsync=True,
    ),
    MatrixRow(
        "isolate-heal-crash",
        "master's host cut off for 5 down-afters and healed; the next master killed at once",
        QUORUM,
        lambda _: [
            [
                _do("partition-host", "master-host", 5.0, direction="both", clients="both"),
                _do("kill", "master", 5.0, wait=0.3),
            ]
        ],
    ),
    MatrixRow(
        "cut-through-host",
        "{master + one replica} cut from the rest for 6 down-afters",
        ALL,
        lambda _: [[_do("partition-through", "master", 6.0, sentinels=0, clients="inside")]],
    ),
    MatrixRow(
        "cut-through-host-and-sentinel",
        "{master + one replica + one Sentinel} cut from the rest for 6 down-afters",
        ALL,
        lambda _: [[_do("partition-through", "master", 6.0, sentinels=1, clients="inside")]],
    ),
    MatrixRow(
        "stray-replica",
        "a replica outside data_nodes attached; a configured one behind; master killed",
        ALL,
        lambda _: [
            [_do("stray-replica", "master", 8.0)],
            [_do("pause", "replica", 0.6, wait=2.0)],
            [_do("kill", "master", 5.0, wait=2.5)],
        ],
    ),
    MatrixRow(
        "unequal-priorities",
        "Sentinel prefers the replica that is behind; master killed",
        ALL,
        lambda _: [
            [_do("priorities", "replica", 8.0, priority=1)],
            [_do("pause", "replica", 0.6, wait=1.0)],
            [_do("kill", "master", 5.0, wait=1.5)],
        ],
    ),
    MatrixRow(
        "clock-ahead",
        "master's clock jumps by an hour for 3 down-afters",
        EVERY,
        lambda _: [[_do("clock-jump", "master", 3.0, offset_ms=3_600_000)]],
    ),
    MatrixRow(
        "cluster-cut",
        "Cluster, {A, A1} cut from {A2, B, C} for 6 node-timeouts",
        ALL,
        lambda _: [[_do("partition-through", "master", 6.0, sentinels=0, clients="both")]],
        sharded=True,
    ),
)
"""In the order of the table."""


def row(name: str) -> MatrixRow:
    """A row by its name; ValueError if there is none."""
    for found in ROWS:
        if found.name == name:
            return found
    raise ValueError(f"no row is called {name!r}; there are: {'; '.join(r.name for r in ROWS)}")
