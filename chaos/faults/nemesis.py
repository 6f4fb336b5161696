"""Decides from a seed which fault comes when, and injects it.

A schedule is tracks that run beside each other, each of steps that follow one another. It is
written down before it is played, and what was written plays again.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from chaos.clusters import ClusterError, NotAvailableError
from chaos.clusters.resp import ReplyError
from chaos.faults.catalogue import KINDS, kind
from chaos.faults.model import DidNotHappenError, Evidence, FaultContext, Kind, Mode, Value

SETTLE_TIMEOUT_S = 90.0
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a schedule.

    Attributes:
        kind, target, strength: see the catalogue.
        wait_ms: after the step before it.
        hold_ms: between inject and heal.
        settle: wait until the store is in sync again before the track continues. Without, the next
            fault comes while the last one is still being repaired.
    """

    kind: str
    target: str
    strength: Mapping[str, Value] = field(default_factory=dict)
    wait_ms: int = 0
    hold_ms: int = 0
    settle: bool = True


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which faults come when.

    Attributes:
        seed: what it was drawn from; None if it was written by hand.
        down_after_ms: Sentinel's, which the times are relative to.
    """

    tracks: tuple[tuple[Step, ...], ...]
    down_after_ms: int
    seed: int | None = None

    def beside(self, other: Schedule) -> Schedule:
        """Both at once."""
        return replace(self, tracks=(*self.tracks, *other.tracks))

    def without(self, track: int, step: int) -> Schedule:
        """One step fewer, to cut a failing schedule down."""
        steps = self.tracks[track]
        fewer = (*steps[:step], *steps[step + 1 :])
        return replace(self, tracks=(*self.tracks[:track], fewer, *self.tracks[track + 1 :]))

    def to_json(self) -> str:
        """What schedule.json holds."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """Reads what ``to_json`` wrote.

        Raises:
            ValueError: it is not a schedule; the message says what is wrong.
        """
        try:
            document: dict[str, Any] = json.loads(text)
            if document.pop("format") != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT}")
            tracks = tuple(tuple(Step(**s) for s in steps) for steps in document.pop("tracks"))
            for step in (step for steps in tracks for step in steps):
                if step.target not in kind(step.kind).targets:
                    raise ValueError(f"{step.kind} cannot hit {step.target}")
            return cls(tracks=tracks, **document)
        except (AttributeError, KeyError, NotAvailableError, TypeError, ValueError) as error:
            raise ValueError(f"not a schedule: {error}") from None


def draw(
    seed: int,
    *,
    duration_ms: int,
    down_after_ms: int,
    mode: Mode | None = None,
    kinds: Sequence[Kind] = KINDS,
    possible: Callable[[Kind, str], bool] = lambda _kind, _target: True,
    tracks_count: int = 1,
) -> Schedule:
    """Draws a schedule; equal arguments give an equal one.

    Args:
        duration_ms: about how long it is to last, without the time that the store takes to settle.
        mode: only what this durability promises to bear; None for everything.
        possible: what can be had here, as ``Kind.unavailable`` says.
        tracks_count: how many faults may be there at a time. More than one goes beyond what QUORUM
            claims: one host at a time.

    Raises:
        ValueError: nothing is left to choose from.
    """
    chosen = [
        (each, target)
        for each in kinds
        for target, modes in each.targets.items()
        if (mode is None or mode in modes) and possible(each, target)
    ]
    if not chosen:
        raise ValueError("no fault is possible here that this mode promises to bear")
    rng = random.Random(seed)
    tracks = tuple(
        _draw_track(rng, chosen, duration_ms=duration_ms, down_after_ms=down_after_ms)
        for _ in range(tracks_count)
    )
    return Schedule(tracks, down_after_ms, seed)


def _draw_track(
    rng: random.Random,
    chosen: Sequence[tuple[Kind, str]],
    *,
    duration_ms: int,
    down_after_ms: int,
) -> tuple[Step, ...]:
    steps: list[Step] = []
    elapsed_ms = 0
    # Every kind comes before any comes again: a short run then has as many of them as it can.
    deck: list[tuple[Kind, str]] = []
    while True:
        if not deck:
            deck = list(chosen)
            rng.shuffle(deck)
        each, target = deck.pop()
        low, high = each.hold
        step = Step(
            each.name,
            target,
            {name: rng.choice(values) for name, values in each.strengths.items()},
            wait_ms=round(rng.uniform(0.5, 2.0) * down_after_ms),
            hold_ms=round(rng.uniform(low, high) * down_after_ms),
            # Now and then the next fault comes before the store has recovered from the last one.
            settle=rng.random() < 0.75,
        )
        elapsed_ms += step.wait_ms + step.hold_ms
        if steps and elapsed_ms > duration_ms:
            return (*steps[:-1], replace(steps[-1], settle=True))
        steps.append(step)


class FaultPhase(StrEnum):
    """The outcome of a step."""

    BEGUN = "begun"
    INJECTED = "injected"
    VERIFIED = "verified"
    HEALED = "healed"
    SETTLED = "settled"
    NOT_AVAILABLE = "not-available"
    DID_NOT_HAPPEN = "did-not-happen"


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """One moment of a step, for the history.

    Attributes:
        number: of the step, the same for all its events: ``track.step``.
    """

    number: str
    phase: FaultPhase
    step: Step
    evidence: Evidence = field(default_factory=dict)


async def play(
    schedule: Schedule, context: FaultContext, tell: Callable[[FaultEvent], None]
) -> None:
    """Plays a schedule to its end; every fault is healed when it returns, however it does.

    Faults that cannot be had here, and those that did not happen, are reported and skipped.
    """
    async with asyncio.TaskGroup() as group:
        for number, steps in enumerate(schedule.tracks):
            group.create_task(_play_track(number, steps, context, tell))


async def _play_track(
    number: int, steps: Sequence[Step], context: FaultContext, tell: Callable[[FaultEvent], None]
) -> None:
    for position, step in enumerate(steps):
        await asyncio.sleep(step.wait_ms / 1_000)
        await _play_step(f"{number}.{position}", step, context, tell)


async def _play_step(
    number: str, step: Step, context: FaultContext, tell: Callable[[FaultEvent], None]
) -> None:
    def say(phase: FaultPhase, evidence: Evidence | None = None) -> None:
        tell(FaultEvent(number, phase, step, evidence or {}))

    each = kind(step.kind)
    if why := each.unavailable(context, step.target):
        say(FaultPhase.NOT_AVAILABLE, {"why": why})
        return
    before = await _master(context)
    fault = each.make(context, step.target, step.strength)
    # An ordered failover has effects from its order on, and is there only seconds later.
    say(FaultPhase.BEGUN)
    try:
        say(FaultPhase.INJECTED, await fault.inject())
        await asyncio.sleep(step.hold_ms / 1_000)
        say(FaultPhase.VERIFIED, await fault.verify())
    except NotAvailableError as error:
        say(FaultPhase.NOT_AVAILABLE, {"why": str(error)})
        return
    except (DidNotHappenError, OSError, ReplyError) as error:
        # Beside another fault, or behind one that is not settled, a node may not be there to hit.
        say(FaultPhase.DID_NOT_HAPPEN, {"why": str(error)})
    finally:
        await fault.heal()
    say(FaultPhase.HEALED)
    if step.settle:
        await context.cluster.wait_until_in_sync(SETTLE_TIMEOUT_S)
        after = await context.cluster.wait_for_master(None, SETTLE_TIMEOUT_S)
        say(FaultPhase.SETTLED, {"old_master": before, "new_master": after.name})


async def _master(context: FaultContext) -> str:
    """Its name; empty while there is none."""
    try:
        return (await context.cluster.master()).name
    except ClusterError:
        return ""
