"""All topics in the order of their names, read in steps of a bounded size.

A listing of many pages reads the names once. They are kept until the table's version changes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ddq.errors import StoreMalformed
from ddq.store.runner import Call
from ddq.store.topics import FIRST_PAGE, READ_MAX_COUNT, RegistryVersion, TopicRegistry
from ddq.task import Topic

_PASSES_MAX_COUNT = 3


class TopicDirectory:
    """The names of all topics, as of the last complete reading."""

    def __init__(self, registry: TopicRegistry) -> None:
        self._registry = registry
        self._version: RegistryVersion | None = None
        self._names: list[bytes] = []

    async def names(self, call: Call) -> Sequence[bytes]:
        """The names of all records of the table, sorted; one script if nothing has changed."""
        version = await self._registry.version(call)
        found: set[bytes] = set()
        for _ in range(_PASSES_MAX_COUNT):
            if version == self._version:
                break
            read, before = await self._read(call), version
            version = await self._registry.version(call)
            if version == before and version.count == len(read):
                self._version, self._names = version, sorted(read)
            # The table was changed meanwhile, or has another master, whose pages are others: a name
            # that one pass missed is found by the next one.
            found |= read
        else:
            if version != self._version:
                return sorted(found)
        return self._names

    async def _read(self, call: Call) -> set[bytes]:
        names: set[bytes] = set()
        cursor = FIRST_PAGE
        while True:
            page = await self._registry.load_page(cursor, call)
            names.update(page.names)
            if page.last:
                return names
            cursor = page.cursor

    async def page(self, after: bytes, limit: int, call: Call) -> tuple[list[Topic], bool]:
        """The next topics by name, and whether more may follow.

        Args:
            after: the last name of the page before; empty for the first page.
            limit: topics at most.

        Raises:
            StoreMalformed: a record of the page cannot be read.
        """
        names = await self.names(call)
        at = bisect_right(names, after)
        topics: list[Topic] = []
        while at < len(names) and len(topics) < limit:
            part = names[at : at + min(READ_MAX_COUNT, limit - len(topics))]
            topics += await self._existing(part, call)
            at += len(part)
        return topics, at < len(names)

    async def load_all(self, call: Call) -> tuple[list[Topic], list[StoreMalformed]]:
        """Every topic by name, and an error for each record that cannot be read."""
        topics: list[Topic] = []
        malformed: list[StoreMalformed] = []
        names = await self.names(call)
        for at in range(0, len(names), READ_MAX_COUNT):
            part = names[at : at + READ_MAX_COUNT]
            try:
                topics += await self._existing(part, call)
            except StoreMalformed:
                for name in part:
                    try:
                        topics += await self._existing([name], call)
                    except StoreMalformed as error:
                        malformed.append(error)
        return topics, malformed

    async def _existing(self, names: Sequence[bytes], call: Call) -> list[Topic]:
        """The topics of these names, without those that are gone by now."""
        found = await self._registry.load_many(names, call)
        return [topic for topic in found if topic is not None]
