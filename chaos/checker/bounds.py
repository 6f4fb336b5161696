"""The parameters of a judgement; printed with every result that depends on them."""

from __future__ import annotations

import msgspec


class Bounds(msgspec.Struct):
    """How exact the promises are taken.

    Attributes:
        clock_error_ms: how far the store's clock may be off the controller's, at most: what the run
            shows counts, if that is less.
        lateness_ms: G6 when healthy, for every task.
        recovery_ms: G6 after trouble: leadership time-out + settling time + 2 s.
        takeover_ms: G6 after a fault of a scheduler: leadership time-out + 1 s.
        search_nodes: how many partial orders the search of one task may try.
    """

    clock_error_ms: int = 1_000
    lateness_ms: int = 250
    recovery_ms: int = 12_000
    takeover_ms: int = 11_000
    search_nodes: int = 5_000
