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
    gauges = ShardGauges(metrics, known, 50)
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
    gauges = ShardGauges(metrics, {}, 50)
    gauges.serve()
    gauges.note(shard, survey(ready=3))
    shard.turn.gone = True
    gauges.forget(shard)
    gauges.note(shard, survey(ready=3))
    assert value(metrics, "ddq_tasks", state="ready") == 0


COUNTS = ("enqueued", "scheduled", "ready", "leased", "dead", "succeeded", "cancelled", "purged")


def test_a_difference_from_conservation_is_added_up_whatever_its_sign() -> None:
    metrics = Metrics()
    one, other = (Shard(ShardId("jobs", index), 0) for index in range(2))
    gauges = ShardGauges(metrics, {}, 50)
    gauges.serve()
    for number, state in enumerate((*COUNTS[1:], "set_aside"), start=1):
        gauges.note(one, survey(**{"enqueued": number, state: number}))
        assert value(metrics, "ddq_conservation_difference_tasks") == 0, state
    gauges.note(one, survey(enqueued=10, ready=8))
    gauges.note(other, survey(enqueued=10, succeeded=11))
    assert value(metrics, "ddq_conservation_difference_tasks") == 3
    assert value(metrics, "ddq_tasks_counted", state="succeeded") == 11
    gauges.forget(one)
    assert value(metrics, "ddq_conservation_difference_tasks") == 1


def labels(metrics: Metrics) -> set[str]:
    """The topics that Prometheus sees."""
    return {
        sample.labels["topic"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "topic" in sample.labels
    }


def test_topics_beyond_the_bound_are_summed_as_other() -> None:
    metrics = Metrics()
    gauges = ShardGauges(metrics, {}, 2)
    shards = {
        name: Shard(ShardId(*name), 0)
        for name in (("a", 0), ("a", 1), ("other", 0), ("b", 0), ("c", 0), ("d", 0))
    }
    for shard in shards.values():
        gauges.note(shard, survey(ready=1))
        gauges.note(shard, survey(ready=2))
    assert labels(metrics) == {"a", "b", "other"}

    def ready(topic: str) -> float | None:
        found = value(metrics, "ddq_topic_tasks", topic=topic, state="ready")
        age = value(metrics, "ddq_topic_oldest_ready_age_seconds", topic=topic)
        assert age == (None if found is None else 5)
        return found  # type: ignore[no-any-return]

    assert (ready("a"), ready("b"), ready("other")) == (4, 2, 6)
    gauges.forget(shards["a", 0])
    assert ready("a") == 2
    gauges.forget(shards["a", 1])
    assert ready("a") is None
    # The one that has room now; those that are summed already stay where they are.
    gauges.note(Shard(ShardId("e", 0), 0), survey(ready=9))
    gauges.note(shards["c", 0], survey(ready=3))
    assert (ready("e"), ready("other"), ready("c")) == (9, 7, None)
    for name in ("other", "c", "d"):
        gauges.forget(shards[name, 0])
    assert labels(metrics) == {"b", "e"}


def test_without_room_for_topics_all_are_summed() -> None:
    metrics = Metrics()
    gauges = ShardGauges(metrics, {}, 0)
    gauges.note(Shard(ShardId("a", 0), 0), survey(ready=1))
    assert labels(metrics) == {"other"}
