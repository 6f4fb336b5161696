"""Asks a client what is left at the end of a run: counts, and the tasks that are held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chaos.history.convert import counts_value, state_name
from chaos.history.operations import (
    State,
)
from chaos.history.run_folder import Final, FinalTopic
from ddq.client import Client, TaskState

PAGE = 1_000
HELD = (TaskState.SCHEDULED, TaskState.READY, TaskState.LEASED, TaskState.DEAD)


async def collect_final(
    client: Client,
    topics: Iterable[str],
    *,
    drained: bool,
    trimmed: Mapping[str, list[int]],
) -> Final:
    """Counts, and lists what is held; nothing may move meanwhile.

    Args:
        trimmed: topic → how many entries the journal of each shard has dropped.
    """
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
        counts = [counts_value(shard.counts) for shard in stats.shards]
        found[topic] = FinalTopic(counts, held, trimmed.get(topic))
    return Final(found, drained)


__all__ = ["collect_final"]
