"""A scenario as an experiment: its driver is the nemesis, which plays schedules of faults."""

from __future__ import annotations

import time
from collections.abc import Sequence

from chaos.clusters import ClusterError
from chaos.clusters.resp import ReplyError
from chaos.experiments.conclude import leaves
from chaos.experiments.deployment import Deployment, Needs
from chaos.experiments.lifecycle import Driver, Timing
from chaos.experiments.plan import RunPlan
from chaos.experiments.recorded import Experiment, RecordedSession
from chaos.experiments.scenario import Scenario
from chaos.experiments.scenarios import scenario
from chaos.faults.nemesis import Schedule, play
from chaos.workloads import find_workload

TIMING = Timing(before_s=1.0, after_s=1.0)
SERVED_SHARE = 0.95
OPERATIONS_SHARE = 0.3
"""The share of what producers would start at their rate that is required: faults, and this
machine, take the rest."""
_MOST_SCHEDULES = 1_000


def scenario_experiment(plan: RunPlan) -> Experiment:
    """The experiment that a plan describes.

    Raises:
        NotAvailableError: there is no such scenario.
    """
    chosen = scenario(plan.scenario)
    return Experiment(
        title=f"{plan.name}: {chosen.guards}",
        driver=nemesis(plan, chosen),
        workload=find_workload(plan.workload or chosen.workload),
        gates=required_gates(plan, chosen),
        timing=TIMING,
        needs=Needs(chosen.needs, chosen.links),
        allows_for_timers=True,
    )


def required_gates(plan: RunPlan, chosen: Scenario) -> dict[str, float]:
    """What the run has to meet to prove anything."""
    length_s = max(plan.duration_s, chosen.duration_s)
    return {
        "operations": round(plan.rate * length_s * OPERATIONS_SHARE),
        "faults verified": 1,
        "operations during faults": 10,
        "served share when healthy": SERVED_SHARE,
        **({"failovers": chosen.failovers} if chosen.failovers else {}),
        **chosen.gates,
    }


def nemesis(plan: RunPlan, chosen: Scenario) -> Driver[RecordedSession]:
    """Plays schedules until the plan's time is over; at least one."""

    async def drive(session: RecordedSession) -> None:
        began_s = time.monotonic()
        for schedule in plan.schedules or _drawn(plan, chosen, session.deployment):
            session.begin_schedule(schedule)
            early: list[str] = []
            try:
                await play(schedule, session.deployment.context, session.faults.record)
            except* (ClusterError, ReplyError, OSError) as errors:
                early = [f"the faults ended early: {error}" for error in leaves(errors)]
            session.problems += early
            if early:
                break
            if not plan.schedules and time.monotonic() - began_s >= plan.duration_s:
                break

    return drive


def _drawn(plan: RunPlan, chosen: Scenario, deployment: Deployment) -> Sequence[Schedule]:
    return [
        chosen.schedule(
            plan.seed + 1_000 * again,
            plan.down_after_ms,
            plan.mode,
            lambda kind, target: (
                (plan.fsync or not kind.fsync)
                and kind.unavailable(deployment.context, target) is None
            ),
        )
        for again in range(_MOST_SCHEDULES if plan.duration_s else 1)
    ]


__all__ = ["nemesis", "required_gates", "scenario_experiment"]
