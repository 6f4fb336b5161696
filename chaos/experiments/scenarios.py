"""Every scenario: what it guards, with which faults, and what it must have met to prove it.

A scenario's modes are those that claim all of its faults, by the catalogue. It runs in the mode
that it is given; without one in the default mode if that claims it, else in ALL. What no mode
claims runs in the matrix only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chaos.clusters import Ability, NotAvailableError
from chaos.faults import KINDS, Kind, Mode, kind
from chaos.faults.model import LINK_TARGETS, Value
from chaos.faults.nemesis import Schedule, Step, draw
from chaos.workloads import WORKLOADS

DEFAULT_MODE = Mode.QUORUM

Track = list[Step]
Plan = Callable[[random.Random], list[Track]]
"""Draws the tracks of a schedule, with times as multiples of down-after (see ``_step``)."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario.

    Attributes:
        guards: the sentence that a failure of it refutes.
        plan: see ``Plan``; None: drawn from the catalogue by the nemesis.
        duration_s: how long load and faults last, about.
        failovers: at least so many, with writes on both sides.
        gates: further ones; see chaos/checker/gates.py.
        core: whether it is part of `make chaos`.
    """

    name: str
    guards: str
    plan: Plan | None
    workload: str = "mixed"
    duration_s: float = 30.0
    failovers: int = 0
    gates: Mapping[str, float] = field(default_factory=dict)
    core: bool = False

    def schedule(self, seed: int, down_after_ms: int, mode: Mode, possible: Possible) -> Schedule:
        """Its faults; equal arguments give equal ones."""
        if self.plan is None:
            return draw(
                seed, duration_ms=round(self.duration_s * 1_000), down_after_ms=down_after_ms,
                mode=mode, kinds=_ALONE, possible=possible,
            ).beside(
                draw(
                    seed + 1, duration_ms=round(self.duration_s * 1_000),
                    down_after_ms=down_after_ms, mode=mode, kinds=KINDS,
                    possible=lambda each, target: (
                        target in _PROCESSES and possible(each, target)
                    ),
                )
            )  # fmt: skip
        tracks = self.plan(random.Random(f"{self.name}/{seed}"))
        scaled = tuple(tuple(_scaled(step, down_after_ms) for step in track) for track in tracks)
        return Schedule(scaled, down_after_ms, seed)

    @property
    def modes(self) -> frozenset[Mode]:
        """Those that promise to bear it."""
        if self.plan is None:
            return frozenset(Mode)
        claimed = frozenset(Mode)
        for track in self.plan(random.Random(0)):
            for step in track:
                claimed &= kind(step.kind).targets[step.target]
        return claimed

    def mode(self, asked: Mode | None) -> Mode | None:
        """The one to run in; None if none claims it and none was asked for."""
        if asked is not None:
            return asked
        for mode in (DEFAULT_MODE, Mode.ALL):
            if mode in self.modes:
                return mode
        return None

    @property
    def needs(self) -> frozenset[Ability]:
        """Abilities of the cluster."""
        if self.plan is None:
            return frozenset(Ability)
        steps = [step for track in self.plan(random.Random(0)) for step in track]
        return frozenset().union(*(kind(step.kind).needs for step in steps))

    @property
    def links(self) -> frozenset[str]:
        """Links that have to go through Toxiproxy."""
        if self.plan is None:
            return LINK_TARGETS
        steps = [step for track in self.plan(random.Random(0)) for step in track]
        return frozenset(step.target for step in steps) & LINK_TARGETS


Possible = Callable[[Kind, str], bool]

_PROCESSES = frozenset({"api", "scheduler", "scheduler-leader"})
# Of the store; what is beside them comes from the other track.
_ALONE = tuple(each for each in KINDS if not set(each.targets) <= (LINK_TARGETS | _PROCESSES))


def _step(
    kind_name: str,
    target: str,
    hold: float,
    *,
    wait: float = 1.0,
    settle: bool = True,
    **strength: Value,
) -> Step:
    """With times in thousandths of down-after, until they are scaled."""
    return Step(kind_name, target, strength, round(wait * 1_000), round(hold * 1_000), settle)


def _scaled(step: Step, down_after_ms: int) -> Step:
    return Step(
        step.kind, step.target, step.strength, step.wait_ms * down_after_ms // 1_000,
        step.hold_ms * down_after_ms // 1_000, step.settle,
    )  # fmt: skip


def _times(rng: random.Random, count: int, low: float, high: float) -> list[float]:
    """Spread over the range, one in each part of it, in any order."""
    width = (high - low) / count
    values = [low + width * (n + rng.random()) for n in range(count)]
    rng.shuffle(values)
    return values


REGRESSION: tuple[Scenario, ...] = (
    Scenario(
        "master-killed",
        "a killed master takes nothing with it that was acknowledged",
        lambda rng: [
            [_step("kill", "master", hold) for hold in _times(rng, 2, 0.2, 4.0)],
        ],
        failovers=2,
        core=True,
    ),
    Scenario(
        "master-paused",
        "a master that is paused for about as long as Sentinel waits acknowledges nothing that its "
        "successor lacks",
        lambda rng: [
            # With time between them to replace the first one: it is over before Sentinel has.
            [_step("pause", "master", hold, wait=2.0) for hold in _times(rng, 2, 1.0, 3.0)],
        ],
        failovers=1,
        core=True,
    ),
    Scenario(
        "old-master-believed",
        "an old master that continues right after its replacement, with clients that know "
        "nothing of it, acknowledges nothing",
        lambda _: [
            [_step("pause-until-replaced", "master", 3.0, wait=3.0, settle=False)],
            [_step("partition-clients", "sentinels", 8.0, direction="both")],
        ],
        duration_s=20.0,
        failovers=0,
        core=True,
    ),
    Scenario(
        "pause-then-isolate",
        "an election that outlives the pause behind it, and completes behind a cut, takes nothing "
        "with it that was acknowledged meanwhile",
        lambda _: [[_step("pause-then-isolate", "master-host", 8.0, second="isolate")]],
        duration_s=30.0,
        core=True,
    ),
    Scenario(
        "pause-then-pause",
        "a replica that is paused between its selection and its promotion takes nothing with it "
        "that was acknowledged meanwhile",
        lambda _: [
            [_step("pause-then-pause", "master-host", hold, second="pause") for hold in (2.0, 3.5)]
        ],
        duration_s=30.0,
    ),
    Scenario(
        "master-cut-off",
        "a master's host that is cut off, for a moment or for long, with clients on its side, "
        "acknowledges nothing that the others lack",
        lambda rng: [
            [
                *(
                    _step("partition-short", "master-host", hold, clients="both")
                    for hold in _times(rng, 1, 1.2, 2.6)
                ),
                _step(
                    "partition-host",
                    "master-host",
                    5.0,
                    wait=2.0,
                    direction="both",
                    clients="both",
                ),
            ],
        ],
        duration_s=40.0,
        failovers=1,
        core=True,
    ),
    Scenario(
        "isolate-heal-crash",
        "a master that grew its log while it was isolated is not chosen after its return",
        lambda rng: [
            [
                _step(
                    "partition-host",
                    "master-host",
                    rng.uniform(4.0, 6.0),
                    settle=False,
                    direction="both",
                    clients="both",
                ),
                _step("kill", "master", rng.uniform(1.0, 3.0), wait=rng.uniform(0.2, 0.6)),
            ]
        ],
        failovers=2,
        core=True,
    ),
    Scenario(
        "planned-failover",
        "a coordinated failover loses nothing",
        lambda _: [[_step("failover", "master", 0.5, coordinated=True) for _ in range(2)]],
        failovers=2,
        core=True,
    ),
    Scenario(
        "plain-failover",
        "a failover that Sentinel makes without waiting for the replica loses nothing in ALL",
        lambda _: [[_step("failover-plain", "master", 0.5, coordinated=False) for _ in range(2)]],
        failovers=2,
    ),
    Scenario(
        "cut-through-a-host",
        "a master and its replica on the wrong side of a partition acknowledge nothing in ALL",
        lambda rng: [
            [
                _step(
                    "partition-through",
                    "master",
                    rng.uniform(4.5, 7.0),
                    sentinels=sentinels,
                    clients="both",
                )
                for sentinels in (0, 1)
            ]
        ],
        duration_s=40.0,
        failovers=1,
        core=True,
    ),
    Scenario(
        "returning-master",
        "a master that comes back at once without its disk, or the end of it, is not followed",
        lambda _: [
            [
                _step("empty-disk", "master", 0.5),
                _step("truncated-log", "master", 0.5, tail_bytes=100_000),
            ]
        ],
        failovers=2,
        core=True,
    ),
    Scenario(
        "scheduler-leader-stopped",
        "a scheduler that was stopped for longer than its lease moves nothing when it goes on",
        lambda rng: [
            [
                _step("pause", "scheduler-leader", hold, settle=False)
                for hold in _times(rng, 3, 2.5, 5.0)
            ]
        ],
        workload="cancel-race",
        gates={"cancels that beat the promotion": 20, "cancels that the promotion beat": 20},
        core=True,
    ),
    Scenario(
        "scheduler-leader-killed",
        "another scheduler takes over, and nothing is promoted twice",
        lambda rng: [
            [
                _step("kill", "scheduler-leader", hold, settle=False)
                for hold in _times(rng, 3, 0.5, 4.0)
            ]
        ],
        workload="cancel-race",
    ),
    Scenario(
        "scheduler-leader-skewed",
        "a scheduler whose clock is off by more than max_clock_skew moves nothing, and another one "
        "takes over",
        lambda rng: [
            [
                _step(
                    "clock-jump",
                    "scheduler-leader",
                    rng.uniform(2, 4),
                    settle=False,
                    offset_ms=offset_ms,
                )
                for offset_ms in (3_600_000, -60_000, 500)
            ]
        ],
        workload="cancel-race",
    ),
    Scenario(
        "scheduler-cut-off",
        "schedulers that lose the store, or whose connections hang, do no harm and come back",
        lambda rng: [
            [
                _step(
                    "stalled",
                    "scheduler-store",
                    rng.uniform(3, 6),
                    settle=False,
                    stream="downstream",
                ),
                _step("cut", "scheduler-store", rng.uniform(2, 4), settle=False),
            ]
        ],
    ),
    Scenario(
        "half-open",
        "connections over which nothing arrives any more end in unknown outcomes, never wrong ones",
        lambda rng: [
            [
                _step("stalled", "api-store", rng.uniform(2, 5), settle=False, stream="downstream"),
                _step(
                    "stalled", "client-api", rng.uniform(2, 5), settle=False, stream="downstream"
                ),
                _step("reset", "api-store", rng.uniform(1, 3), settle=False, stream="downstream"),
            ]
        ],
        core=True,
    ),
    Scenario(
        "api-killed",
        "an API process that dies in the middle of requests leaves each of them done or not done",
        lambda rng: [
            [_step("kill", "api", hold, settle=False) for hold in _times(rng, 4, 0.5, 3.0)]
        ],
    ),
    Scenario(
        "sentinel-lost",
        "the queue works while a Sentinel is away",
        lambda rng: [
            [
                _step("kill", "sentinel", rng.uniform(2, 4)),
                _step("pause", "sentinel", rng.uniform(1, 3)),
                _step(
                    "partition-node",
                    "sentinel",
                    rng.uniform(2, 4),
                    direction="both",
                    clients="both",
                ),
            ]
        ],
    ),
    Scenario(
        "replica-lost",
        "one replica may be away, and come back without its disk",
        lambda rng: [
            [
                _step("kill", "replica", rng.uniform(1, 4)),
                _step("pause", "replica", rng.uniform(1, 3)),
                _step("empty-disk", "replica", 1.0),
            ]
        ],
    ),
    Scenario(
        "full-disk",
        "a node whose disk is full refuses writes, and nothing is half done",
        lambda rng: [
            [
                _step("full-disk", "replica", rng.uniform(2, 4)),
                _step("full-disk", "master", rng.uniform(2, 4)),
            ]
        ],
    ),
    Scenario(
        "slow-disk",
        "a node whose disk is slow makes all requests slow, and nothing is half done",
        lambda _: [
            [
                _step("slow-disk", "replica", 3.0, sleep_ms=400),
                _step("slow-disk", "master", 3.0, sleep_ms=20),
                _step("slow-disk", "master", 3.0, sleep_ms=400),
            ]
        ],
    ),
    Scenario(
        "clock-jump",
        "a store's clock that is wrong makes calls end with CLOCK_UNSAFE, not too early",
        lambda rng: [
            [
                _step("clock-jump", "master", rng.uniform(2, 4), offset_ms=3_600_000),
                _step("clock-jump", "master", rng.uniform(2, 4), offset_ms=-60_000),
                _step("clock-jump", "master", rng.uniform(2, 4), offset_ms=500),
            ]
        ],
        core=True,
    ),
    Scenario(
        "connections-killed",
        "the store forgets scripts and closes connections, and clients notice only its latency",
        lambda _: [
            [
                _step("script-flush", "master", 0.0),
                _step("client-kill", "master", 0.0),
                _step("partition-clients", "master", 3.0, direction="both"),
            ]
        ],
    ),
    Scenario(
        "sentinel-leader-dies",
        "a Sentinel that dies in the middle of its failover costs time, and nothing else",
        lambda _: [[_step("sentinel-crash", "master", 0.5, moment="crash-after-election")]],
        duration_s=45.0,
        failovers=1,
    ),
    Scenario(
        "unequal-replicas",
        "whichever replica Sentinel prefers, and whichever other is attached, ALL loses nothing",
        lambda rng: [
            [
                _step("priorities", "replica", 6.0, priority=1, settle=False),
                _step("stray-replica", "master", rng.uniform(1.5, 3.0)),
            ],
            [_step("kill", "master", rng.uniform(0.5, 1.5), wait=3.0, settle=False)],
        ],
        failovers=1,
        core=True,
    ),
    Scenario(
        "everything",
        "processes of ddq die and hang while the store fails over",
        lambda rng: [
            [
                _step("kill", "master", rng.uniform(0.5, 3)),
                _step("pause", "master", rng.uniform(1, 3)),
                _step(
                    "partition-host",
                    "master-host",
                    rng.uniform(3, 6),
                    direction="both",
                    clients="both",
                ),
            ],
            [
                _step("pause", "scheduler-leader", rng.uniform(2, 4), settle=False, wait=4),
                _step("kill", "api", rng.uniform(1, 3), settle=False),
                _step("kill", "scheduler-leader", rng.uniform(1, 3), settle=False),
                _step("pause", "api", rng.uniform(1, 3), settle=False),
            ],
        ],
        workload="bank",
        duration_s=45.0,
        failovers=1,
        core=True,
    ),
)

EXPLORATORY = Scenario(
    "exploratory",
    "whatever the seed composes of what the mode claims",
    None,
    duration_s=60.0,
)

FAILOVER = Scenario(
    "failover",
    "what a failover may take with it, by mode",
    lambda _: [[_step("kill", "master", 2.5) for _ in range(5)]],
    duration_s=10.0,
    failovers=1,
)

SMOKE = ("master-killed", "scheduler-leader-stopped")
SCENARIOS: Mapping[str, Scenario] = {
    each.name: each for each in (*REGRESSION, EXPLORATORY, FAILOVER)
}
CORE = tuple(each.name for each in REGRESSION if each.core)


def scenario(name: str) -> Scenario:
    """A scenario by its name; NotAvailableError if there is none."""
    try:
        return SCENARIOS[name]
    except KeyError:
        raise NotAvailableError(
            f"no scenario is called {name!r}; there are {', '.join(SCENARIOS)}"
        ) from None


assert all(each.workload in WORKLOADS for each in SCENARIOS.values())

__all__ = ["CORE", "SCENARIOS", "SMOKE", "Scenario", "scenario"]
