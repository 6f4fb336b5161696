"""What clients do while faults are injected; one workload per file, through the public client."""

from __future__ import annotations

from chaos.workloads.actor import Actor, Load, Workload
from chaos.workloads.bank import BANK
from chaos.workloads.bursts import BURSTS
from chaos.workloads.cancel_race import CANCEL_RACE
from chaos.workloads.few_ids import FEW_IDS
from chaos.workloads.lease_race import LEASE_RACE
from chaos.workloads.libraries import LIBRARIES
from chaos.workloads.long_timeouts import LONG_TIMEOUTS
from chaos.workloads.mixed import MIXED
from chaos.workloads.operators import OPERATORS

WORKLOADS = {
    each.name: each
    for each in (
        MIXED,
        CANCEL_RACE,
        LEASE_RACE,
        BANK,
        BURSTS,
        FEW_IDS,
        OPERATORS,
        LIBRARIES,
        LONG_TIMEOUTS,
    )
}
RETIRED_NAMES = {"patient": LONG_TIMEOUTS.name}
"""Names of 0.2.0, in commands of users and in schedules on disk."""


def find_workload(name: str) -> Workload:
    """A workload by its name, or by the one that it had in 0.2.0; KeyError if there is none."""
    return WORKLOADS[RETIRED_NAMES.get(name, name)]


__all__ = [
    "LONG_TIMEOUTS",
    "RETIRED_NAMES",
    "WORKLOADS",
    "Actor",
    "Load",
    "Workload",
    "find_workload",
]
