"""The registry of topics, ddq:topics: written first and removed last.

Each shard has a copy of its topic's settings (shard_settings.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ddq.entropy import Clock, Entropy
from ddq.errors import RevisionMismatch, StoreMalformed, TopicNotFound
from ddq.store.barrier import Barrier, strength
from ddq.store.records import FORMAT
from ddq.store.runner import Call, ScriptRunner
from ddq.store.shard_settings import ShardSettings
from ddq.store.topic_records import pack_document, printable, unpack_topic
from ddq.task import Topic, TopicSettings

_COUNTER_FIELD = b"#"
TAG_BYTES = 8
READ_MAX_COUNT = 100
"""Records that one script reads, and one step of this process parses: about 5 ms."""
FIRST_PAGE = b"0"
"""The cursor of the first page, and what the last page has as its own."""


@dataclass(frozen=True, slots=True)
class RegistryVersion:
    """A state of the table of topics; two that are equal have the same topics and settings.

    Attributes:
        changes: how often the table was changed.
        tag: random bytes of the last change: after a failover another one may have the same number.
        count: topics, and records that cannot be read.
    """

    changes: int
    tag: bytes
    count: int


@dataclass(slots=True)
class RegistryPage:
    """A part of the table of topics.

    Attributes:
        cursor: of the next page; FIRST_PAGE behind the last one.
        names: of all its records, also of those that cannot be read.
    """

    cursor: bytes
    names: list[bytes] = field(default_factory=list)
    topics: list[Topic] = field(default_factory=list)
    malformed: list[StoreMalformed] = field(default_factory=list)

    @property
    def last(self) -> bool:
        """Whether no page follows."""
        return self.cursor == FIRST_PAGE


class TopicRegistry:
    """Finds, creates and changes topics, and caches them as last seen.

    Args:
        shard_settings: bring each change to the topic's shards.
        auto_create: whether find_or_create may create.
    """

    def __init__(
        self,
        runner: ScriptRunner,
        shard_settings: ShardSettings,
        clock: Clock,
        entropy: Entropy,
        *,
        auto_create: bool,
    ) -> None:
        self._runner = runner
        self._shard_settings = shard_settings
        self._clock = clock
        self._entropy = entropy
        self._auto_create = auto_create
        self._known: dict[str, Topic] = {}

    @property
    def default_settings(self) -> TopicSettings:
        """The settings of a topic that is created without any."""
        default = self._runner.default
        return TopicSettings(durability=default.mode, fsync=default.fsync)

    async def load(self, name: str, call: Call) -> Topic | None:
        """The topic as the registry has it now."""
        before = self._known.get(name)
        _, record = await self._runner.run_registry(["get", name, "", 0, ""], call)
        if not record:
            self._drop_known(name, before)
            return None
        return self._note(name, record)

    async def version(self, call: Call) -> RegistryVersion:
        """Which state the table is in: one small script, whatever the number of topics."""
        _, (changes, tag, count) = await self._runner.run_registry(["version", "", "", 0, ""], call)
        return RegistryVersion(changes, tag, count)

    async def load_many(self, names: Sequence[bytes], call: Call) -> list[Topic | None]:
        """The topics of these names, at most READ_MAX_COUNT; None where there is none.

        Raises:
            StoreMalformed: a record cannot be read.
        """
        assert len(names) <= READ_MAX_COUNT
        if not names:
            return []
        before = [self._known.get(printable(name)) for name in names]
        _, records = await self._runner.run_registry(["many", "", "", 0, ""], call, names=names)
        found: list[Topic | None] = []
        for name, record, known in zip(names, records, before, strict=True):
            if record is None:
                self._drop_known(printable(name), known)
            found.append(None if record is None else self._note(printable(name), record))
        return found

    async def load_page(self, cursor: bytes, call: Call) -> RegistryPage:
        """About READ_MAX_COUNT topics, in no order.

        A topic that exists from the first page to the last one is in one of them, unless another
        node became master in between.

        Args:
            cursor: of the page before; FIRST_PAGE for the first one.
        """
        _, (after, *entries) = await self._runner.run_registry(
            ["page", "", "", READ_MAX_COUNT, cursor], call
        )
        page = RegistryPage(after)
        for name, record in zip(entries[::2], entries[1::2], strict=True):
            if name == _COUNTER_FIELD:
                continue
            page.names.append(name)
            try:
                page.topics.append(self._note(printable(name), record))
            except StoreMalformed as error:
                page.malformed.append(error)
        return page

    def _note(self, name: str, record: bytes) -> Topic:
        """The topic of a record, which is not parsed again if it is known in this revision."""
        known = self._known.get(name)
        if known is None or known.uid + known.revision.to_bytes(8, "big") != record[:24]:
            known = self._known[name] = unpack_topic(name, record)
        return known

    def known(self, name: str) -> Topic | None:
        """The cached topic, without asking the store; it may be stale."""
        return self._known.get(name)

    async def find(self, name: str, call: Call) -> Topic | None:
        """The topic as this process last saw it; None if it does not exist or is being deleted."""
        topic = await self._cached(name, call)
        return None if topic is None or topic.deleting else topic

    async def _cached(self, name: str, call: Call) -> Topic | None:
        """The topic as last seen, unless it was being deleted then: its deletion may be
        over by now, in another process, and the name would stay unusable here for ever."""
        topic = self._known.get(name)
        return await self.load(name, call) if topic is None or topic.deleting else topic

    async def require(self, name: str, call: Call) -> Topic:
        """The topic.

        Raises:
            TopicNotFound: it does not exist, or is being deleted.
        """
        topic = await self.find(name, call)
        if topic is None:
            raise TopicNotFound(f"topic {name!r} does not exist")
        return topic

    async def find_or_create(self, name: str, call: Call) -> tuple[Topic, bool]:
        """The topic, made with default settings if it does not exist.

        Returns:
            The topic, and whether this call made it.

        Raises:
            TopicNotFound: it is being deleted, or this server does not create topics by use.
        """
        topic, created = await self._cached(name, call), False
        if topic is None and self._auto_create:
            topic, created = await self.create(name, 1, self.default_settings, call)
        if topic is None:
            raise TopicNotFound(
                f"topic {name!r} does not exist, and this server does not create topics by "
                "first use; create it with CreateTopic"
            )
        if topic.deleting:
            raise TopicNotFound(f"topic {name!r} is being deleted")
        return topic, created

    async def create(
        self, name: str, shards: int, settings: TopicSettings, call: Call
    ) -> tuple[Topic, bool]:
        """Makes a topic; returns it and True, or the one that is there and False.

        Raises:
            WriteOutcomeUnknown: it was made, and not every shard could be configured. The next
                script on such a shard does that.
        """
        wanted = Topic(name, b"", 0, shards, settings, self._clock.now_ms())
        status, record = await self._runner.run_registry(
            ["create", name, self._tag(), FORMAT, pack_document(wanted)],
            call,
            Barrier.of(settings),
        )
        topic = unpack_topic(name, record)
        self._known[name] = topic
        if status == "OK":
            await self._shard_settings.configure_all(
                topic, call, after=f"the creation of topic {name!r}"
            )
        return topic, status == "OK"

    async def update(self, topic: Topic, changed: Topic, call: Call) -> Topic:
        """Puts ``changed`` in the place of ``topic``, in the registry and on every shard.

        Raises:
            RevisionMismatch: another process changed it since ``topic`` was read.
            WriteOutcomeUnknown: it was changed, and not every shard could be configured. The next
                script on such a shard does that.
        """
        before = self._known.get(topic.name)
        stronger = max(Barrier.of(topic.settings), Barrier.of(changed.settings), key=strength)
        status, record = await self._runner.run_registry(
            ["update", topic.name, self._tag(), topic.revision, pack_document(changed)],
            call,
            stronger,
        )
        if status == "REVISION":
            self._drop_known(topic.name, before)
            if not record:
                raise TopicNotFound(f"topic {topic.name!r} does not exist")
            raise RevisionMismatch(f"topic {topic.name!r} was changed at the same time")
        updated = unpack_topic(topic.name, record)
        self._known[topic.name] = updated
        await self._shard_settings.configure_all(
            updated, call, after=f"the change of topic {topic.name!r}"
        )
        return updated

    async def mark_deleting(self, topic: Topic, call: Call) -> Topic:
        """The topic takes no new tasks and delivers none from now on."""
        if topic.deleting:
            await self._shard_settings.configure_all(topic, call)
            return topic
        return await self.update(topic, replace(topic, deleting=True), call)

    async def forget(self, topic: Topic, call: Call) -> None:
        """Removes the topic from the registry: the last step of its deletion."""
        before = self._known.get(topic.name)
        await self._runner.run_registry(
            ["delete", topic.name, self._tag(), topic.revision, ""],
            call,
            Barrier.of(topic.settings),
        )
        self._drop_known(topic.name, before)

    def _drop_known(self, name: str, known: Topic | None) -> None:
        """Removes what was known before a script ran; another task may have read it since."""
        if self._known.get(name) is known:
            self._known.pop(name, None)

    def _tag(self) -> bytes:
        """Random bytes of one change of the table."""
        return self._entropy.token(TAG_BYTES)

    async def upgrade(self, call: Call) -> None:
        """Allows the latest format in the store, for new shards and for those that are there."""
        await self._runner.run_registry(["upgrade", "", "", FORMAT, ""], call)

    @property
    def store_format(self) -> int:
        """The form that the store's shards are to have, as the registry said last."""
        return min(self._runner.store_format, FORMAT)

    async def accept_rollback(self, recovery: int, call: Call) -> None:
        """Lets processes continue that were confirmed more of the registry than it knows."""
        await self._runner.run_registry(["accept_rollback", "", "", recovery, ""], call)
