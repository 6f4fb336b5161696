"""The upper seam: run this script on this shard, and reply when the store has answered for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ddq import errors, tracing
from ddq.config import Settings
from ddq.durations import moment_text
from ddq.entropy import Clock, Entropy
from ddq.metrics import Metrics, counted_store_request
from ddq.store.barrier import FAST, Barrier, strength
from ddq.store.keys import TOPICS, TOPICS_CONFIRMED, ShardId
from ddq.store.pending import Argument
from ddq.store.rollback import NO_PROCESS, REGISTRY, Ledger, Ledgers, Scope, shard_scope
from ddq.store.router import Router
from ddq.store.scripts import Script
from ddq.store.stamp import NotAfter, SendTime
from ddq.task import Durability, Receipt, Topic

LINEAGE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Call:
    """What belongs to one request on its way through the server.

    Attributes:
        deadline_s: in the event loop's time.
        not_after_ms: after it the scripts refuse; 0 for no bound.
        request_id: names the request for what has neither id nor token; empty for none.
        durable: whether its replies wait for what the topic's durability asks. Schedulers do not
            wait: what they do shows only through replies that do.
        waits_for_slot: whether a script whose slot of a Cluster is being moved is tried again until
            the deadline; otherwise it is refused at once.
    """

    deadline_s: float
    not_after_ms: int = 0
    request_id: str = ""
    durable: bool = True
    waits_for_slot: bool = True

    def half(self) -> Call:
        """The same with half of the time that is left, and without a wait for a slot that moves.

        For one shard of several: the others get some time too.
        """
        now_s = asyncio.get_running_loop().time()
        half_s = max(self.deadline_s - now_s, 0.0) / 2
        return replace(self, deadline_s=now_s + half_s, waits_for_slot=False)


@dataclass(frozen=True, slots=True)
class ScriptReply:
    """What a script of a shard returned: its own part, and the receipt."""

    body: list[Any]
    receipt: Receipt

    @property
    def store_ms(self) -> int:
        """The store's time of the script."""
        return self.receipt.store_ms


class TopicStaleError(Exception):
    """The shard knows the topic by another uid, shard count or settings revision."""


_REFUSALS: dict[str, type[errors.DdqError]] = {
    "MALFORMED": errors.StoreMalformed,
    "FORMAT": errors.StoreMalformed,
    "ROLLBACK": errors.RollbackDetected,
    "CLOCK_UNSAFE": errors.ClockUnsafe,
    "REQUEST_EXPIRED": errors.RequestExpired,
    "TOPIC_DELETING": errors.TopicNotFound,
}
_EXPLANATIONS = {
    "MALFORMED": "the store holds something that ddq did not write: {detail}; remove or repair it",
    "FORMAT": "{detail}, which this ddq does not know; use a newer ddq",
    "ROLLBACK": (
        "the store has lost writes that it had confirmed ({detail}); find out why, then let it go "
        "on with: ddq store accept-rollback"
    ),
    "CLOCK_UNSAFE": "the clocks differ by too much ({detail}); set them right with NTP",
    "REQUEST_EXPIRED": (
        "the request reached the store after its not_after, or the deadline that stands for it; it "
        "had no effect"
    ),
    "TOPIC_DELETING": "topic {topic!r} is being deleted",
}


