"""Counters of processes that are gone are removed a part at a time: there may be any number."""

from __future__ import annotations

from ddq.store.keys import TOPICS_CONFIRMED
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call

STALE_COUNT = 20_000
"""A process that crashes every 0.36 s leaves as many in the two hours for which they are kept."""
STEP_MAX_COUNT = 512
"""Fields of a small hash, which is scanned as a whole."""


def add_stale(queue: Queue, key: str) -> None:
    """Counters that were last used long ago."""
    for at in range(0, STALE_COUNT, 1_000):
        names = {f"p:{at + number:016x}": "1 1" for number in range(1_000)}
        queue.server.sync.hset(key, mapping=names)  # type: ignore[arg-type]


def count(queue: Queue, key: str) -> int:
    """Counters that the key holds."""
    return sum(name.startswith(b"p:") for name in queue.server.read("HKEYS", key))


async def test_a_shard_is_used_by_new_processes_however_many_there_were(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    """All at once are more than a script can name in one command: each call would fail."""
    await queue.add("a")
    key = queue.key("control")
    add_stale(queue, key)
    left = count(queue, key)
    for seed in range(3):
        await Queue(open_store_here(seed=seed), queue.name).add(f"b{seed}")
        now = count(queue, key)
        assert left - STEP_MAX_COUNT <= now < left
        left = now


async def test_the_names_of_a_shard_are_all_looked_at_in_the_end(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    """Each new name has some more removed than it adds."""
    await queue.add("a")
    key = queue.key("control")
    names = {f"p:{number:016x}": "1 1" for number in range(1_000)}
    queue.server.sync.hset(key, mapping=names)  # type: ignore[arg-type]
    processes = 1
    while count(queue, key) > processes:
        await Queue(open_store_here(seed=100 + processes), queue.name).add(f"b{processes}")
        processes += 1
        assert processes < 60, "some names stay"


async def test_the_table_of_topics_is_used_by_new_processes_however_many_there_were(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    await queue.create()
    add_stale(queue, TOPICS_CONFIRMED)
    left = count(queue, TOPICS_CONFIRMED)
    for seed in range(3):
        assert await open_store_here(seed=seed).store.topics.load(queue.name, call())
        now = count(queue, TOPICS_CONFIRMED)
        assert left - STEP_MAX_COUNT <= now < left
        left = now


async def test_a_cursor_that_was_written_by_hand_is_no_error(
    queue: Queue, open_store_here: OpenStoreHere
) -> None:
    await queue.add("a")
    for key in (queue.key("control"), TOPICS_CONFIRMED):
        queue.server.sync.hset(key, "names_cursor", "nonsense")
    await Queue(open_store_here(seed=1), queue.name).add("b")
