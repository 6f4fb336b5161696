"""The parameters of a judgement; printed with every result that depends on them."""

from __future__ import annotations

import msgspec


class Bounds(msgspec.Struct):
    """How exact the promises are taken.

    Attributes:
        clock_error_ms: how far the store's clock may be off the controller's.
        lateness_ms: G6 when healthy, at the quantile.
        recovery_ms: G6 after a fault: leadership time-out + settling time + 2 s.
        lateness_quantile: share of tasks that must keep the bound.
        search_nodes: how many partial orders the search of one task may try.
    """

    clock_error_ms: int = 1_000
    lateness_ms: int = 250
    recovery_ms: int = 12_000
    lateness_quantile: float = 0.999
    search_nodes: int = 5_000
