"""Which shards there are: learned from topic hints one by one, and from the table in pages.

It runs beside the visits, so that a registry that does not answer holds up no shard.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections.abc import Callable
from typing import Protocol

from ddq.errors import DdqError
from ddq.scheduler.shard import Shard
from ddq.scheduler.visit import RANK_BYTES
from ddq.store.keys import ShardId
from ddq.store.runner import Call
from ddq.store.topic_records import printable
from ddq.store.topics import FIRST_PAGE, READ_MAX_COUNT, RegistryVersion, TopicRegistry
from ddq.task import Topic

log = logging.getLogger(__name__)

RETRY_S = 1.0


class Listener(Protocol):
    """Hears which shards come and go."""

    def on_new(self, shard: Shard, *, urgent: bool) -> None:
        """There is a shard that was not known; urgent: a hint named it."""

    def on_gone(self, shard: Shard) -> None:
        """Its topic was deleted."""


class ShardTable:
    """The shards of all topics.

    Args:
        name: of this scheduler, from which it has its rank on each shard.
        call: a new call to the store.
        interval_s: from one look at the whole table to the next, should topic hints get lost.

    Attributes:
        shards: all that are known.
    """

    def __init__(
        self,
        registry: TopicRegistry,
        name: bytes,
        listener: Listener,
        *,
        call: Callable[[], Call],
        interval_s: Callable[[], float],
    ) -> None:
        self.shards: dict[ShardId, Shard] = {}
        self._registry = registry
        self._name = name
        self._listener = listener
        self._call = call
        self._interval_s = interval_s
        self._topics: dict[str, list[Shard]] = {}
        self._checks: dict[str, None] = {}
        self._changed = asyncio.Event()
        self._read_s = float("-inf")
        self._version: RegistryVersion | None = None
        self._pass: _Pass | None = None

    def check(self, topic: str) -> None:
        """Something has happened to this topic: it alone is looked up."""
        self._checks[topic] = None
        self._changed.set()

    def reread(self) -> None:
        """Topic hints may have been lost: the whole table is read, from its first page on."""
        self._version = self._pass = None
        self._read_s = float("-inf")
        self._changed.set()

    async def run(self) -> None:
        """Keeps the shards up to date until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            due_s = self._read_s + self._interval_s()
            try:
                if self._checks:
                    await self._check_some()
                elif self._pass is not None:
                    await self._read_page(self._pass)
                elif loop.time() >= due_s:
                    await self._begin()
                else:
                    await self._wait(due_s)
            except DdqError as error:
                log.warning("the topics cannot be read, trying again: %(error)s", {"error": error})
                await asyncio.sleep(RETRY_S)

    async def _wait(self, until_s: float) -> None:
        try:
            async with asyncio.timeout_at(until_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _check_some(self) -> None:
        names = list(itertools.islice(self._checks, READ_MAX_COUNT))
        for name in names:
            del self._checks[name]
        try:
            topics = await self._registry.load_many([name.encode() for name in names], self._call())
        except DdqError:
            self._checks = dict.fromkeys(names) | self._checks
            raise
        for name, topic in zip(names, topics, strict=True):
            if topic is None:
                self._set(name, 0, urgent=True)
            else:
                self._adopt(topic, urgent=True)

    async def _begin(self) -> None:
        """A look at the whole table, which ends here if it has not changed since the last one."""
        version = await self._registry.version(self._call())
        if version == self._version:
            self._read_s = asyncio.get_running_loop().time()
        else:
            self._pass = _Pass(version, set(self._topics))

    async def _read_page(self, reading: _Pass) -> None:
        page = await self._registry.load_page(reading.cursor, self._call())
        if reading is not self._pass:
            return
        for problem in page.malformed:
            log.error("a topic is left out: %(error)s", {"error": problem})
        for topic in page.topics:
            self._adopt(topic, urgent=False)
        reading.seen.update(map(printable, page.names))
        reading.cursor = page.cursor
        if page.last:
            await self._end(reading)

    async def _end(self, reading: _Pass) -> None:
        version = await self._registry.version(self._call())
        if reading is not self._pass:
            return
        self._pass = None
        self._read_s = asyncio.get_running_loop().time()
        if version == reading.version and version.count == len(reading.seen):
            self._version = version
        # A page may lack a topic where the table has another master now: each is asked for.
        for name in reading.known - reading.seen:
            self.check(name)

    def _adopt(self, topic: Topic, *, urgent: bool) -> None:
        self._set(topic.name, 0 if topic.deleting else topic.shards, urgent=urgent)

    def _set(self, name: str, count: int, *, urgent: bool) -> None:
        """The topic has so many shards."""
        known = self._topics.get(name, [])
        for shard in known[count:]:
            del self.shards[shard.id]
            self._listener.on_gone(shard)
        new = [self._make(ShardId(name, index)) for index in range(len(known), count)]
        if count:
            self._topics[name] = known[:count] + new
        else:
            self._topics.pop(name, None)
        for shard in new:
            self.shards[shard.id] = shard
            self._listener.on_new(shard, urgent=urgent)

    def _make(self, shard_id: ShardId) -> Shard:
        return Shard(shard_id, rank(self._name, shard_id))


class _Pass:
    """One reading of the whole table, page by page."""

    def __init__(self, version: RegistryVersion, known: set[str]) -> None:
        self.version = version
        self.known = known
        self.seen: set[str] = set()
        self.cursor = FIRST_PAGE


def rank(scheduler: bytes, shard: ShardId) -> int:
    """The rank of a scheduler on a shard, drawn from both names (rendezvous hashing)."""
    digest = hashlib.sha256(scheduler + shard.tag.encode()).digest()
    return int.from_bytes(digest[:RANK_BYTES], "big")
