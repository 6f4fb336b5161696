"""Scenarios of whole hosts: their power, disks, clocks and network.

No part of `make chaos`; every one runs in the nightly campaign.
"""

from __future__ import annotations

from chaos.experiments.scenario import Scenario, step, times

HOSTS: tuple[Scenario, ...] = (
    Scenario(
        "power-lost",
        "a host that loses its power takes nothing with it that a majority had",
        lambda rng: [
            [
                step("power-loss", "master-host", rng.uniform(0.5, 3)),
                step("power-loss", "replica-host", rng.uniform(0.5, 3)),
            ]
        ],
        failovers=1,
    ),
    Scenario(
        "power-lost-everywhere",
        "when all hosts lose their power at once, what ALL with fsync acknowledged is on "
        "every disk",
        lambda rng: [
            [step("power-loss-everywhere", "all-hosts", hold) for hold in times(rng, 2, 0.2, 1.5)]
        ],
        duration_s=45.0,
        # Each loss costs an election for which the Sentinels have to find the replicas first, 20 s.
        gates={"operations": 400.0},
        failovers=1,
    ),
    Scenario(
        "log-damaged",
        "a node that dies in a rewrite of its log, or cannot read it, comes back from its master",
        lambda rng: [
            [
                step("kill-in-rewrite", "replica", rng.uniform(0.2, 1)),
                step("spoilt-log", "replica", 0.2),
                step("kill-in-rewrite", "master", rng.uniform(1.5, 3)),
                step("spoilt-log", "master", 0.2),
            ]
        ],
        duration_s=60.0,
        failovers=2,
    ),
    Scenario(
        "slow-and-alive",
        "a node that answers slowly, or loses packets, makes requests slow, and nothing is "
        "half done",
        lambda rng: [
            [
                step("stutter", "master", rng.uniform(2, 4), pause_ms=300, run_ms=50),
                step("packet-loss", "replica-host", rng.uniform(2, 4), share=0.2),
                step("packet-loss", "master-host", rng.uniform(2, 4), share=0.2),
                step("stutter", "replica", rng.uniform(1, 3), pause_ms=300, run_ms=20),
            ],
            [
                step("stutter", "api", rng.uniform(2, 4), pause_ms=100, run_ms=20, settle=False),
                step(
                    "stutter",
                    "scheduler-leader",
                    rng.uniform(2, 4),
                    pause_ms=300,
                    run_ms=20,
                    settle=False,
                ),
                step(
                    "stutter",
                    "scheduler",
                    rng.uniform(1, 2),
                    pause_ms=300,
                    run_ms=100,
                    settle=False,
                ),
            ],
        ],
        duration_s=45.0,
    ),
    Scenario(
        "hosts-lost",
        "one host at a time may be lost, whatever is on it, and nothing that was acknowledged "
        "with it",
        lambda rng: [
            [
                step("kill", "master-host", rng.uniform(0.5, 3)),
                step("pause", "replica-host", rng.uniform(1, 3)),
                step("kill", "replica-host", rng.uniform(0.5, 3)),
                step("pause", "master-host", rng.uniform(1, 3)),
                step("partition-host", "replica-host", 3.0, direction="in", clients="both"),
                step("stutter", "master-host", 2.0, pause_ms=300, run_ms=50),
                step("stutter", "replica-host", 2.0, pause_ms=300, run_ms=50),
            ]
        ],
        duration_s=70.0,
        failovers=1,
    ),
    Scenario(
        "hosts-unplugged",
        "a host that is taken off the network and put back acknowledges nothing meanwhile",
        lambda rng: [
            [
                step("cable", "master-host", rng.uniform(2, 5)),
                step("cable", "replica-host", rng.uniform(2, 5)),
            ]
        ],
        duration_s=40.0,
        failovers=1,
    ),
    Scenario(
        "replica-cut-off",
        "a replica that is cut off, has another time, or lacks the end of its log does no harm",
        lambda rng: [
            [
                step(
                    "partition-node", "replica", rng.uniform(1, 4), direction="out", clients="both"
                ),
                step("truncated-log", "replica", 0.5, tail_bytes=1_000),
                step("clock-jump", "replica", rng.uniform(1, 3), offset_ms=-60_000),
                step("partition-clients", "sentinel", rng.uniform(1, 3), direction="both"),
                step("stutter", "sentinel", rng.uniform(1, 3), pause_ms=300, run_ms=20),
            ]
        ],
        duration_s=60.0,
    ),
    Scenario(
        "master-alone",
        "a master that keeps its Sentinel or one replica, and loses the rest, acknowledges nothing "
        "in ALL that its successor lacks",
        lambda rng: [
            [
                step(
                    "partition-node", "master", rng.uniform(3, 6), direction="both", clients="both"
                ),
                step("partition-ring", "master", rng.uniform(3, 6)),
            ]
        ],
        duration_s=45.0,
    ),
    Scenario(
        "clock-drift",
        "a host whose clock runs at the wrong speed makes calls end with CLOCK_UNSAFE, not "
        "too early",
        lambda rng: [
            [
                step("clock-drift", "master", rng.uniform(3, 5), rate_ppm=50_000),
                step("clock-drift", "replica", rng.uniform(2, 4), rate_ppm=-50_000),
                step("clock-drift", "master-host", rng.uniform(3, 5), rate_ppm=-5_000),
            ]
        ],
        duration_s=40.0,
    ),
)

__all__ = ["HOSTS"]
