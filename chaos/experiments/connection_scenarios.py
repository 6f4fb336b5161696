"""Scenarios of ddq's processes, and of the connections between them and the store.

No part of `make chaos`; every one runs in the nightly campaign.
"""

from __future__ import annotations

import random

from chaos.experiments.scenario import Scenario, Track, step

_FAILPOINTS = ("before-send", "after-send", "after-first-reply", "after-replies")


def _bad(link: str, rng: random.Random) -> Track:
    """Slow, in pieces and narrow, one after the other."""
    stream = "upstream" if link == "scheduler-store" else "downstream"
    return [
        step("slow", link, rng.uniform(1, 2), settle=False, stream=stream, latency_ms=200),
        step("sliced", link, rng.uniform(1, 2), settle=False, stream=stream),
        step("throttled", link, rng.uniform(1, 2), settle=False, stream=stream, rate_kib_s=8),
    ]


CONNECTIONS: tuple[Scenario, ...] = (
    Scenario(
        "processes-lost",
        "schedulers that do not lead may die and hang, and nothing is promoted late for it",
        lambda rng: [
            [
                step("kill", "scheduler", rng.uniform(0.5, 2), settle=False),
                step("pause", "scheduler", rng.uniform(1, 3), settle=False),
            ]
        ],
    ),
    Scenario(
        "failpoints",
        "a process that dies at any point of its exchange with the store leaves each request done "
        "or not done",
        lambda rng: [
            [
                step("failpoint", "api", rng.uniform(0.2, 1), settle=False, failpoint=failpoint)
                for failpoint in _FAILPOINTS
            ],
            [
                step(
                    "failpoint",
                    "scheduler-leader",
                    rng.uniform(0.2, 1),
                    wait=2.0,
                    settle=False,
                    failpoint=failpoint,
                )
                for failpoint in _FAILPOINTS
            ],
        ],
    ),
    Scenario(
        "processes-skewed",
        "a process of ddq, or a host of the store, with another time promotes nothing too early",
        lambda rng: [
            [
                step("clock-jump", "api", rng.uniform(2, 4), settle=False, offset_ms=3_600_000),
                step("clock-jump", "scheduler", rng.uniform(2, 4), settle=False, offset_ms=-60_000),
                step("clock-jump", "master-host", rng.uniform(2, 4), offset_ms=2_500),
            ]
        ],
        duration_s=40.0,
    ),
    Scenario(
        "bad-connections",
        "connections that are slow, cut to pieces or narrow cost time, and no answer is wrong",
        lambda rng: [
            _bad("api-store", rng) + _bad("client-api", rng),
            _bad("scheduler-store", rng),
        ],
        duration_s=50.0,
    ),
    Scenario(
        "connections-lost",
        "connections that are reset or refused are made again, and no answer is wrong",
        lambda rng: [
            [
                step("cut", "api-store", rng.uniform(1, 3), settle=False),
                step("cut", "client-api", rng.uniform(1, 3), settle=False),
                step("reset", "client-api", rng.uniform(1, 3), settle=False, stream="upstream"),
            ],
            [step("reset", "scheduler-store", rng.uniform(2, 4), settle=False, stream="upstream")],
        ],
    ),
)

__all__ = ["CONNECTIONS"]
