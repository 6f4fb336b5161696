"""Whose turn it is: the shard that was asked longest ago is asked next.

A start that moves on by one each time would not be fair: a busy shard behind empty ones would get
their turns too.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeVar

from ddq.store.keys import ShardId

T = TypeVar("T")

REMEMBERED_MAX_COUNT = 10_000
"""Shards whose last turn is known; of topics long gone, too. Those forgotten are asked first."""


class Turns:
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
        """The shard has its turn; before its answer, so that others at the same time go on."""
        self._asked.pop(shard, None)
        self._asked[shard] = next(self._count)
        if len(self._asked) > REMEMBERED_MAX_COUNT:
            self._asked.popitem(last=False)
