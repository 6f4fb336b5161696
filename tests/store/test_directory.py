"""What reading the table of topics costs: steps of a bounded size, and none that reads them all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddq.errors import StoreMalformed
from ddq.store.keys import TOPICS
from ddq.store.topics import FIRST_PAGE, READ_MAX_COUNT, TopicRegistry
from ddq.task import TopicSettings
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call
from tests.support.store import ControlledStore

TOPICS_COUNT = 1_000
# A hash as large as this is scanned bucket by bucket; one bucket may hold several records.
PAGE_MAX_COUNT = 2 * READ_MAX_COUNT


@pytest.fixture
async def work(open_store_here: OpenStoreHere) -> ControlledStore:
    """A store with many topics, whose shards were never configured."""
    work = open_store_here()
    for number in range(TOPICS_COUNT):
        await make(work, f"topic{number:04}")
    return work


async def make(work: ControlledStore, name: str) -> None:
    """A topic."""
    await work.store.topics.create(name, 1, TopicSettings(), call())


def registry_calls(work: ControlledStore) -> list[str]:
    """The actions that the table of topics was asked for since the last time."""
    sources = {work.store.topics._runner._scripts["registry"].sha1}
    sources.add(work.store.topics._runner._scripts["registry"].source)
    actions = [
        str(command[5]) for command in work.connection.commands if str(command[1]) in sources
    ]
    work.connection.commands.clear()
    return actions


async def test_each_page_holds_a_bounded_number_of_records(work: ControlledStore) -> None:
    names: list[bytes] = []
    sizes: list[int] = []
    cursor = FIRST_PAGE
    while not sizes or cursor != FIRST_PAGE:
        page = await work.store.topics.load_page(cursor, call())
        sizes.append(len(page.names))
        names += page.names
        cursor = page.cursor
    assert {*names} == {f"topic{number:04}".encode() for number in range(TOPICS_COUNT)}
    assert max(sizes) <= PAGE_MAX_COUNT


async def test_a_listing_reads_the_names_once(work: ControlledStore) -> None:
    """Ten pages of a hundred: the names of all are read for the first page only."""
    registry_calls(work)
    after, listed = b"", list[str]()
    reading: list[int] = []
    while True:
        topics, more = await work.store.directory.page(after, 100, call())
        listed += [topic.name for topic in topics]
        actions = registry_calls(work)
        reading.append(actions.count("page"))
        assert actions.count("many") == 1
        if not more:
            break
        after = listed[-1].encode()
    assert listed == [f"topic{number:04}" for number in range(TOPICS_COUNT)]
    assert reading[0] > 0
    assert reading[1:] == [0] * 9


async def test_a_listing_sees_each_change(work: ControlledStore) -> None:
    directory = work.store.directory
    assert (await directory.page(b"", 2, call()))[1]
    await make(work, "a-new-one")
    topics, _ = await directory.page(b"", 2, call())
    assert [topic.name for topic in topics] == ["a-new-one", "topic0000"]
    for name in ("a-new-one", "topic0001"):
        topic = await work.store.topics.require(name, call())
        assert (await work.store.operator_api.delete_topic(topic, call())).done
    topics, _ = await directory.page(b"", 2, call())
    assert [topic.name for topic in topics] == ["topic0000", "topic0002"]


async def test_a_change_while_the_names_are_read_hides_no_topic(
    work: ControlledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pass meets a change, so none is complete by itself."""
    load_page = TopicRegistry.load_page
    made = iter(range(1_000))

    async def load_and_make(self: TopicRegistry, cursor: bytes, call_: object) -> object:
        page = await load_page(self, cursor, call())
        if page.last:
            await make(work, f"late{next(made)}")
        return page

    monkeypatch.setattr(TopicRegistry, "load_page", load_and_make)
    names = await work.store.directory.names(call())
    assert {f"topic{number:04}".encode() for number in range(TOPICS_COUNT)} <= {*names}


async def test_a_version_tells_two_branches_of_a_failover_apart(queue: Queue) -> None:
    """Both made one topic after the fork: the number of changes is the same."""
    registry, server = queue.store.topics, queue.server
    # What waits for no barrier is not confirmed to the process, which does not miss it then.
    relaxed = replace(call(), durable=False)
    await registry.create("first", 1, TopicSettings(), relaxed)
    before = {key: server.read("DUMP", key) for key in server.read("KEYS", "ddq:*topics*")}
    await registry.create("one", 1, TopicSettings(), relaxed)
    one = await registry.version(relaxed)
    for key, dump in before.items():
        server.read("RESTORE", key, 0, dump, "REPLACE")
    await registry.create("other", 1, TopicSettings(), relaxed)
    other = await registry.version(relaxed)
    assert (one.changes, one.count) == (other.changes, other.count)
    assert one != other


async def test_an_unchanged_table_has_the_same_version(queue: Queue) -> None:
    registry = queue.store.topics
    await queue.create()
    assert await registry.version(call()) == await registry.version(call())


async def test_a_page_with_a_record_that_cannot_be_read_names_it(queue: Queue) -> None:
    await queue.create()
    queue.server.sync.hset(TOPICS, "broken", b"")
    with pytest.raises(StoreMalformed, match="broken"):
        await queue.store.directory.page(b"", 10, call())


async def test_a_record_is_parsed_once_for_each_revision(
    work: ControlledStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading all of them again costs a comparison of each, not its JSON."""
    await work.store.directory.load_all(call())
    parsed: list[str] = []

    def unpack(name: str, record: bytes) -> object:
        parsed.append(name)
        raise AssertionError(name)

    monkeypatch.setattr("ddq.store.topics.unpack_topic", unpack)
    topics, _ = await work.store.directory.load_all(call())
    assert len(topics) == TOPICS_COUNT
    assert parsed == []
