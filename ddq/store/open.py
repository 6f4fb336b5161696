"""Opens a store: puts topology, connections, scripts and their users together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ddq.config import MS_PER_SECOND, SECOND_MS, Settings
from ddq.entropy import Clock, Entropy, SystemClock, SystemEntropy
from ddq.metrics import Metrics, null_metrics
from ddq.store.barrier import Barrier, DataNodes, Timing
from ddq.store.directory import TopicDirectory
from ddq.store.hints import HintFeed
from ddq.store.jobstore import JobStore
from ddq.store.operator_api import OperatorApi
from ddq.store.recovery_api import RecoveryApi
from ddq.store.router import Router
from ddq.store.runner import ScriptRunner
from ddq.store.scheduler_api import SchedulerApi
from ddq.store.scripts import Script, default_scripts
from ddq.store.shard_scripts import ShardScripts
from ddq.store.shard_settings import ShardSettings
from ddq.store.topics import TopicRegistry
from ddq.store.topology import Topology
from ddq.task import Durability

DOWN_AFTER_MS = 5 * SECOND_MS
"""Until the store's own failover was asked for its time."""


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that speaks to one store."""

    topics: TopicRegistry
    shard_settings: ShardSettings
    scripts: ShardScripts
    directory: TopicDirectory
    jobs: JobStore
    scheduler_api: SchedulerApi
    operator_api: OperatorApi
    recovery_api: RecoveryApi
    hints: HintFeed
    settings: Settings
    clock: Clock
    entropy: Entropy
    router: Router
    metrics: Metrics

    async def close(self) -> None:
        """Ends the connections; requests that still wait get StoreUnreachable."""
        await self.router.close()


def open_store(
    topology: Topology,
    settings: Settings,
    *,
    scripts: Mapping[str, Script] | None = None,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    metrics: Metrics | None = None,
) -> Store:
    """A store behind a topology; nothing is connected before it is used.

    Args:
        scripts, clock, entropy: others than the usual ones, for tests.
        metrics: where to count; None: nowhere that is read.

    Raises:
        ValueError: data_nodes or durability cannot be read; see check_settings.
    """
    metrics = metrics or null_metrics()
    clock = clock or SystemClock()
    entropy = entropy or SystemEntropy()
    scripts = scripts or default_scripts()
    timing = Timing.of((settings.down_after_ms or DOWN_AFTER_MS) / MS_PER_SECOND)
    router = Router(
        topology, scripts, settings, DataNodes.parse(settings.data_nodes), timing, metrics
    )
    durability = Durability[settings.durability.upper()]
    default = Barrier(durability, settings.fsync and durability is not Durability.FAST)
    runner = ScriptRunner(router, default, scripts, settings, clock, entropy, metrics)
    shard_settings = ShardSettings(runner)
    topics = TopicRegistry(
        runner, shard_settings, clock, entropy, auto_create=settings.auto_create_topics
    )
    shard_scripts = ShardScripts(runner, topics, shard_settings)
    directory = TopicDirectory(topics)
    return Store(
        topics=topics,
        shard_settings=shard_settings,
        scripts=shard_scripts,
        directory=directory,
        jobs=JobStore(topics, shard_scripts, entropy, metrics),
        scheduler_api=SchedulerApi(shard_scripts, entropy, settings),
        operator_api=OperatorApi(topics, shard_scripts, settings),
        recovery_api=RecoveryApi(topics, shard_scripts, directory, clock),
        hints=HintFeed(topology),
        settings=settings,
        clock=clock,
        entropy=entropy,
        router=router,
        metrics=metrics,
    )
