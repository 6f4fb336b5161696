"""The sums over all shards that Prometheus gets."""

from __future__ import annotations

from typing import Any

from ddq.metrics import Metrics
from ddq.scheduler.gauges import ShardGauges
from ddq.scheduler.shard import Shard
from ddq.store.keys import ShardId
from ddq.store.records import FORMAT
from ddq.store.scheduler_api import NextWakeUp, Survey
from tests.scheduler.simulation import RECEIPT, START_MS


def survey(**counts: int) -> Survey:
    """What a survey found, of a shard whose oldest ready task has been due for 5 s."""
    nothing = NextWakeUp(START_MS, None, None, None)
    return Survey(counts, 0, START_MS - 5_000, 1, FORMAT, nothing, RECEIPT)


def value(metrics: Metrics, name: str, **labels: str) -> Any:
    """A figure as Prometheus reads it."""
    return metrics.registry.get_sample_value(name, labels)


def test_sums_follow_the_surveys_of_each_shard() -> None:
    metrics = Metrics()
    one, other = shards = [Shard(ShardId("jobs", index), 0) for index in range(2)]
    known = {shard.id: shard for shard in shards}
    gauges = ShardGauges(metrics, known)
    gauges.serve()
    gauges.note(one, survey(ready=3, stray=1))
    gauges.note(other, survey(ready=4))
    assert value(metrics, "ddq_scheduler_shards") == 2
    assert value(metrics, "ddq_tasks", state="ready") == 7
    assert value(metrics, "ddq_malformed_entries", kind="stray") == 1
    assert value(metrics, "ddq_oldest_ready_age_seconds") == 5
    gauges.note(one, survey(ready=1))
    assert value(metrics, "ddq_tasks", state="ready") == 5
    assert value(metrics, "ddq_malformed_entries", kind="stray") == 0


def test_a_shard_that_is_gone_counts_no_more_even_if_a_reply_is_late() -> None:
    metrics = Metrics()
    shard = Shard(ShardId("jobs", 0), 0)
    gauges = ShardGauges(metrics, {})
    gauges.serve()
    gauges.note(shard, survey(ready=3))
    shard.turn.gone = True
    gauges.forget(shard)
    gauges.note(shard, survey(ready=3))
    assert value(metrics, "ddq_tasks", state="ready") == 0
