"""Watches a run from outside: roles, leaders and counters of processes, for the history."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal

from chaos.checker.promises.g12_one_leader import SHARDS_LED
from chaos.clusters import ClusterError, NodeKind, Role, StoreNode
from chaos.clusters.resp import ReplyError
from chaos.experiments.deployment import Deployment
from chaos.experiments.progress import Progress
from chaos.history.notes import LeaderNote, MetricNote, RoleNote
from chaos.history.writer import HistoryWriter
from chaos.systems.protocol import Observation

ROLE_PERIOD_S = 0.25
METRIC_PERIOD_S = 1.0

RoleName = Literal["master", "replica", "sentinel", "down", "unknown"]


class Watch:
    """Samples until it is cancelled; a note is written when something changes."""

    def __init__(self, deployment: Deployment, writer: HistoryWriter, progress: Progress) -> None:
        self._deployment = deployment
        self._writer = writer
        self._progress = progress
        self._roles: dict[str, RoleName] = {}
        self._leaders: dict[str, float] = {}
        self._counters: dict[tuple[str, str], float] = {}

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
            roles = await asyncio.gather(*map(cluster.role, data))
            for node, role in zip(data, roles, strict=True):
                self._note_role(node, _role_name(role, chosen=node == master))
            await asyncio.sleep(ROLE_PERIOD_S)

    def _note_role(self, node: StoreNode, role: RoleName) -> None:
        if role == "master":
            self._progress.master = node.name
        if self._roles.get(node.name) != role:
            self._roles[node.name] = role
            self._writer.note(node.name, "role", RoleNote(role))

    async def _watch_processes(self) -> None:
        while True:
            for observation in await self._deployment.system.observe():
                self._note_observation(observation)
            most = max(self._leaders, key=self._leaders.__getitem__, default="")
            self._progress.leader = most if self._leaders.get(most) else "?"
            await asyncio.sleep(METRIC_PERIOD_S)

    def _note_observation(self, seen: Observation) -> None:
        if self._leaders.get(seen.process, 0.0) != seen.shards_led:
            self._leaders[seen.process] = seen.shards_led
            note = LeaderNote(f"{seen.shards_led:g} shards", leads=bool(seen.shards_led))
            self._writer.note(seen.process, "leader", note)
        # Sampled, not only when it changes: G12 looks at how long it lasts.
        self._writer.note(seen.process, "metric", MetricNote(SHARDS_LED, seen.shards_led))
        for name, value in seen.counters.items():
            if self._counters.get((seen.process, name)) != value:
                self._counters[seen.process, name] = value
                self._writer.note(seen.process, "metric", MetricNote(name, value))


def _role_name(role: Role, *, chosen: bool) -> RoleName:
    """A demoted master that has not noticed it is of unknown role: a majority names another."""
    match role:
        case Role.MASTER:
            return "master" if chosen else "unknown"
        case Role.REPLICA:
            return "replica"
        case Role.SENTINEL:
            return "sentinel"
        case Role.UNREACHABLE:
            return "down"


@contextlib.asynccontextmanager
async def watching(
    deployment: Deployment, writer: HistoryWriter, progress: Progress
) -> AsyncIterator[None]:
    """Watches until the block ends."""
    watch = asyncio.create_task(Watch(deployment, writer, progress).run(), name="chaos watch")
    try:
        yield
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


__all__ = ["Watch", "watching"]
