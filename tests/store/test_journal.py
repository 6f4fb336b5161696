"""The journal: one entry per transition, written by the script that makes it."""

from __future__ import annotations

from typing import Any

from ddq.task import OnConflict, TopicSettings
from tests.support.queue import Queue, call


def entries(queue: Queue) -> list[dict[str, str]]:
    read: list[Any] = queue.server.sync.xrange(queue.key("journal"))  # type: ignore[assignment]
    return [
        {name.decode(): value.decode("latin-1") for name, value in fields.items()}
        for _, fields in read
    ]


async def journalled(queue: Queue, **settings: Any) -> Queue:
    other = Queue(queue.controlled_store, "journalled")
    await other.create(journal=True, **settings)
    return other


async def test_every_transition_leaves_one_entry(queue: Queue) -> None:
    queue = await journalled(queue)
    await queue.add("a")
    lease = await queue.lease("a")
    await queue.extend(lease)
    await queue.release(lease)
    lease, *_ = await queue.retrieve()
    await queue.snooze(lease, 1)
    queue.clock.advance(1)
    lease = await queue.lease("a")
    await queue.nack(lease, delay_ms=0)
    await queue.reschedule("a", 0)
    await queue.lease("a")
    queue.clock.advance(10_000)
    await queue.reap()
    queue.clock.advance(60_000)
    await queue.nack(await queue.lease("a"), dead=True)
    await queue.redrive("a")
    await queue.cancel("a")
    options = {"request_id": "r", "on_conflict": OnConflict.REPLACE_IF_FINISHED}
    await queue.add("a", b"new", **options)
    await queue.add("a", b"newer", request_id="q", on_conflict=OnConflict.REPLACE_IF_SCHEDULED)
    await queue.run_again(await queue.lease("a"), 0)
    await queue.ack(await queue.lease("a"))
    await queue.add("b")
    await queue.purge()
    moves = [(entry["op"], entry["from"], entry["to"]) for entry in entries(queue)]
    assert moves == [
        ("enqueue", "none", "scheduled"),
        ("promote", "scheduled", "ready"),
        ("lease", "ready", "leased"),
        ("extend", "leased", "leased"),
        ("release", "leased", "ready"),
        ("lease", "ready", "leased"),
        ("snooze", "leased", "scheduled"),
        ("promote", "scheduled", "ready"),
        ("lease", "ready", "leased"),
        ("nack", "leased", "scheduled"),
        ("reschedule", "scheduled", "scheduled"),
        ("promote", "scheduled", "ready"),
        ("lease", "ready", "leased"),
        ("expire", "leased", "scheduled"),
        ("promote", "scheduled", "ready"),
        ("lease", "ready", "leased"),
        ("nack", "leased", "dead"),
        ("redrive", "dead", "scheduled"),
        ("cancel", "scheduled", "cancelled"),
        ("enqueue", "none", "scheduled"),
        ("replace", "scheduled", "cancelled"),
        ("enqueue", "none", "scheduled"),
        ("promote", "scheduled", "ready"),
        ("lease", "ready", "leased"),
        ("ack", "leased", "succeeded"),
        ("enqueue", "none", "scheduled"),
        ("promote", "scheduled", "ready"),
        ("lease", "ready", "leased"),
        ("ack", "leased", "succeeded"),
        ("enqueue", "none", "scheduled"),
        ("purge", "scheduled", "purged"),
    ]
    revisions = [int(entry["revision"]) for entry in entries(queue)]
    assert revisions == sorted(set(revisions))


async def test_the_lineage_of_a_reply_is_that_of_the_latest_entry(queue: Queue) -> None:
    queue = await journalled(queue)
    await queue.add("a")
    receipt = (await queue.survey()).receipt
    assert receipt.lineage_id == entries(queue)[-1]["lineage"].encode("latin-1")
    before = receipt.lineage_id
    assert (await queue.survey()).receipt.lineage_id == before, "reading is not a transition"
    await queue.reschedule("a", 0)
    receipt = (await queue.survey()).receipt
    assert receipt.lineage_id == entries(queue)[-1]["lineage"].encode("latin-1")
    assert receipt.lineage_id != before


async def test_the_journal_is_trimmed(queue: Queue) -> None:
    queue = await journalled(queue, journal_max_entries=1_000)
    for i in range(3_000):
        await queue.add(f"t{i}")
    assert 1_000 <= len(entries(queue)) <= 1_200


async def test_a_topic_without_a_journal_has_none(queue: Queue) -> None:
    await queue.add("a")
    assert not TopicSettings().journal
    assert entries(queue) == []


async def test_every_script_moves_the_sequence(queue: Queue) -> None:
    """Without a write WAIT would answer for an older one, and a deposed master could be read."""
    await queue.add("a")
    topic = await queue.topic()

    async def sequence_of(script: str, args: list[str | bytes | int]) -> int:
        reply = await queue.store.scripts.run(topic, 0, script, args, call("r"))
        return reply.receipt.sequence

    idle: dict[str, list[str | bytes | int]] = {
        "survey": [],
        "get": [0, "unknown"],
        "list": [5, 0, 10, 1_000, "", ""],
        "ack": ["unknown", b"x"],
        "run_again": ["unknown", b"x", "delay", 0, ""],
        "nack": ["unknown", b"x", -1, 0, "", "0.5"],
        "release": ["unknown", b"x"],
        "snooze": [1, "unknown", b"x", 1],
        "extend": ["unknown", b"x", 1_000],
        "remove": ["", "unknown", 0],
        "reschedule": ["r", "unknown", "delay", 0, ""],
        "retrieve": ["", 0, 1_000, 1_000, 0, 1_000, 1, bytes(16)],
        "promote": [b"x", 1, 1_000, 10],
        "reap": [b"x", 1, 1_000, "0.5"],
        "resign": [b"x", 1],
        "collect": [10],
        "delete_dead": ["unknown", ""],
        "redrive": ["r", 10],
        "purge": ["r", 0],
    }
    last = 0
    for script, args in idle.items():
        sequence = await sequence_of(script, args)
        assert sequence > last, script
        stored = queue.server.sync.hget(queue.key("control"), "sequence")
        assert stored is not None
        assert int(stored) >= sequence, script
        last = sequence
