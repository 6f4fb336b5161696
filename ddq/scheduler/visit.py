"""One visit of one shard: a survey, a batch of what is due, or a batch of housekeeping.

No safety rests on what is known here: each script checks nonce and epoch before it moves anything.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from ddq.config import MS_PER_SECOND
from ddq.scheduler.gauges import ShardGauges
from ddq.scheduler.shard import Shard
from ddq.store.open import Store
from ddq.store.runner import Call
from ddq.store.scheduler_api import Moved
from ddq.task import Topic

log = logging.getLogger(__name__)

RANK_BYTES = 4
# Safety scans go round in this many steps: what is looked at together shares a send, which is
# cheaper by far than to wake up for each shard.
SCAN_STEPS = 64
# The first batch of a shard is this part of a whole one: at the moment at which many shards become
# due at once each of them gets its first tasks out before one gets all of its.
FIRST_BATCH_SHARE = 8


class Visitor:
    """Runs the scripts of visits, and notes on the shard what they say.

    Args:
        call: a new call to the store.
        scan_interval_s: from one safety scan of a shard to the next.
        challenges: whether a shard may be taken from a scheduler that leads it with a lower rank.
    """

    def __init__(
        self,
        store: Store,
        gauges: ShardGauges,
        *,
        call: Callable[[], Call],
        scan_interval_s: Callable[[], float],
        challenges: Callable[[], bool],
    ) -> None:
        self._scheduler_api = store.scheduler_api
        self._topics = store.topics
        self._settings = store.settings
        self._metrics = store.metrics
        self._gauges = gauges
        self._call = call
        self._scan_interval_s = scan_interval_s
        self._challenges = challenges

    async def scan(self, topic: Topic, shard: Shard) -> float:
        """SharedRefresh at a shard without leading it; when to do so again."""
        asked_s = _now_s()
        survey = await self._scheduler_api.survey(topic, shard.id, self._call())
        shard.note(survey.next_wake_up, asked_s, _now_s())
        self._metrics.swept.inc()
        self._gauges.note(shard, survey)
        shard.collectable = survey.next_wake_up.collectable
        shard.outdated = survey.format < self._topics.store_format
        interval_s = self._scan_interval_s()
        in_s = interval_s * (1 - shard.rank / 256**RANK_BYTES if shard.spread else 1)
        shard.spread = False
        step_s = interval_s / SCAN_STEPS
        return math.ceil((_now_s() + in_s) / step_s) * step_s

    async def move(self, topic: Topic, shard: Shard, *, first: bool) -> bool:
        """Moves one batch of due tasks and one of expired leases, if the shard can be led.

        Args:
            first: it has just become due, so the batches are small.

        Returns:
            Whether another scheduler was found to lead instead of this one.
        """
        limit = self._settings.promote_batch_count
        if first:
            limit = max(1, limit // FIRST_BATCH_SHARE)
        promotes = True
        if shard.leadership is None:
            if not await self._acquire(topic, shard):
                return False
            assert shard.next_wake_up is not None
            promotes = shard.next_wake_up.promotable
        assert shard.leadership is not None
        if promotes:
            asked_s = _now_s()
            moved = await self._scheduler_api.promote(
                topic, shard.id, shard.leadership, self._call(), limit
            )
            if self._is_deposed(shard, moved, asked_s):
                return True
            self._metrics.promoted.inc(moved.count)
            if moved.late_ms is not None:
                self._metrics.lateness.observe(moved.late_ms / MS_PER_SECOND)
        # In turn: a flood of due tasks must not keep expired leases waiting.
        if shard.next_wake_up is not None and shard.next_wake_up.reapable:
            asked_s = _now_s()
            moved = await self._scheduler_api.reap(
                topic, shard.id, shard.leadership, self._call(), limit
            )
            if self._is_deposed(shard, moved, asked_s):
                return True
            self._metrics.reaped.inc(moved.count)
        return False

    async def _acquire(self, topic: Topic, shard: Shard) -> bool:
        asked_s, resignations = _now_s(), shard.resignations
        acquired = await self._scheduler_api.acquire(
            topic, shard.id, None, self._call(), rank=shard.rank, challenge=self._challenges()
        )
        shard.note(acquired.next_wake_up, asked_s, _now_s())
        shard.leadership = acquired.leadership
        shard.turned_away = acquired.leadership is None
        if acquired.leadership is None and shard.resignations != resignations:
            # The hint overtook this reply: it is about a leader that has resigned since.
            shard.turned_away = False
            return False
        if acquired.leadership is None:
            over_ms = acquired.next_wake_up.store_ms + max(acquired.remaining_ms, 1)
            shard.taken_until_s = shard.local_s(over_ms)
            return False
        self._metrics.acquired.inc()
        self._prolong(shard)
        log.debug(
            "leads shard %(shard)s by epoch %(epoch)d",
            {"shard": shard.id.tag, "epoch": acquired.leadership.epoch},
        )
        return True

    def _is_deposed(self, shard: Shard, moved: Moved, asked_s: float) -> bool:
        shard.note(moved.next_wake_up, asked_s, _now_s())
        if not moved.deposed:
            self._prolong(shard)
            return False
        log.info("shard %(shard)s is led by another scheduler now", {"shard": shard.id.tag})
        self._metrics.deposed.inc()
        shard.leadership = None
        return True

    def _prolong(self, shard: Shard) -> None:
        shard.led_until_s = _now_s() + self._settings.leader_lease_ms / MS_PER_SECOND

    async def keep_house(self, topic: Topic, shard: Shard) -> None:
        """One step of an upgrade, and one batch of tombstones and request records to remove."""
        if shard.outdated:
            shard.outdated = not await self._scheduler_api.upgrade(
                topic, shard.id, self._topics.store_format, self._call()
            )
        if shard.collectable:
            await self._collect(topic, shard)

    async def _collect(self, topic: Topic, shard: Shard) -> None:
        asked_s = _now_s()
        collected, next_wake_up = await self._scheduler_api.collect(topic, shard.id, self._call())
        shard.note(next_wake_up, asked_s, _now_s())
        self._metrics.collected.inc(collected)
        # One that removes nothing would be repeated without end; the next scan looks again.
        shard.collectable = collected > 0 and next_wake_up.collectable


def _now_s() -> float:
    return asyncio.get_running_loop().time()
