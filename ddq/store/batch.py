"""A batch of items, grouped by shard: one script for each, or several if the tasks are large."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from ddq.errors import DdqError
from ddq.store.keys import shard_of
from ddq.store.runner import Call
from ddq.store.shard_scripts import ShardScripts
from ddq.task import Outcome, Topic

I = TypeVar("I")  # noqa: E741 - an item of a batch
T = TypeVar("T")
Args = list[str | bytes | int]


async def run_batch(
    scripts: ShardScripts,
    topic: Topic,
    script: str,
    items: Sequence[I],
    id_of: Callable[[I], str],
    arguments: Callable[[Topic, Sequence[I]], Args],
    read: Callable[[I, Any], T | DdqError],
    call: Call,
    *,
    head: Args,
    results_of: Callable[[Any], Sequence[Any]] = lambda body: body,
) -> list[Outcome[T]]:
    """Runs a batch script on every shard that the items live on, all shards at the same time.

    A script reads a bounded number of bytes. It answers for its first items, at least for one, and
    the others are sent again in the next script.

    Args:
        id_of: the task id of an item.
        arguments: the script's arguments for some items, with the topic's present settings.
        read: what the script's result for an item stands for.
        head: the script's arguments before those of the items.
        results_of: the results of the items in what the script returned.

    Returns:
        One outcome an item. A shard whose script failed gives that error to those of its items that
        no script has answered for, and to no others.
    """
    outcomes: list[Outcome[T]] = [Outcome()] * len(items)

    def args(positions: Sequence[int], now: Topic) -> Args:
        return [*head, *arguments(now, [items[position] for position in positions])]

    async def run(index: int, positions: Sequence[int]) -> None:
        left = positions
        try:
            while left:
                reply = await scripts.run(topic, index, script, partial(args, left), call)
                results, receipt = results_of(reply.body[0]), reply.receipt
                for position, result in zip(left, results, strict=False):
                    value = read(items[position], result)
                    if isinstance(value, DdqError):
                        outcomes[position] = Outcome(None, value, receipt)
                    else:
                        outcomes[position] = Outcome(value, None, receipt)
                left = left[len(results) :]
        except DdqError as error:
            for position in left:
                outcomes[position] = Outcome(error=error)

    if topic.shards == 1:
        await run(0, range(len(items)))
        return outcomes
    by_shard: dict[int, list[int]] = {}
    for position, item in enumerate(items):
        by_shard.setdefault(shard_of(id_of(item), topic.shards), []).append(position)
    await asyncio.gather(*(run(*shard) for shard in by_shard.items()))
    return outcomes
