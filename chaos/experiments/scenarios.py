"""Every scenario: what it guards, with which faults, and what it must have met to prove it.

A scenario's modes are those that claim all of its faults, by the catalogue. It runs in the mode
that it is given; without one in the default mode if that claims it, else in ALL. What no mode
claims runs in the matrix only.
"""

from __future__ import annotations

from collections.abc import Mapping

from chaos.clusters import NotAvailableError
from chaos.experiments.connection_scenarios import CONNECTIONS
from chaos.experiments.host_scenarios import HOSTS
from chaos.experiments.scenario import Scenario, step, times
from chaos.workloads import WORKLOADS

REGRESSION: tuple[Scenario, ...] = (
    Scenario(
        "master-killed",
        "a killed master takes nothing with it that was acknowledged",
        lambda rng: [
            [step("kill", "master", hold) for hold in times(rng, 2, 0.2, 4.0)],
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
            [step("pause", "master", hold, wait=2.0) for hold in times(rng, 2, 1.0, 3.0)],
        ],
        failovers=1,
        workload="libraries",
        gates={"leases extended and acked": 3},
        core=True,
    ),
    Scenario(
        "old-master-believed",
        "an old master that continues right after its replacement, with clients that know "
        "nothing of it, acknowledges nothing",
        lambda _: [
            [step("pause-until-replaced", "master", 3.0, wait=3.0, settle=False)],
            [step("partition-clients", "sentinels", 8.0, direction="both")],
        ],
        duration_s=20.0,
        failovers=0,
        core=True,
    ),
    Scenario(
        "pause-then-isolate",
        "an election that outlives the pause behind it, and completes behind a cut, takes nothing "
        "with it that was acknowledged meanwhile",
        lambda _: [[step("pause-then-isolate", "master-host", 8.0, second="isolate")]],
        duration_s=30.0,
        core=True,
    ),
    Scenario(
        "pause-then-pause",
        "a replica that is paused between its selection and its promotion takes nothing with it "
        "that was acknowledged meanwhile",
        lambda _: [
            [step("pause-then-pause", "master-host", hold, second="pause") for hold in (2.0, 3.5)]
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
                    step("partition-short", "master-host", hold, clients="both")
                    for hold in times(rng, 1, 1.2, 2.6)
                ),
                step(
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
                step(
                    "partition-host",
                    "master-host",
                    rng.uniform(4.0, 6.0),
                    settle=False,
                    direction="both",
                    clients="both",
                ),
                step("kill", "master", rng.uniform(1.0, 3.0), wait=rng.uniform(0.2, 0.6)),
            ]
        ],
        failovers=2,
        workload="lease-race",
        gates={"late acks accepted": 10, "stale tokens refused": 10},
        core=True,
    ),
    Scenario(
        "planned-failover",
        "a coordinated failover loses nothing",
        lambda _: [[step("failover", "master", 0.5, coordinated=True) for _ in range(2)]],
        failovers=2,
        workload="operators",
        gates={
            "pauses that held tasks back": 1,
            "tasks purged": 20,
            "tasks redriven and delivered": 5,
            "dead tasks deleted": 2,
            "tasks listed": 50,
            "topics deleted": 1,
        },
        core=True,
    ),
    Scenario(
        "plain-failover",
        "a failover that Sentinel makes without waiting for the replica loses nothing in ALL",
        lambda _: [[step("failover-plain", "master", 0.5, coordinated=False) for _ in range(2)]],
        failovers=2,
    ),
    Scenario(
        "cut-through-a-host",
        "a master and its replica on the wrong side of a partition acknowledge nothing in ALL",
        lambda rng: [
            [
                step(
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
                step("empty-disk", "master", 0.5),
                step("truncated-log", "master", 0.5, tail_bytes=100_000),
            ]
        ],
        failovers=2,
        workload="few-ids",
        gates={
            "tasks replaced": 10,
            "ids delivered again": 10,
            "contents refused for their id": 20,
            "changes at their revision": 10,
            "changes refused for their revision": 5,
            "batches with mixed results": 10,
        },
        core=True,
    ),
    Scenario(
        "scheduler-leader-stopped",
        "a scheduler that was stopped for longer than its lease moves nothing when it goes on",
        lambda rng: [
            [
                step("pause", "scheduler-leader", hold, settle=False)
                for hold in times(rng, 3, 2.5, 5.0)
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
                step("kill", "scheduler-leader", hold, settle=False)
                for hold in times(rng, 3, 0.5, 4.0)
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
                step(
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
                step(
                    "stalled",
                    "scheduler-store",
                    rng.uniform(3, 6),
                    settle=False,
                    stream="downstream",
                ),
                step("cut", "scheduler-store", rng.uniform(2, 4), settle=False),
            ]
        ],
    ),
    Scenario(
        "half-open",
        "connections over which nothing arrives any more end in unknown outcomes, never wrong ones",
        lambda rng: [
            [
                step("stalled", "api-store", rng.uniform(2, 5), settle=False, stream="downstream"),
                step("stalled", "client-api", rng.uniform(2, 5), settle=False, stream="downstream"),
                step("reset", "api-store", rng.uniform(1, 3), settle=False, stream="downstream"),
            ]
        ],
        core=True,
    ),
    Scenario(
        "api-killed",
        "an API process that dies in the middle of requests leaves each of them done or not done",
        lambda rng: [[step("kill", "api", hold, settle=False) for hold in times(rng, 4, 0.5, 3.0)]],
    ),
    Scenario(
        "sentinel-lost",
        "the queue works while a Sentinel is away",
        lambda rng: [
            [
                step("kill", "sentinel", rng.uniform(2, 4)),
                step("pause", "sentinel", rng.uniform(1, 3)),
                step(
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
                step("kill", "replica", rng.uniform(1, 4)),
                step("pause", "replica", rng.uniform(1, 3)),
                step("empty-disk", "replica", 1.0),
            ]
        ],
    ),
    Scenario(
        "full-disk",
        "a node whose disk is full refuses writes, and nothing is half done",
        lambda rng: [
            [
                step("full-disk", "replica", rng.uniform(2, 4)),
                step("full-disk", "master", rng.uniform(2, 4)),
            ]
        ],
    ),
    Scenario(
        "slow-disk",
        "a node whose disk is slow makes all requests slow, and nothing is half done",
        lambda _: [
            [
                step("slow-disk", "replica", 3.0, sleep_ms=400),
                step("slow-disk", "master", 3.0, sleep_ms=20),
                step("slow-disk", "master", 3.0, sleep_ms=400),
            ]
        ],
    ),
    Scenario(
        "clock-jump",
        "a store's clock that is wrong makes calls end with CLOCK_UNSAFE, not too early",
        lambda rng: [
            [
                step("clock-jump", "master", rng.uniform(2, 4), offset_ms=3_600_000),
                step("clock-jump", "master", rng.uniform(2, 4), offset_ms=-60_000),
                step("clock-jump", "master", rng.uniform(2, 4), offset_ms=500),
            ]
        ],
        core=True,
    ),
    Scenario(
        "connections-killed",
        "the store forgets scripts and closes connections, and clients notice only its latency",
        lambda _: [
            [
                step("script-flush", "master", 0.0),
                step("client-kill", "master", 0.0),
                step("partition-clients", "master", 3.0, direction="both"),
            ]
        ],
    ),
    Scenario(
        "sentinel-leader-dies",
        "a Sentinel that dies in the middle of its failover costs time, and nothing else",
        lambda _: [[step("sentinel-crash", "master", 0.5, moment="crash-after-election")]],
        duration_s=45.0,
        failovers=1,
    ),
    Scenario(
        "unequal-replicas",
        "whichever replica Sentinel prefers, and whichever other is attached, ALL loses nothing",
        lambda rng: [
            [
                step("priorities", "replica", 6.0, priority=1, settle=False),
                step("stray-replica", "master", rng.uniform(1.5, 3.0)),
            ],
            [step("kill", "master", rng.uniform(0.5, 1.5), wait=3.0, settle=False)],
        ],
        failovers=1,
        workload="bursts",
        gates={"tasks due together": 200},
        core=True,
    ),
    Scenario(
        "everything",
        "processes of ddq die and hang while the store fails over",
        lambda rng: [
            [
                step("kill", "master", rng.uniform(0.5, 3)),
                step("pause", "master", rng.uniform(1, 3)),
                step(
                    "partition-host",
                    "master-host",
                    rng.uniform(3, 6),
                    direction="both",
                    clients="both",
                ),
            ],
            [
                step("pause", "scheduler-leader", rng.uniform(2, 4), settle=False, wait=4),
                step("kill", "api", rng.uniform(1, 3), settle=False),
                step("kill", "scheduler-leader", rng.uniform(1, 3), settle=False),
                step("pause", "api", rng.uniform(1, 3), settle=False),
            ],
        ],
        workload="bank",
        duration_s=45.0,
        failovers=1,
        core=True,
    ),
    *HOSTS,
    *CONNECTIONS,
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
    lambda _: [[step("kill", "master", 2.5) for _ in range(5)]],
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

__all__ = ["CORE", "REGRESSION", "SCENARIOS", "SMOKE", "scenario"]
