"""The loop of a scheduler: hints and timers in, visits out.

There is no tick. Each shard has one moment at which it is to be visited next: its next due time or
lease expiry, or an earlier one that a hint names. A slow safety scan looks at every shard, should
all hints have been lost. Which of several visits goes first is decided in ddq/scheduler/queue.py.

Of several schedulers one leads a shard, while there is work. Each has a rank on each shard, and
takes the shard from a leader of a lower rank. So leadership spreads without any scheduler knowing
how many there are.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace

from ddq.config import MS_PER_SECOND
from ddq.errors import DdqError, StoreMalformed, TopicNotFound
from ddq.scheduler.gauges import ShardGauges
from ddq.scheduler.queue import STEP_MAX_COUNT, Kind, VisitQueue
from ddq.scheduler.shard import LONG_AGO_S, NEVER_S, Shard
from ddq.scheduler.table import ShardTable
from ddq.scheduler.visit import Visitor
from ddq.store.hints import DueHint, FreeHint, Hint, Reset, TopicHint
from ddq.store.keys import ShardId
from ddq.store.open import Store
from ddq.store.router import SlotMovingError
from ddq.store.runner import Call
from ddq.store.scheduler_api import Leadership

log = logging.getLogger(__name__)

RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0
SLOT_MOVING_RETRY_S = 0.1
"""From one visit of a shard whose slot is being moved to the next."""
NAME_BYTES = 8
HAND_OVER_MAX_COUNT = 256
SAY_AGAIN_S = 10.0


class Scheduler:
    """Promotes and reaps on every shard that it can lead.

    Args:
        store: to whose hints it listens from now on.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._settings = store.settings
        self._topology = store.router.topology
        self._table = ShardTable(
            store.topics,
            store.entropy.token(NAME_BYTES),
            self,
            call=self._call,
            interval_s=lambda: self._topics_interval_s,
        )
        self._queue: VisitQueue[Shard] = VisitQueue(
            lambda shard: self._topology.known_node(shard.id.key("control"))
        )
        self._gauges = ShardGauges(
            store.metrics, self._table.shards, self._settings.metrics_topics_max_count
        )
        self._visitor = Visitor(
            store,
            self._gauges,
            call=self._visit_call,
            scan_interval_s=lambda: self._sweep_s,
            challenges=lambda: _now_s() >= self._modest_until_s,
        )
        self._nudge = asyncio.Event()
        self._round: Iterator[Shard] = iter(())
        self._round_s = LONG_AGO_S
        self._modest_until_s = LONG_AGO_S
        self._said: dict[str, float] = {}
        store.hints.listen(self.on_hint)

    # Being woken ---------------------------------------------------------------------------

    def on_hint(self, hint: Hint) -> None:
        """Takes a hint from the feed."""
        if isinstance(hint, DueHint | FreeHint):
            shard = self._table.shards.get(hint.shard)
            if shard is None:
                self._table.check(hint.shard.topic)
            elif not shard.offset.known:
                self._queue.at(shard, Kind.SCAN, LONG_AGO_S)
            elif isinstance(hint, FreeHint):
                self._queue.at(shard, Kind.DUE, shard.free(hint.at_ms))
            else:
                self._queue.at(shard, Kind.DUE, shard.moment_s(hint.at_ms))
        elif isinstance(hint, TopicHint):
            self._table.check(hint.topic)
        elif isinstance(hint, Reset):
            self._table.reread()
            self._round, self._round_s = iter([*self._table.shards.values()]), _now_s()
        self._nudge.set()

    def on_new(self, shard: Shard, *, urgent: bool) -> None:
        """See Listener."""
        self._queue.at(shard, Kind.SCAN, LONG_AGO_S if urgent else _now_s())
        self._nudge.set()

    def on_gone(self, shard: Shard) -> None:
        """See Listener."""
        self._queue.forget(shard)
        self._gauges.forget(shard)

    # The loop ------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Schedules until ``stop`` is set, then hands its leaderships over."""
        stopping = asyncio.create_task(stop.wait(), name="ddq scheduler stop")
        stopping.add_done_callback(lambda _: self._nudge.set())
        self._be_modest()
        self._gauges.serve()
        try:
            async with asyncio.TaskGroup() as group:
                table = group.create_task(self._table.run(), name="ddq topics")
                while not stop.is_set():
                    self._nudge.clear()
                    more = self._go_round()
                    for shard, kind in self._queue.take(_now_s()):
                        group.create_task(
                            self._visit(shard, kind), name=f"ddq visit {shard.id.tag}"
                        )
                    await (asyncio.sleep(0) if more else self._sleep())
                table.cancel()
            await self._resign_all()
        finally:
            stopping.cancel()

    def _go_round(self) -> bool:
        """After hints were lost every shard is looked at; whether some are left for another step.

        What is due meanwhile, as far as it is known, does not wait for that.
        """
        step = [*itertools.islice(self._round, STEP_MAX_COUNT)]
        for shard in step:
            shard.taken_until_s, shard.spread = LONG_AGO_S, True
            self._queue.at(shard, Kind.SCAN, self._round_s)
        return len(step) == STEP_MAX_COUNT

    async def _sleep(self) -> None:
        """Until the next timer, the end of a visit, or a hint."""
        try:
            async with asyncio.timeout_at(self._queue.next_s()):
                await self._nudge.wait()
        except TimeoutError:
            pass

    def _be_modest(self) -> None:
        """Takes no shard from another scheduler for a while: one that has just started, had trouble
        with the store, or was too slow to keep a shard may be about to fail again. A process that
        crashes every few seconds would otherwise take its share each time, and leave it
        unattended."""
        lease_s = self._settings.leader_lease_ms / MS_PER_SECOND
        self._modest_until_s = _now_s() + lease_s

    @property
    def _sweep_s(self) -> float:
        return self._settings.sweep_interval_ms / MS_PER_SECOND

    @property
    def _topics_interval_s(self) -> float:
        # A topic that no hint named is rarer than a lost "due", so it is looked for less often.
        return 2 * self._sweep_s

    def _call(self) -> Call:
        timeout_s = self._settings.store_timeout_ms / MS_PER_SECOND
        return Call(_now_s() + timeout_s, durable=False)

    def _visit_call(self) -> Call:
        """A call that does not wait for a slot that is being moved.

        One that waited would keep its place in the queue of visits: 16 shards whose slots move
        would then delay every other shard of their node.
        """
        return replace(self._call(), waits_for_slot=False)

    # Visits --------------------------------------------------------------------------------

    async def _visit(self, shard: Shard, kind: Kind) -> None:
        """One visit, and when the next ones are due."""
        shard.postponed_s = NEVER_S
        try:
            await self._work(shard, kind)
            shard.failures = 0
        except TopicNotFound:
            self._table.check(shard.id.topic)
            self._queue.at(shard, Kind.SCAN, _now_s() + self._sweep_s)
        except SlotMovingError as error:
            # The slot is served again in a moment, and the shard still belongs to this scheduler:
            # neither a longer delay each time nor modesty towards other schedulers would help.
            self._complain(shard, error, SLOT_MOVING_RETRY_S)
            self._again(shard, kind, SLOT_MOVING_RETRY_S)
        except StoreMalformed as error:
            # Only this shard suffers; it is looked at again in case an operator repairs it.
            log.error(  # noqa: TRY400 - no bug of ours
                "shard %(shard)s is left out: %(error)s", {"shard": shard.id.tag, "error": error}
            )
            self._again(shard, kind, self._sweep_s)
        except DdqError as error:
            delay_s = min(RETRY_MAX_S, RETRY_MIN_S * 2**shard.failures)
            shard.failures = min(shard.failures + 1, 10)
            self._be_modest()
            self._complain(shard, error, delay_s)
            self._again(shard, kind, delay_s)
        finally:
            self._queue.done(shard)
            self._nudge.set()

    async def _work(self, shard: Shard, kind: Kind) -> None:
        topic = await self._store.topics.require(shard.id.topic, self._visit_call())
        if kind is Kind.SCAN:
            self._queue.at(shard, Kind.SCAN, await self._visitor.scan(topic, shard))
        elif kind is Kind.COLLECT:
            await self._visitor.keep_house(topic, shard)
        elif await self._visitor.move(topic, shard, first=kind is Kind.DUE):
            self._be_modest()
        if kind in {Kind.SCAN, Kind.COLLECT}:
            self._queue.at(shard, Kind.DUE, shard.next_s())
            if shard.collectable or shard.outdated:
                self._queue.at(shard, Kind.COLLECT, _now_s())
        elif shard.more and shard.leadership is not None:
            self._queue.at(shard, Kind.BACKLOG, _now_s())
        else:
            self._queue.at(shard, Kind.DUE, shard.next_s())

    def _again(self, shard: Shard, kind: Kind, in_s: float) -> None:
        """A visit that failed is repeated."""
        self._queue.at(shard, Kind.DUE if kind is Kind.BACKLOG else kind, _now_s() + in_s)

    def _complain(self, shard: Shard, error: DdqError, delay_s: float) -> None:
        """One line for a kind of trouble, not one for each of a thousand shards."""
        now_s = _now_s()
        if now_s >= self._said.get(error.reason, LONG_AGO_S) + SAY_AGAIN_S:
            self._said[error.reason] = now_s
            log.warning(
                "shard %(shard)s: %(error)s; again in %(delay_s).1f s",
                {"shard": shard.id.tag, "error": error, "delay_s": delay_s},
            )

    # Handing over --------------------------------------------------------------------------

    async def _resign_all(self) -> None:
        """Hands over, so that the next leader need not wait for the leases to run out."""
        call = self._call()
        led = iter([shard for shard in self._table.shards.values() if shard.leadership is not None])
        async with asyncio.TaskGroup() as group:
            for _ in range(HAND_OVER_MAX_COUNT):
                group.create_task(self._resign_some(led, call))

    async def _resign_some(self, led: Iterator[Shard], call: Call) -> None:
        for shard in led:
            held, shard.leadership = shard.leadership, None
            assert held is not None
            await self._resign(shard.id, held, call)

    async def _resign(self, shard: ShardId, held: Leadership, call: Call) -> None:
        try:
            topic = await self._store.topics.require(shard.topic, call)
            await self._store.scheduler_api.resign(topic, shard, held, call)
        except DdqError as error:
            log.warning(
                "shard %(shard)s is not handed over: %(error)s",
                {"shard": shard.tag, "error": error},
            )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
