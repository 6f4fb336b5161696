"""What the store's own errors about a script mean for the request."""

from __future__ import annotations

import redis.exceptions

from ddq.errors import DdqError, NotEnoughReplicas, StoreFull, StoreMalformed, StoreUnreachable
from ddq.store.scripts import Script

NOT_HERE = (
    redis.exceptions.MovedError,
    redis.exceptions.AskError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
)
"""Answers of a Cluster node that does not serve the keys, or not now."""
_REFUSED = (
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "BUSY",
    "CLUSTERDOWN",
    "NOAUTH",
    "NOPERM",
)


class NotHereError(Exception):
    """The node did not run the script: another node has the keys, or they are being moved.

    Attributes:
        reply: the node's error: MOVED, ASK, TRYAGAIN or CLUSTERDOWN.
    """

    def __init__(self, reply: redis.exceptions.RedisError) -> None:
        super().__init__(str(reply))
        self.reply = reply


def store_error(script: Script, error: redis.exceptions.RedisError) -> DdqError:
    """The error of ddq for an error with which the store answered a script."""
    text = str(error)
    if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM" in text:
        return StoreFull("the store is at its maxmemory and takes no new tasks")
    if "NOREPLICAS" in text:
        return NotEnoughReplicas("the store has fewer replicas than it needs for a write")
    kind = type(error).__name__
    if any(word in text for word in _REFUSED) or isinstance(
        error, redis.exceptions.ReadOnlyError | redis.exceptions.BusyLoadingError
    ):
        return StoreUnreachable(f"the store refuses to run scripts: {text or kind}")
    return StoreMalformed(f"script {script.name} failed in the store: {text or kind}")
