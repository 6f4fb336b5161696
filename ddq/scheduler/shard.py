"""What a scheduler knows of one shard. Times are the event loop's, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ddq.scheduler.queue import Turn
from ddq.store.keys import ShardId
from ddq.store.offset import StoreOffset
from ddq.store.scheduler_api import Leadership, NextWakeUp

NEVER_S = float("inf")
LONG_AGO_S = float("-inf")

# The store counts whole milliseconds: a scheduler that wakes at the very instant may be a fraction
# early.
MARGIN_S = 0.001
# A scheduler that was turned away lets the leader begin: at the moment at which something is due
# that one is at work. A shard whose leader is gone is late by this, once.
HOLD_BACK_S = 0.05


@dataclass(eq=False, slots=True)
class Shard:
    """One shard.

    Attributes:
        rank: of this scheduler on it.
        turn: its place in the queue of visits.
        leadership: by which this scheduler leads it, as far as it knows.
        led_until_s: until when no scheduler of the same or a lower rank takes it.
        taken_until_s: another scheduler leads until then, as far as this one knows.
        turned_away: another scheduler led when this one last asked.
        resignations: how many of its leaders were reported to have resigned.
        postponed_s: when there is something to do that waits for the leadership of another.
        offset: of the clock of the store node that has it.
        next_wake_up: when there is next something to do, by the last reply.
        collectable: its last survey or collection found tombstones or request records to remove.
        outdated: its keys and records are not all of the format that the store allows.
        spread: its next safety scan comes after a part of the interval only, another one on each
            shard, so that the scans of all shards do not fall together.
        failures: visits in a row that failed.
        counts, oldest_ready_ms: by the last survey.
    """

    id: ShardId
    rank: int
    turn: Turn = field(default_factory=Turn)
    leadership: Leadership | None = None
    led_until_s: float = LONG_AGO_S
    taken_until_s: float = LONG_AGO_S
    turned_away: bool = False
    resignations: int = 0
    postponed_s: float = NEVER_S
    offset: StoreOffset = field(default_factory=StoreOffset)
    next_wake_up: NextWakeUp | None = None
    collectable: bool = False
    outdated: bool = False
    spread: bool = True
    failures: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    oldest_ready_ms: int = 0

    @property
    def more(self) -> bool:
        """Whether something was due when the store last replied."""
        return self.next_wake_up is not None and (
            self.next_wake_up.promotable or self.next_wake_up.reapable
        )

    def note(self, next_wake_up: NextWakeUp, asked_s: float, answered_s: float) -> None:
        """Keeps what a reply says of the store's clock and of what comes next."""
        self.offset.note(next_wake_up.store_ms, asked_s, answered_s)
        self.next_wake_up = next_wake_up

    def local_s(self, store_ms: int) -> float:
        """The event loop's time at which the clock of the store is at ``store_ms``."""
        return self.offset.local_s(store_ms) + MARGIN_S

    def moment_s(self, store_ms: int) -> float:
        """When to visit it for something due at ``store_ms``: if another scheduler leads, later."""
        at_s = self.local_s(store_ms)
        if self.leadership is not None:
            return at_s
        if at_s < self.taken_until_s:
            self.postponed_s = min(self.postponed_s, at_s)
        return max(at_s + HOLD_BACK_S * self.turned_away, self.taken_until_s)

    def next_s(self) -> float:
        """When to visit it for the next due time or lease expiry; NEVER_S if there is none."""
        assert self.next_wake_up is not None
        known = (self.next_wake_up.due_ms, self.next_wake_up.expiry_ms)
        return min((self.moment_s(at_ms) for at_ms in known if at_ms is not None), default=NEVER_S)

    def free(self, next_ms: int) -> float:
        """Its leader has resigned; when to visit it.

        Args:
            next_ms: when there is something to do, by the leader's last look.
        """
        self.resignations += 1
        self.taken_until_s, self.turned_away = LONG_AGO_S, False
        # A hint of an earlier task may have come before this one.
        return min(self.moment_s(next_ms), self.postponed_s)
