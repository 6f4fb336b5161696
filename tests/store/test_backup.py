"""The program of docs/OPERATIONS.md that saves one topic and restores it, as printed there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ddq.store.keys import shard_of
from ddq.task import TaskState
from tests.support.conservation import assert_all_conserved
from tests.support.fixtures import OpenStoreHere
from tests.support.queue import Queue, call, error_of
from tests.support.store import StoreServer

PAGE = Path(__file__).parent.parent.parent / "docs" / "OPERATIONS.md"


def backup() -> dict[str, Any]:
    """The functions of the page's program."""
    (program,) = re.findall(r"```python\n# backup.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "backup"}
    exec(compile(program, "backup.py", "exec"), names)  # noqa: S102 - our own page
    return names


async def test_a_topic_is_put_back_as_it_was_saved(
    open_store_here: OpenStoreHere, store_server: StoreServer, tmp_path: Path
) -> None:
    before, saved = Queue(open_store_here()), tmp_path / "jobs.backup"
    topic = await before.create(shards=2)
    await before.add("later", b"bytes \x00\xff", delay_ms=1_000)
    await before.add("cancelled")
    await before.cancel("cancelled")
    backup()["save"](store_server.sync, "jobs", saved)
    store_server.sync.flushdb()
    backup()["restore"](store_server.sync, saved)
    # A process that starts afterwards; who ran before the loss is refused, as below.
    after = Queue(open_store_here())
    after.clock.advance(1_001)
    assert (await after.topic()).uid == topic.uid
    assert await after.state("cancelled") is TaskState.CANCELLED
    shard = shard_of("later", 2)
    await after.promote(shard)
    (lease,) = await after.retrieve(shard=shard)
    assert lease.task.payload == b"bytes \x00\xff"
    await after.ack(lease)
    # A topic that is made later does not share a uid's ordinal with the one that came back.
    other = await Queue(after.controlled_store, "other").create()
    assert other.uid[:8] > topic.uid[:8]
    assert_all_conserved(store_server.sync)


async def test_a_topic_that_is_there_is_not_written_over(queue: Queue, tmp_path: Path) -> None:
    await queue.add("a")
    backup()["save"](queue.server.sync, "jobs", tmp_path / "saved")
    with pytest.raises(SystemExit, match="jobs exists"):
        backup()["restore"](queue.server.sync, tmp_path / "saved")


async def test_a_process_with_newer_confirmed_writes_is_refused_until_the_rollback_is_accepted(
    queue: Queue, open_store_here: OpenStoreHere, store_server: StoreServer, tmp_path: Path
) -> None:
    await queue.add("a")
    backup()["save"](store_server.sync, "jobs", tmp_path / "saved")
    await queue.add("confirmed, and lost")
    store_server.sync.hdel("ddq:topics", "jobs")
    backup()["restore"](store_server.sync, tmp_path / "saved")
    assert (await error_of(queue.add("b"))).reason == "ROLLBACK_DETECTED"
    operator = open_store_here().store
    for topic in await operator.recovery_api.topics(["jobs"], call()):
        await operator.recovery_api.accept_rollback(topic, call())
    await queue.add("b")
    assert await queue.state("a") is TaskState.SCHEDULED
    assert_all_conserved(store_server.sync)
