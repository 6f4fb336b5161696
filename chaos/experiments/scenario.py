"""A scenario: what it guards, which faults it plays, and in which modes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chaos.clusters import Ability
from chaos.faults import KINDS, Kind, Mode, kind
from chaos.faults.model import LINK_TARGETS, Value
from chaos.faults.nemesis import Schedule, Step, draw

DEFAULT_MODE = Mode.QUORUM

Track = list[Step]
Plan = Callable[[random.Random], list[Track]]
"""Draws the tracks of a schedule, with times as multiples of down-after (see ``step``)."""
Possible = Callable[[Kind, str], bool]


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
                seed,
                duration_ms=round(self.duration_s * 1_000),
                down_after_ms=down_after_ms,
                mode=mode,
                kinds=_ALONE,
                possible=possible,
            ).beside(
                draw(
                    seed + 1,
                    duration_ms=round(self.duration_s * 1_000),
                    down_after_ms=down_after_ms,
                    mode=mode,
                    kinds=KINDS,
                    possible=lambda each, target: target in _BESIDE and possible(each, target),
                )
            )
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
    def fsync(self) -> bool:
        """Whether its modes claim it only where replies wait for the disks too."""
        if self.plan is None:
            return False
        return any(kind(step.kind).fsync for track in self.plan(random.Random(0)) for step in track)

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


_PROCESSES = frozenset({"api", "scheduler", "scheduler-leader"})
_BESIDE = _PROCESSES | LINK_TARGETS
# Of the store; what is beside them comes from the other track.
_ALONE = tuple(each for each in KINDS if not set(each.targets) <= _BESIDE)


def step(
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
        step.kind,
        step.target,
        step.strength,
        step.wait_ms * down_after_ms // 1_000,
        step.hold_ms * down_after_ms // 1_000,
        step.settle,
    )


def times(rng: random.Random, count: int, low: float, high: float) -> list[float]:
    """Spread over the range, one in each part of it, in any order."""
    width = (high - low) / count
    values = [low + width * (n + rng.random()) for n in range(count)]
    rng.shuffle(values)
    return values


__all__ = ["DEFAULT_MODE", "Scenario", "step", "times"]
