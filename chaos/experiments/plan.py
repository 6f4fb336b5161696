"""The plan of a run: written into its folder before it begins, and read again to replay it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chaos.checker.bounds import Bounds
from chaos.experiments.timers import HOPS
from chaos.faults import Mode
from chaos.faults.nemesis import Schedule
from chaos.history.reader import BadHistoryError

SETTLING_S = 1.8
"""How long QUORUM waits for all replicas of a new master; docs/adr/012."""
RECOVERY_MARGIN_S = 2.0
TAKEOVER_MARGIN_S = 1.0
"""How long a standby may take to lead when the leadership of another one has lapsed."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run.

    Attributes:
        rate: operations a second that producers start together.
        duration_s: the scenario is repeated, with other seeds, until this has passed; 0: once.
        cluster: process or docker.
        down_after_ms: Sentinel's.
        mutation: name of a seeded mutation; "" for ddq as it is.
        schedules: what to play instead of what the scenario draws: a replay.
    """

    scenario: str
    seed: int
    mode: Mode
    fsync: bool = False
    rate: float = 100.0
    duration_s: float = 0.0
    cluster: str = "process"
    down_after_ms: int = 2_000
    leader_lease_ms: int = 2_000
    workload: str = ""
    mutation: str = ""
    schedules: tuple[Schedule, ...] = ()

    @property
    def name(self) -> str:
        """For folders and reports."""
        what = [self.scenario, self.mode.value, *(["fsync"] if self.fsync else []), str(self.seed)]
        return "-".join([*what, *([self.mutation] if self.mutation else [])])

    @property
    def command(self) -> str:
        """What runs it again."""
        return (
            f"python -m chaos run {self.scenario} --seed {self.seed} "
            f"--durability {self.mode.value} {'--fsync ' if self.fsync else ''}"
            f"--rate {self.rate:g} --duration {self.duration_s:g} --cluster {self.cluster} "
            f"--down-after-ms {self.down_after_ms}"
            f"{f' --workload {self.workload}' if self.workload else ''}"
            f"{f' --mutation {self.mutation}' if self.mutation else ''}"
        )

    def bounds(self, timers_late_ms: float = 0.0) -> Bounds:
        """G6's bound after a fault is: leadership time-out + settling time + 2 s.

        Args:
            timers_late_ms: what the machine adds to a healthy lateness, once for each hop.
        """
        lease_s = self.leader_lease_ms / 1_000
        recovery_s = lease_s + SETTLING_S + RECOVERY_MARGIN_S
        takeover_s = lease_s + TAKEOVER_MARGIN_S
        healthy_ms = Bounds().lateness_ms + HOPS * timers_late_ms
        return Bounds(
            lateness_ms=round(healthy_ms),
            recovery_ms=round(recovery_s * 1_000),
            takeover_ms=round(takeover_s * 1_000),
        )


class _Saved(msgspec.Struct):
    """schedule.json."""

    command: str
    run: dict[str, object]
    gates: dict[str, float]
    bounds: Bounds
    faults: list[dict[str, object]]


def save_plan(
    path: Path,
    plan: RunPlan,
    gates: Mapping[str, float],
    played: list[Schedule],
    timers_late_ms: float = 0.0,
) -> None:
    """Writes schedule.json; again whenever another schedule begins."""
    run = {
        name: getattr(plan, name)
        for name in (
            "scenario",
            "seed",
            "fsync",
            "rate",
            "duration_s",
            "cluster",
            "down_after_ms",
            "leader_lease_ms",
            "workload",
        )
    }
    run["bug"] = plan.mutation  # its name in this file
    saved = _Saved(
        plan.command,
        {**run, "mode": plan.mode.value},
        dict(gates),
        plan.bounds(timers_late_ms),
        [json.loads(schedule.to_json()) for schedule in played],
    )
    path.write_bytes(msgspec.json.format(msgspec.json.encode(saved)) + b"\n")


def read_plan(path: Path) -> RunPlan:
    """The plan of a run that was, with the schedules that were played.

    Raises:
        BadHistoryError: there is none, or it is not of a run of this version.
    """
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=_Saved)
        schedules = tuple(Schedule.from_json(json.dumps(one)) for one in saved.faults)
        run = {**saved.run, "mode": Mode(str(saved.run["mode"]))}
        run["mutation"] = run.pop("bug", "")
        return RunPlan(**run, schedules=schedules)  # type: ignore[arg-type]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadHistoryError(f"{path}: no plan that can be replayed: {error}") from None


def saved_bounds(path: Path) -> Bounds:
    """Those that a run was judged by; the defaults if it does not say."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Saved).bounds
    except (OSError, msgspec.DecodeError):
        return Bounds()


__all__ = ["RunPlan", "read_plan", "save_plan", "saved_bounds"]
