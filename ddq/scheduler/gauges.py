"""The gauges of a scheduler that are states, counted as surveys come in.

Prometheus asks in a thread of its own: what it reads is a number, or a copy.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from ddq.config import MS_PER_SECOND
from ddq.metrics import OTHER_TOPICS, Metrics
from ddq.scheduler.shard import Shard
from ddq.store.keys import ShardId
from ddq.store.scheduler_api import Survey

TASK_STATES = ("scheduled", "ready", "leased", "dead")
COUNTED_STATES = ("enqueued", "succeeded", "cancelled", "purged", "set_aside")
MALFORMED_KINDS = ("set_aside", "stray")


def conservation_difference(counts: Mapping[str, int]) -> int:
    """By how many tasks the counters of a shard differ from promise G11; 0 where it is kept."""
    parts = (*TASK_STATES, *COUNTED_STATES[1:])
    return abs(counts.get("enqueued", 0) - sum(counts.get(state, 0) for state in parts))


@dataclass(eq=False, slots=True)
class TopicGroup:
    """The shards that share a label: those of one topic, or of all that have none of their own.

    Attributes:
        counts: the sums of their tasks, by state.
    """

    label: str
    counts: Counter[str] = field(default_factory=Counter)
    shards: dict[ShardId, Shard] = field(default_factory=dict)

    def oldest_ready_s(self) -> float:
        """How long their oldest ready task had been due, in s."""
        return max((s.oldest_ready_ms for s in [*self.shards.values()]), default=0) / MS_PER_SECOND


class ShardGauges:
    """Sums over all shards, and over those of each topic.

    Args:
        shards: all that there are.
        topics_max_count: topics that get a label of their own, those that are seen first.
    """

    def __init__(
        self, metrics: Metrics, shards: Mapping[ShardId, Shard], topics_max_count: int
    ) -> None:
        self._metrics = metrics
        self._shards = shards
        self._topics_max_count = topics_max_count
        self._sums: Counter[str] = Counter()
        self._difference = 0
        self._other = TopicGroup(OTHER_TOPICS)
        self._groups: dict[str, TopicGroup] = {}
        self._topic_shards: Counter[str] = Counter()
        self._named_count = 0

    def serve(self) -> None:
        """Prometheus gets them from now on."""
        metrics = self._metrics
        metrics.shards.set_function(lambda: len(self._shards))
        metrics.shards_led.set_function(self._led_count)
        for state in TASK_STATES:
            metrics.tasks.labels(state).set_function(partial(self._sums.__getitem__, state))
        for state in COUNTED_STATES:
            metrics.counted.labels(state).set_function(partial(self._sums.__getitem__, state))
        for kind in MALFORMED_KINDS:
            metrics.malformed.labels(kind).set_function(partial(self._sums.__getitem__, kind))
        metrics.conservation.set_function(lambda: self._difference)
        metrics.oldest_ready.set_function(
            lambda: max((s.oldest_ready_ms for s in self._known()), default=0) / MS_PER_SECOND
        )

    def note(self, shard: Shard, survey: Survey) -> None:
        """Takes the place of what an earlier survey of the shard found."""
        if shard.turn.gone:
            # Its topic was deleted while the reply was on its way: nothing would subtract it again.
            return
        group = self._group(shard)
        for sums in (self._sums, group.counts):
            sums.subtract(shard.counts)
            sums.update(survey.counts)
        self._difference += conservation_difference(survey.counts)
        self._difference -= conservation_difference(shard.counts)
        shard.counts = survey.counts
        due_ms = survey.oldest_ready_due_ms
        shard.oldest_ready_ms = (
            0 if due_ms is None else max(0, survey.next_wake_up.store_ms - due_ms)
        )

    def forget(self, shard: Shard) -> None:
        """The shard is gone."""
        self._sums.subtract(shard.counts)
        self._difference -= conservation_difference(shard.counts)
        topic = shard.id.topic
        group = self._groups.get(topic)
        if group is not None and group.shards.pop(shard.id, None) is not None:
            group.counts.subtract(shard.counts)
            self._topic_shards[topic] -= 1
            if not self._topic_shards[topic]:
                del self._topic_shards[topic], self._groups[topic]
                self._named_count -= group is not self._other
            if not group.shards:
                self._hide(group)
        shard.counts = {}

    def _group(self, shard: Shard) -> TopicGroup:
        """The group of a shard, which it joins if it is new."""
        topic = shard.id.topic
        group = self._groups.get(topic)
        if group is None:
            # A topic that is called "other" could not be distinguished from the others.
            own = topic != OTHER_TOPICS and self._named_count < self._topics_max_count
            self._named_count += own
            group = TopicGroup(topic) if own else self._other
            if not group.shards:
                self._show(group)
            self._groups[topic] = group
        if shard.id not in group.shards:
            self._topic_shards[topic] += 1
            group.shards[shard.id] = shard
        return group

    def _show(self, group: TopicGroup) -> None:
        for state in TASK_STATES:
            self._metrics.topic_tasks.labels(group.label, state).set_function(
                partial(group.counts.__getitem__, state)
            )
        self._metrics.topic_oldest_ready.labels(group.label).set_function(group.oldest_ready_s)

    def _hide(self, group: TopicGroup) -> None:
        for state in TASK_STATES:
            self._metrics.topic_tasks.remove(group.label, state)
        self._metrics.topic_oldest_ready.remove(group.label)

    def _known(self) -> list[Shard]:
        return list(self._shards.values())

    def _led_count(self) -> int:
        now_s = time.monotonic()
        return sum(s.leadership is not None and s.led_until_s > now_s for s in self._known())
