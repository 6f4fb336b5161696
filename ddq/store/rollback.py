"""What the store has confirmed to this process, so that a store that lost some of it is noticed.

Each process counts its calls in a field of its own of every shard, and sends along how far that had
come when a reply last left at QUORUM or ALL. A script that finds less refuses (ROLLBACK), so that a
store which came back without what it had confirmed fails closed instead of starting over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ddq.entropy import Entropy

NAME_BYTES = 8
RENAME_S = 3_600.0
"""A process takes a new name after this long, so that the store need not keep names for ever: those
that were not used for two hours are removed (PROCESS_KEPT_MS in prelude.lua)."""

Scope = bytes
"""The life of a shard, or the registry: a topic that is made anew begins anew."""
REGISTRY: Scope = b""


def shard_scope(uid: bytes, index: int) -> Scope:
    """The scope of a topic's shard."""
    return uid + index.to_bytes(2, "big")


@dataclass(slots=True)
class Ledger:
    """What was confirmed under one name: counter and recovery of each scope."""

    name: str
    since_s: float
    confirmed: dict[Scope, tuple[int, int]] = field(default_factory=dict)

    def arguments(self, scope: Scope) -> list[str | int]:
        """What a script is told: name, confirmed counter, known recovery."""
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


NOBODY: list[str | int] = ["", 0, 0]
"""The arguments of who expects nothing: schedulers, and requests in FAST."""


class Ledgers:
    """Hands out the present ledger, and begins another every hour."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._current: Ledger | None = None

    def current(self, now_s: float) -> Ledger:
        """The ledger to use now.

        What was confirmed under the last name is let go with it: a loss that nobody met within its
        hour shows itself to no counter.
        """
        if self._current is None or now_s - self._current.since_s > RENAME_S:
            self._current = Ledger(self._entropy.token(NAME_BYTES).hex(), now_s)
        return self._current
