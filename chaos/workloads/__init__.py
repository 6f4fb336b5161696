"""What clients do while faults are injected; one workload per file, through the public client."""

from __future__ import annotations

from chaos.workloads.actor import Actor, Load, Workload
from chaos.workloads.bank import BANK
from chaos.workloads.bursts import BURSTS
from chaos.workloads.cancel_race import CANCEL_RACE
from chaos.workloads.lease_race import LEASE_RACE
from chaos.workloads.mixed import MIXED
from chaos.workloads.patient import PATIENT

WORKLOADS = {each.name: each for each in (MIXED, CANCEL_RACE, LEASE_RACE, BANK, BURSTS, PATIENT)}

__all__ = ["WORKLOADS", "Actor", "Load", "Workload"]
