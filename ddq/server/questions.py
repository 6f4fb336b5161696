"""The questions of a Retrieve to single shards, their time limits, and the answers so far."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ddq.errors import DdqError
from ddq.store.job_values import Leased, content_bytes, envelope_bytes
from ddq.store.keys import ShardId
from ddq.store.runner import Call
from ddq.task import Topic

REPLY_MARGIN_S = 0.2
"""A reply leaves so much earlier than the deadline of its call, so that it arrives."""
SHARE_S = 1.0
"""A shard of several that has not answered a question without effect by then is skipped."""


@dataclass(frozen=True, slots=True)
class AskedShard:
    """One shard of a topic, as a Retrieve asks it."""

    topic: Topic
    index: int

    @property
    def id(self) -> ShardId:
        """Its name in the store."""
        return ShardId(self.topic.name, self.index)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"shard {self.index} of topic {self.topic.name!r}"


@dataclass(slots=True)
class Found:
    """The answers of the shards that were asked at one time.

    Attributes:
        shards: all shards of the topics.
        answered: those that were asked for tasks and have answered.
        ended: no other shard is to be asked: this was a repeat, or an error left the outcome of a
            shard unknown.
        error: of a shard that did not answer.
    """

    leases: list[Leased] = field(default_factory=list)
    shards: list[AskedShard] = field(default_factory=list)
    size_bytes: int = 0
    envelopes_bytes: int = 0
    answered: set[ShardId] = field(default_factory=set)
    ended: bool = False
    error: DdqError | None = None

    @property
    def is_final(self) -> bool:
        """Whether this is the reply, and no shard has to be asked again."""
        return self.ended or bool(self.leases)

    def add(self, leases: Iterable[Leased]) -> None:
        """Counts leases as found."""
        for lease in leases:
            self.leases.append(lease)
            self.size_bytes += content_bytes(lease)
            self.envelopes_bytes += envelope_bytes(lease)


@dataclass(frozen=True, slots=True)
class Question:
    """One question to one shard, and the time that it has.

    Attributes:
        call: with the deadline of the question.
        given_s: how much time that was.
    """

    call: Call
    given_s: float

    @staticmethod
    def of(call: Call, most_s: float = math.inf, *, share: float = 1.0) -> Question:
        """A question that has a share of what is left of the call, and at most ``most_s``."""
        now_s = asyncio.get_running_loop().time()
        # A wait ends a whole margin before the deadline, and one more question follows.
        left_s = max(call.deadline_s - REPLY_MARGIN_S / 2 - now_s, 0.0)
        given_s = min(share * left_s, most_s)
        return Question(replace(call, deadline_s=now_s + given_s), given_s)

    def shows_absence(self, error: DdqError) -> bool:
        """Whether the shard is to be skipped: it was refused at once, or too slow.

        One that only had less time than others would be given may be well.
        """
        was_slow = asyncio.get_running_loop().time() >= self.call.deadline_s
        return self.given_s >= SHARE_S if was_slow else error.definite


def probe_call() -> Call:
    """A call that finds out whether a shard answers again."""
    return Call(asyncio.get_running_loop().time() + SHARE_S, waits_for_slot=False)
