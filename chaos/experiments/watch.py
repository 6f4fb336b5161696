"""Watches a run from outside: who is master, who leads, what processes count; for the history."""

from __future__ import annotations

import asyncio
from typing import Literal

from chaos.checker.promises.g12_one_leader import SHARDS_LED
from chaos.clusters import ClusterError, NodeKind, Role, StoreNode
from chaos.clusters.resp import ReplyError
from chaos.experiments.deployment import Deployment
from chaos.experiments.progress import Progress
from chaos.history.operations import LeaderNote, MetricNote, RoleNote
from chaos.history.writer import HistoryWriter

ROLE_PERIOD_S = 0.25
METRIC_PERIOD_S = 1.0

COUNTED = {"ddq_scheduler_deposed_total": "deposed_batches_refused"}
"""Figures of the processes that gates are measured on."""

Said = Literal["master", "replica", "sentinel", "down", "unknown"]


class Watch:
    """Samples until it is cancelled; a note is written when something changes."""

    def __init__(self, deployment: Deployment, writer: HistoryWriter, progress: Progress) -> None:
        self._deployment = deployment
        self._writer = writer
        self._progress = progress
        self._roles: dict[str, Said] = {}
        self._leaders: dict[str, float] = {}
        self._metrics: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_roles(), name="chaos roles")
            group.create_task(self._watch_processes(), name="chaos processes")

    async def _watch_roles(self) -> None:
        cluster = self._deployment.cluster
        while True:
            data = [node for node in cluster.nodes if node.kind is NodeKind.DATA]
            try:
                master: StoreNode | None = await cluster.master()
            except (ClusterError, OSError, ReplyError):
                master = None
            for node, role in zip(
                data, await asyncio.gather(*map(cluster.role, data)), strict=True
            ):
                self._note_role(node, _said(role, chosen=node == master))
            await asyncio.sleep(ROLE_PERIOD_S)

    def _note_role(self, node: StoreNode, said: Said) -> None:
        if said == "master":
            self._progress.master = node.name
        if self._roles.get(node.name) != said:
            self._roles[node.name] = said
            self._writer.note(node.name, "role", RoleNote(said))

    async def _watch_processes(self) -> None:
        system = self._deployment.system
        while True:
            schedulers = list(system.schedulers)
            found = await asyncio.gather(*map(system.metrics, schedulers))
            for process, metrics in zip(schedulers, found, strict=True):
                led = metrics.get("ddq_scheduler_shards_led", 0.0)
                if self._leaders.get(process.name, 0.0) != led:
                    self._leaders[process.name] = led
                    self._writer.note(
                        process.name, "leader", LeaderNote(f"{led:g} shards", leads=bool(led))
                    )
                # Sampled, not only when it changes: that it lasts is what counts.
                self._writer.note(process.name, "metric", MetricNote(SHARDS_LED, led))
                for name, counted in COUNTED.items():
                    value = metrics.get(name)
                    if value is not None and self._metrics.get((process.name, name)) != value:
                        self._metrics[process.name, name] = value
                        self._writer.note(process.name, "metric", MetricNote(counted, value))
            most = max(self._leaders, key=self._leaders.__getitem__, default="")
            self._progress.leader = most if self._leaders.get(most) else "?"
            await asyncio.sleep(METRIC_PERIOD_S)


def _said(role: Role, *, chosen: bool) -> Said:
    """A deposed master that does not know it is none in the eyes of those who elect."""
    match role:
        case Role.MASTER:
            return "master" if chosen else "unknown"
        case Role.REPLICA:
            return "replica"
        case Role.SENTINEL:
            return "sentinel"
        case Role.UNREACHABLE:
            return "down"


__all__ = ["Watch"]
