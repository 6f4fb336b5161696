"""The upper seam: run this script on this shard, and reply when the store has answered for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddq import errors
from ddq.config import Settings
from ddq.entropy import Clock, Entropy
from ddq.keys import TOPICS, ShardId
from ddq.store.commit import GroupCommit
from ddq.store.scripts import Script
from ddq.task import Durability, Receipt, Topic

LINEAGE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Call:
    """What belongs to one request on its way through the server.

    Attributes:
        deadline_s: in the event loop's time.
        not_after_ms: after it the scripts refuse; 0 for no bound.
        request_id: names the request for what has neither id nor token; empty for none.
    """

    deadline_s: float
    not_after_ms: int = 0
    request_id: str = ""


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
    "CLOCK_UNSAFE": errors.ClockUnsafe,
    "REQUEST_EXPIRED": errors.RequestExpired,
    "TOPIC_DELETING": errors.TopicNotFound,
}
_EXPLANATIONS = {
    "MALFORMED": "the store holds something that ddq did not write: {detail}; remove or repair it",
    "FORMAT": "{detail}, which this ddq does not know; use a newer ddq",
    "CLOCK_UNSAFE": "the clocks differ by too much ({detail}); set them right with NTP",
    "REQUEST_EXPIRED": "the request reached the store after its not_after; it had no effect",
    "TOPIC_DELETING": "topic {topic!r} is being deleted",
}


class ScriptRunner:
    """Runs scripts, each with the arguments that all of them share.

    Args:
        commit: the group commit of the node that holds all shards.
        scripts: by name; see load_scripts.
    """

    def __init__(
        self,
        commit: GroupCommit,
        scripts: Mapping[str, Script],
        settings: Settings,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._commit = commit
        self._scripts = scripts
        self._settings = settings
        self._clock = clock
        self._entropy = entropy

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
        common: list[str | bytes | int] = [
            topic.uid,
            topic.revision,
            topic.shards,
            self._clock.now_ms(),
            self._settings.max_clock_skew_ms,
            self._entropy.token(LINEAGE_BYTES),
            call.not_after_ms,
        ]
        committed = await self._commit.run(
            self._scripts[name], shard.keys, [*common, *args], call.deadline_s
        )
        status, store_ms, sequence, lineage, *body = committed.reply
        if status == b"TOPIC_CHANGED":
            raise TopicStaleError
        if status != b"OK":
            raise refusal(status.decode(), body[0].decode(errors="replace"), topic.name)
        receipt = Receipt(Durability.FAST, committed.replicas_acked, lineage, store_ms, sequence)
        return ScriptReply(body, receipt)

    async def run_registry(self, args: Sequence[str | bytes | int], call: Call) -> tuple[str, Any]:
        """Runs the script of the topics' table; returns its status and record or records.

        Raises:
            DdqError: as GroupCommit.run; StoreMalformed; RequestExpired.
        """
        committed = await self._commit.run(
            self._scripts["registry"], [TOPICS], [*args, call.not_after_ms], call.deadline_s
        )
        status, value = committed.reply
        if status == b"MALFORMED":
            raise refusal("MALFORMED", value.decode(errors="replace"), "")
        if status == b"EXPIRED":
            raise refusal("REQUEST_EXPIRED", "", "")
        return status.decode(), value


def refusal(status: str, detail: str, topic: str) -> errors.DdqError:
    """The error that a prelude's refusal stands for."""
    message = _EXPLANATIONS[status].format(detail=detail, topic=topic)
    return _REFUSALS[status](message)
