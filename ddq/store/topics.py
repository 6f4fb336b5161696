"""The registry of topics, and each shard's copy of its topic's settings.

The registry, ddq:topics, is written first and removed last. A shard keeps uid, shard count and
settings revision, and every script compares them with what its caller believes: a process that
is behind is told so, reads the registry again, and configures the shard if that is behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ddq.entropy import Clock, Entropy
from ddq.errors import RevisionMismatch, StoreMalformed, TopicChanged, TopicNotFound
from ddq.store.barrier import Barrier, strength
from ddq.store.keys import ShardId
from ddq.store.runner import Call, ScriptReply, ScriptRunner, TopicStaleError
from ddq.store.steps import Steps
from ddq.task import Durability, RetryPolicy, Topic, TopicSettings

Args = Sequence[str | bytes | int]

UID_BYTES = 16
_ATTEMPTS_MAX_COUNT = 4
_SETTINGS = frozenset(each.name for each in fields(TopicSettings))
_LATER_SETTINGS = {"fsync": False, "max_run_ms": 0}
"""Those that an older version does not know, with what it does without them."""
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


def pack_document(topic: Topic) -> bytes:
    """What the registry keeps beside uid and revision, as JSON that people can read."""
    settings = asdict(topic.settings) | {"durability": topic.settings.durability.name}
    # A setting that came later is written only where it is used: a process of an older version
    # then leaves that topic out, which is better than to treat it as if it had asked for less.
    for name, unused in _LATER_SETTINGS.items():
        if settings[name] == unused:
            del settings[name]
    document = {
        "shards": topic.shards,
        "created_ms": topic.created_ms,
        "paused": topic.paused,
        "state": "DELETING" if topic.deleting else "ACTIVE",
        "settings": settings,
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def unpack_topic(name: str, record: bytes) -> Topic:
    """A topic from its record in the registry.

    Raises:
        StoreMalformed: the record cannot be read.
    """
    try:
        document = json.loads(record[UID_BYTES + 8 :])
        settings = dict(document["settings"])
        if unknown := sorted(settings.keys() - _SETTINGS):
            raise StoreMalformed(
                f"topic {name!r} has settings that this ddq does not know ({', '.join(unknown)}): "
                "a newer ddq gave them; upgrade this process"
            )
        settings["retry_policy"] = RetryPolicy(**settings["retry_policy"])
        settings["durability"] = Durability[settings["durability"]]
        return Topic(
            name=name,
            uid=record[:UID_BYTES],
            revision=int.from_bytes(record[UID_BYTES : UID_BYTES + 8], "big"),
            shards=int(document["shards"]),
            settings=TopicSettings(**settings),
            created_ms=int(document["created_ms"]),
            paused=bool(document["paused"]),
            deleting=document["state"] == "DELETING",
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreMalformed(
            f"ddq:topics holds a record of topic {name!r} that cannot be read ({error}); "
            "remove or repair it"
        ) from error


class TopicRegistry:
    """Finds, makes and changes topics, and runs scripts on their shards.

    Args:
        auto_create: whether find_or_create may create.
    """

    def __init__(
        self, runner: ScriptRunner, clock: Clock, entropy: Entropy, *, auto_create: bool
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._entropy = entropy
        self._auto_create = auto_create
        self._known: dict[str, Topic] = {}

    @property
    def default_settings(self) -> TopicSettings:
        """Of a topic that is made without any."""
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

    async def find(self, name: str, call: Call) -> Topic | None:
        """The topic as this process last saw it; None if it does not exist or is going."""
        topic = await self._believed(name, call)
        return None if topic is None or topic.deleting else topic

    async def _believed(self, name: str, call: Call) -> Topic | None:
        """The topic as last seen, unless it was going then: its deletion may be over by now, in
        another process, and the name would stay unusable here for ever."""
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
        topic, created = await self._believed(name, call), False
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
            ["create", name, self._tag(), 0, pack_document(wanted)], call, Barrier.of(settings)
        )
        topic = unpack_topic(name, record)
        self._known[name] = topic
        if status == "OK":
            await self.configure_all(topic, call, after=f"the creation of topic {name!r}")
        return topic, status == "OK"

    async def update(self, topic: Topic, changed: Topic, call: Call) -> Topic:
        """Puts ``changed`` in the place of ``topic``, in the registry and on every shard.

        Raises:
            RevisionMismatch: somebody else changed it since ``topic`` was read.
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
        await self.configure_all(updated, call, after=f"the change of topic {topic.name!r}")
        return updated

    async def mark_deleting(self, topic: Topic, call: Call) -> Topic:
        """The topic takes no new tasks and delivers none from now on."""
        if topic.deleting:
            await self.configure_all(topic, call)
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

    async def accept_rollback(self, recovery: int, call: Call) -> None:
        """Lets processes go on that were told more of the registry than it knows."""
        await self._runner.run_registry(["accept_rollback", "", "", recovery, ""], call)

    async def configure_all(self, topic: Topic, call: Call, *, after: str = "") -> None:
        """Brings the topic's settings to every shard.

        Args:
            after: what has been done to the topic before; empty for nothing.

        Raises:
            WriteOutcomeUnknown: only part of it was done.
            DdqError: as configure.
        """
        steps = Steps(after or f"the configuration of topic {topic.name!r}", began=bool(after))
        await steps.take_all(
            self.configure(topic, ShardId(topic.name, index), call) for index in range(topic.shards)
        )

    async def configure(self, topic: Topic, shard: ShardId, call: Call) -> None:
        """Brings the topic's settings to one shard, if that has no later ones.

        Raises:
            StoreMalformed: the shard's keys belong to an earlier topic that was not deleted.
        """
        settings = topic.settings
        # An even share, rounded up: a topic holds at least what its setting says.
        share = -(-settings.max_tasks // topic.shards)
        reply = await self._runner.run(
            topic,
            shard,
            "configure",
            [
                int(topic.paused), int(topic.deleting), share, settings.tombstone_retention_ms,
                int(settings.journal), settings.journal_max_entries,
            ],
            call,
        )  # fmt: skip
        if reply.body[0][0] == b"OTHER_TOPIC":
            raise StoreMalformed(
                f"{shard.key('control')} belongs to an earlier topic of this name that was not "
                "deleted with DeleteTopic; remove the keys that end in " + shard.tag
            )

    async def run(
        self,
        topic: Topic,
        index: int,
        script: str,
        args: Args | Callable[[Topic], Args],
        call: Call,
        *,
        while_deleting: bool = False,
    ) -> ScriptReply:
        """Runs a script on a shard, with the topic as it is now.

        Args:
            args: the script's own arguments, or a function that makes them from the topic: what
                depends on its settings has to be made anew when those turn out to be old.

        Raises:
            TopicNotFound: the topic has gone meanwhile.
            TopicChanged: it has another number of shards, or will not stand still.
            DdqError: as ScriptRunner.run.
        """
        shard = ShardId(topic.name, index)
        current = self._known.get(topic.name, topic)
        for _ in range(_ATTEMPTS_MAX_COUNT):
            if current.shards != topic.shards:
                raise TopicChanged(f"topic {topic.name!r} was made anew with other shards")
            try:
                own = args(current) if callable(args) else args
                return await self._runner.run(current, shard, script, own, call)
            except TopicStaleError:
                loaded = await self.load(topic.name, call)
                if loaded is None or (loaded.deleting and not while_deleting):
                    raise TopicNotFound(f"topic {topic.name!r} does not exist") from None
                current = loaded
                await self.configure(current, shard, call)
        raise TopicChanged(f"the settings of topic {topic.name!r} keep changing; try again")


def text(value: Any) -> str:
    """A status or id from a script's reply; bytes that are no UTF-8 are escaped."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def printable(name: bytes) -> str:
    """The name of a topic; one that somebody wrote by hand may hold any bytes."""
    return name.decode(errors="backslashreplace")
