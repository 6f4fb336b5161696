"""Opens a store: puts connections, group commit, scripts and their users together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from redis.asyncio.connection import AbstractConnection

from ddq.config import MS_PER_SECOND, Settings
from ddq.entropy import Clock, Entropy, SystemClock, SystemEntropy
from ddq.store.commit import GroupCommit
from ddq.store.connection import Connection, RedisConnection
from ddq.store.hints import HintFeed
from ddq.store.jobstore import JobStore
from ddq.store.operations import Operations
from ddq.store.runner import ScriptRunner
from ddq.store.scripts import Script, default_scripts
from ddq.store.topics import TopicRegistry
from ddq.store.topology import Node, SingleTopology
from ddq.store.upkeep import Upkeep


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that speaks to one store."""

    topics: TopicRegistry
    jobs: JobStore
    upkeep: Upkeep
    operations: Operations
    hints: HintFeed
    settings: Settings
    clock: Clock
    entropy: Entropy
    commit: GroupCommit

    async def close(self) -> None:
        """Ends the connection; what still waits is told that the store is unreachable."""
        await self.commit.close()


def open_store(
    connector: Callable[[], AbstractConnection],
    settings: Settings,
    *,
    scripts: Mapping[str, Script] | None = None,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    connection: Connection | None = None,
) -> Store:
    """A store behind one node; nothing is connected before it is used.

    Args:
        connector: makes connections, for hints and, without ``connection``, for scripts.
        scripts, clock, entropy, connection: others than the usual ones, for tests.
    """
    clock = clock or SystemClock()
    entropy = entropy or SystemEntropy()
    commit = GroupCommit(
        connection or RedisConnection(connector),
        settings.store_timeout_ms / MS_PER_SECOND,
        settings.store_queue_max_count,
        settings.barrier_replicas_count,
    )
    runner = ScriptRunner(commit, scripts or default_scripts(), settings, clock, entropy)
    topics = TopicRegistry(runner, clock, entropy, auto_create=settings.auto_create_topics)
    return Store(
        topics=topics,
        jobs=JobStore(topics, entropy),
        upkeep=Upkeep(topics, entropy, settings),
        operations=Operations(topics, settings),
        hints=HintFeed(SingleTopology(Node("the store"), connector)),
        settings=settings,
        clock=clock,
        entropy=entropy,
        commit=commit,
    )