class ScriptRunner:
    """Runs scripts, each with the arguments that all of them share.

    Args:
        router: finds the node of a shard, and the connection for what a reply has to wait for.
        default: the barrier of the registry, and of topics that do not say another one.
        scripts: by name; see load_scripts.
        metrics: scripts and their errors are counted there.
    """

    def __init__(
        self,
        router: Router,
        default: Barrier,
        scripts: Mapping[str, Script],
        settings: Settings,
        clock: Clock,
        entropy: Entropy,
        metrics: Metrics,
    ) -> None:
        self.metrics = metrics
        self._router = router
        self._default = default
        self._scripts = scripts
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._ledgers = Ledgers(entropy, clock)
        self.store_format = 1
        """The form of new shards, as the registry said last."""
        self._not_after_ahead_max_ms = settings.max_request_age_ms + settings.max_clock_skew_ms

    @property
    def default(self) -> Barrier:
        """What a new topic gets if it does not say."""
        return self._default

    @counted_store_request
    async def run(
        self,
        topic: Topic,
        shard: ShardId,
        name: str,
        args: Sequence[str | bytes | int],
        call: Call,
    ) -> ScriptReply:
        """Runs script ``name`` on a shard.

        Raises:
            TopicStaleError: reload the topic, configure the shard, and try again.
            DdqError: as GroupCommit.run, and the refusals of the prelude.
        """
        barrier = Barrier.of(topic.settings) if call.durable else FAST
        scope = shard_scope(topic.uid, shard.index)
        skew_ms = self._settings.max_clock_skew_ms
        while True:
            ledger = self._ledger(barrier)
            sent = SendTime(self._clock)
            common: list[Argument] = [
                topic.uid,
                topic.revision,
                topic.shards,
                sent,
                skew_ms,
                self._entropy.token(LINEAGE_BYTES),
                self._not_after(call),
                *(ledger.arguments(scope) if ledger else NO_PROCESS),
            ]
            running = self._router.run(
                self._scripts[name],
                shard.keys,
                [*common, *args],
                call.deadline_s,
                barrier,
                waits_for_slot=call.waits_for_slot,
            )
            if tracing.current is None:
                committed = await running
            else:
                with tracing.current.script(name, topic.name, barrier.mode.name):
                    committed = await running
            status, store_ms, sequence, lineage, *body = committed.reply
            # A store that was stopped reads its clock long after the send. The refusal changed
            # nothing, so the script is sent again; its deadline ends this.
            if status != b"CLOCK_UNSAFE" or not sent.explains(store_ms, skew_ms):
                break
        if status == b"TOPIC_CHANGED":
            raise TopicStaleError
        if status != b"OK":
            detail = body[0].decode(errors="replace")
            raise refusal(status.decode(), detail, topic.name, store_ms=store_ms)
        _confirm(ledger, scope, body.pop())
        receipt = Receipt(
            barrier.mode, committed.replicas_acked, lineage, store_ms, sequence, barrier.fsync
        )
        return ScriptReply(body, receipt)

    @counted_store_request
    async def run_registry(
        self,
        args: Sequence[str | bytes | int],
        call: Call,
        barrier: Barrier | None = None,
        names: Sequence[str | bytes] = (),
    ) -> tuple[str, Any]:
        """Runs the script of the topics' table; returns its status and record or records.

        Args:
            names: of the topics that are asked for, for the action that reads many.
            barrier: of a topic whose record changes, if it asks for more than the default.

        Raises:
            DdqError: as Router.run; StoreMalformed; RequestExpired; RollbackDetected.
        """
        wanted = max(self._default, barrier or self._default, key=strength)
        barrier = wanted if call.durable else FAST
        ledger = self._ledger(barrier)
        confirmed = ledger.arguments(REGISTRY) if ledger else NO_PROCESS
        committed = await self._router.run(
            self._scripts["registry"],
            [TOPICS, TOPICS_CONFIRMED],
            [*args, self._not_after(call), *confirmed, *names],
            call.deadline_s,
            barrier,
            waits_for_slot=call.waits_for_slot,
        )
        status, value, *figures = committed.reply
        if status in (b"MALFORMED", b"ROLLBACK"):
            raise refusal(status.decode(), value.decode(errors="replace"), "")
        count, recovery, self.store_format = figures[0]
        _confirm(ledger, REGISTRY, (count, recovery))
        if status == b"EXPIRED":
            # The table's script does not return its time; this process's clock is close to it.
            raise refusal("REQUEST_EXPIRED", "", "", store_ms=self._clock.now_ms())
        return status.decode(), value

    def _not_after(self, call: Call) -> NotAfter:
        return NotAfter(self._clock, call.not_after_ms, self._not_after_ahead_max_ms)

    def _ledger(self, barrier: Barrier) -> Ledger | None:
        if barrier.mode is Durability.FAST:
            # What is not waited for may be lost without anything being wrong.
            return None
        return self._ledgers.current(asyncio.get_running_loop().time())


def _confirm(ledger: Ledger | None, scope: Scope, figures: Sequence[int]) -> None:
    if ledger is not None:
        count, recovery = figures
        ledger.confirm(scope, count, recovery)


def refusal(
    status: str, detail: str, topic: str, *, store_ms: int | None = None
) -> errors.DdqError:
    """The error that a prelude's refusal stands for.

    Args:
        store_ms: the store's time of the script. A caller whose request was too late learns from
            it whether its own clock is wrong.
    """
    if status == "CLOCK_UNSAFE":
        # The script has no calendar.
        detail = re.sub(r"(\d+) ms", lambda found: moment_text(int(found[1])), detail)
    message = _EXPLANATIONS[status].format(detail=detail, topic=topic)
    metadata = {}
    if status == "REQUEST_EXPIRED" and store_ms is not None:
        metadata["store_time_ms"] = str(store_ms)
    return _REFUSALS[status](message, metadata=metadata)


def text(value: Any) -> str:
    """A status or id from a script's reply; bytes that are not UTF-8 are escaped."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
