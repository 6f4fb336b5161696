"""One function a key. All keys of a shard carry one hash tag, so they share a Cluster slot."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

TOPICS = "ddq:topics"
"""HASH: topic name -> uid, revision, JSON document; "#" -> number of topics ever made."""

TOPICS_CONFIRMED = f"ddq:confirmed:{{{TOPICS}}}"
"""HASH: p:process -> calls that it was confirmed, and when; recovery; version_tag -> random bytes
of the last change of TOPICS. In the slot of TOPICS."""

HINTS = "ddq:hints"
"""Channel of the wake-up hints.

"due <tag> <ms>", "free <tag> <ms>", "ready <tag> <count>", "topic <name> 0".
"""

ROOTS = (
    "control",
    "tasks",
    "ready",
    "leases",
    "payloads",
    "states",
    "dead",
    "finished",
    "requests",
    "request_expiry",
    "journal",
)
"""The keys of a shard in the order in which every script declares them."""


@dataclass(frozen=True, slots=True)
class ShardId:
    """One shard of a topic, the unit of atomicity, order and leadership."""

    topic: str
    index: int

    @property
    def tag(self) -> str:
        """The hash tag: {topic}, and {topic:k} from the second shard on."""
        return f"{{{self.topic}}}" if self.index == 0 else f"{{{self.topic}:{self.index}}}"

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys of the shard, in the order of ROOTS."""
        return tuple(f"ddq:{root}:{self.tag}" for root in ROOTS)

    def key(self, root: str) -> str:
        """One key of the shard; ``root`` is one of ROOTS."""
        if root not in ROOTS:
            raise ValueError(f"invalid key root {root!r}; expected one of {', '.join(ROOTS)}")
        return f"ddq:{root}:{self.tag}"

    @staticmethod
    def parse(tag: str) -> ShardId | None:
        """The shard that a hash tag names, or None."""
        if not (tag.startswith("{") and tag.endswith("}")):
            return None
        topic, _, index = tag[1:-1].partition(":")
        if not topic or (index and not index.isdecimal()):
            return None
        return ShardId(topic, int(index or 0))


def shard_of(task_id: str, shards: int) -> int:
    """The index of the shard that keeps a task: the first 8 bytes of SHA-256(id) modulo shards."""
    if shards == 1:
        return 0
    return int.from_bytes(hashlib.sha256(task_id.encode()).digest()[:8], "big") % shards


def heartbeat_key(key: str) -> str:
    """A key of the heartbeat's own, in the slot of ``key``: on the same node."""
    start, end = key.find("{"), key.find("}")
    tag = key[start + 1 : end] if 0 <= start < end else key
    return f"ddq:heartbeat:{{{tag}}}"
