"""What a run takes from the surviving store at its end: the journal, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from chaos.history.convert import counts_value, state_name
from chaos.history.operations import State
from chaos.history.run_folder import Final, FinalTopic
from ddq.client import Client, TaskState

PAGE = 1_000
HELD = (TaskState.SCHEDULED, TaskState.READY, TaskState.LEASED, TaskState.DEAD)


def journal_key(topic: str, shard: int) -> str:
    """The stream of a shard, as docs/ARCHITECTURE.md names it."""
    return f"ddq:journal:{{{topic}:{shard}}}" if shard else f"ddq:journal:{{{topic}}}"


async def write_journal(path: Path, store: Redis, shards: Mapping[str, int]) -> int:
    """Writes the journals of topics, shard by shard. Returns how many entries there are.

    Args:
        store: of the surviving master, without decode_responses.
        shards: topic → how many it has.
    """
    encode = msgspec.json.Encoder().encode
    written = 0
    with path.open("wb") as file:
        for topic, count in shards.items():
            for shard in range(count):
                after = "-"
                while page := await _page(store, journal_key(topic, shard), after):
                    for stream_id, fields in page:
                        entry = _entry(topic, shard, stream_id, fields)
                        file.write(encode(entry) + b"\n")
                        after = "(" + entry["stream_id"]
                    written += len(page)
    return written


async def _page(store: Redis, key: str, after: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    page: Any = await store.xrange(key, min=after, count=PAGE)
    return list(page)


def _entry(topic: str, shard: int, stream_id: bytes, fields: dict[bytes, bytes]) -> dict[str, Any]:
    entry: dict[str, Any] = {"topic": topic, "shard": shard, "stream_id": stream_id.decode()}
    for name, value in fields.items():
        text = name.decode()
        if text == "lineage":
            entry[text] = value.hex()
        elif text in {"op", "id", "from", "to"}:
            entry[text] = value.decode()
        else:
            entry[text] = int(value)
    return entry


async def collect_final(client: Client, topics: Iterable[str], *, drained: bool) -> Final:
    """Counts, and lists what is held; nothing may move meanwhile."""
    found = {}
    for topic in topics:
        held: dict[State, dict[str, int]] = {}
        for state in HELD:
            tasks = {
                task.id: task.incarnation
                async for task in client.list_tasks(topic, state, page_size=PAGE)
            }
            if tasks:
                held[state_name(state)] = tasks
        stats = await client.stats(topic)
        found[topic] = FinalTopic([counts_value(shard.counts) for shard in stats.shards], held)
    return Final(found, drained)


__all__ = ["collect_final", "journal_key", "write_journal"]
