"""What the store has confirmed to this process, so that a store that lost some of it is noticed.

Each process counts its calls in a field of its own of every shard, and sends along how far that had
come when a reply last left at QUORUM or ALL. A script that finds less refuses (ROLLBACK), so that a
store which came back without what it had confirmed fails closed instead of starting over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ddq.config import MS_PER_SECOND
from ddq.entropy import Clock, Entropy

NAME_BYTES = 8
RENAME_S = 3_600.0
"""A process takes a new name after this long, so that the store need not keep names for ever: those
that were not used for two hours are removed (PROCESS_KEPT_MS in prelude/control.lua)."""

Scope = bytes
"""The life of a shard, or the registry: a topic that is recreated begins again."""
REGISTRY: Scope = b""


def shard_scope(uid: bytes, index: int) -> Scope:
    """The scope of a topic's shard."""
    return uid + index.to_bytes(2, "big")


@dataclass(slots=True)
class Ledger:
    """What was confirmed under one name: counter and recovery of each scope.

    Attributes:
        since_s: when the name was taken, in the event loop's time.
        since_ms: the same by this process's clock, in ms since 1970.
    """

    name: str
    since_s: float
    since_ms: int
    confirmed: dict[Scope, tuple[int, int]] = field(default_factory=dict)

    def arguments(self, scope: Scope) -> list[str | int]:
        """The arguments of a script: name, confirmed counter, known recovery."""
        count, recovery = self.confirmed.get(scope, (0, 0))
        return [self.name, count, recovery]

    def confirm(self, scope: Scope, count: int, recovery: int) -> None:
        """A reply with these figures has left at QUORUM or ALL."""
        known_count, known_recovery = self.confirmed.get(scope, (0, 0))
        if recovery > known_recovery:
            # An operator has accepted the loss: what was confirmed before it does not count.
            known_count = 0
        if recovery >= known_recovery:
            self.confirmed[scope] = (max(known_count, count), recovery)


NO_PROCESS: list[str | int] = ["", 0, 0]
"""The arguments of callers that expect nothing: schedulers, and requests in FAST."""


class Ledgers:
    """Hands out the present ledger, and begins another every hour.

    Args:
        clock: of this process. The event loop's time stands still while the machine is suspended,
            and the store forgets the name of a process that was silent for two hours by its clock:
            by the loop's time alone the process would then report a rollback that never happened.
    """

    def __init__(self, entropy: Entropy, clock: Clock) -> None:
        self._entropy = entropy
        self._clock = clock
        self._current: Ledger | None = None

    def current(self, now_s: float) -> Ledger:
        """The ledger to use now.

        What was confirmed under the last name is forgotten with it: a loss that was not detected
        within its hour is detected by no counter.

        Args:
            now_s: the event loop's time.
        """
        now_ms = self._clock.now_ms()
        ledger = self._current
        if (
            ledger is None
            or now_s - ledger.since_s > RENAME_S
            or abs(now_ms - ledger.since_ms) > RENAME_S * MS_PER_SECOND
        ):
            ledger = Ledger(self._entropy.token(NAME_BYTES).hex(), now_s, now_ms)
            self._current = ledger
        return ledger
