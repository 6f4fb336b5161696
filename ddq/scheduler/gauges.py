"""The gauges of a scheduler that are states, counted as surveys come in.

Prometheus asks in a thread of its own: what it reads is a number, or a copy.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from functools import partial

from ddq.config import MS_PER_SECOND
from ddq.metrics import Metrics
from ddq.scheduler.shard import Shard
from ddq.store.keys import ShardId
from ddq.store.scheduler_api import Survey

TASK_STATES = ("scheduled", "ready", "leased", "dead")
MALFORMED_KINDS = ("set_aside", "stray")


class ShardGauges:
    """Sums over all shards.

    Args:
        shards: all that there are.
    """

    def __init__(self, metrics: Metrics, shards: Mapping[ShardId, Shard]) -> None:
        self._metrics = metrics
        self._shards = shards
        self._sums: Counter[str] = Counter()

    def serve(self) -> None:
        """Prometheus gets them from now on."""
        metrics = self._metrics
        metrics.shards.set_function(lambda: len(self._shards))
        metrics.shards_led.set_function(self._led_count)
        for state in TASK_STATES:
            metrics.tasks.labels(state).set_function(partial(self._sums.__getitem__, state))
        for kind in MALFORMED_KINDS:
            metrics.malformed.labels(kind).set_function(partial(self._sums.__getitem__, kind))
        metrics.oldest_ready.set_function(
            lambda: max((s.oldest_ready_ms for s in self._known()), default=0) / MS_PER_SECOND
        )

    def note(self, shard: Shard, survey: Survey) -> None:
        """Takes the place of what an earlier survey of the shard found."""
        if shard.turn.gone:
            # Its topic was deleted while the reply was on its way: nothing would subtract it again.
            return
        self._sums.subtract(shard.counts)
        self._sums.update(survey.counts)
        shard.counts = survey.counts
        due_ms = survey.oldest_ready_due_ms
        shard.oldest_ready_ms = (
            0 if due_ms is None else max(0, survey.next_wake_up.store_ms - due_ms)
        )

    def forget(self, shard: Shard) -> None:
        """The shard is gone."""
        self._sums.subtract(shard.counts)
        shard.counts = {}

    def _known(self) -> list[Shard]:
        return list(self._shards.values())

    def _led_count(self) -> int:
        now_s = time.monotonic()
        return sum(s.leadership is not None and s.led_until_s > now_s for s in self._known())
