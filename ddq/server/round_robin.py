"""Round-robin over shards: the one that was asked longest ago is asked next.

To start one shard further each time would not be fair: a busy shard behind empty ones would be
asked in their place too.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeVar

from ddq.store.keys import ShardId

T = TypeVar("T")

REMEMBERED_MAX_COUNT = 10_000
"""Shards that are remembered, also of deleted topics. Those that were forgotten are asked first."""


class RoundRobin:
    """When each shard was asked last, by this process."""

    def __init__(self) -> None:
        self._asked: OrderedDict[ShardId, int] = OrderedDict()
        self._count = itertools.count(1)

    def __len__(self) -> int:
        return len(self._asked)

    def order(self, items: Iterable[T], shard_of: Callable[[T], ShardId]) -> list[T]:
        """The items in the order in which their shards are to be asked."""
        return sorted(items, key=lambda item: self._asked.get(shard_of(item), 0))

    def ask(self, shard: ShardId) -> None:
        """Notes that the shard is asked now, not answered: calls at the same time ask others."""
        self._asked.pop(shard, None)
        self._asked[shard] = next(self._count)
        if len(self._asked) > REMEMBERED_MAX_COUNT:
            self._asked.popitem(last=False)
