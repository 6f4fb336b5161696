"""The store of a synthetic history: the specification, with a journal of its transitions."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from chaos.history.notes import TopicSettings
from chaos.history.operations import RetrySettings
from models import operations as spec
from models.operations import State
from models.queue import Shard, Task, step

WALL_MS = 1_800_000_000_000
MS = 1_000_000

Events = list[dict[str, Any]]


class SyntheticStore:
    """A topic with one shard, one leader, and time that passes on demand.

    Attributes:
        events, journal: what happened so far, free to be edited.
        now_ns: the controller's clock; the store's is WALL_MS later.
    """

    def __init__(
        self,
        topic: str = "work",
        *,
        seed: int = 1,
        policy: RetrySettings | None = None,
        lease_ms: int = 10_000,
        retention_ms: int = 3_600_000,
    ) -> None:
        self.topic = topic
        self.random = random.Random(seed)
        self.policy = policy or RetrySettings(5, 1_000, 600_000, 2.0, 0.1)
        self.settings = TopicSettings(1, self.policy, lease_ms, retention_ms, "ALL", journal=True)
        self.events: Events = []
        self.journal: list[dict[str, Any]] = []
        self.now_ns = 0
        self.shard = Shard()
        self.lineage = ""
        self._tags = 0
        self.nonce, self.epoch = b"", 0
        self.step(spec.Configure(retention_ms=retention_ms))
        self.lead()

    @property
    def now_ms(self) -> int:
        """The store's clock."""
        return WALL_MS + self.now_ns // MS

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_ns += int(seconds * 1e9)

    def step(self, operation: spec.Operation, request_id: str = "") -> tuple[Any, ...]:
        """One operation on the store, now; its transitions go to the journal."""
        before = self.shard
        request = spec.Request((operation,), self.now_ms, request_id)
        self.shard, response = step(before, request, self.now_ms)
        assert response.status == "OK", response
        self._tags += 1
        tag = f"{self._tags:016x}"
        for task in sorted(self.shard.tasks.values(), key=lambda task: task.revision):
            old = before.tasks.get(task.id)
            if old is not None and old.revision == task.revision:
                continue
            self._write(_name(operation, task), old, task, tag)
        return response.results[0]

    def _write(self, op: str, old: Task | None, new: Task, tag: str) -> None:
        self.lineage = tag
        if op == "runagain":
            assert old is not None
            ended = replace(old, state=State.SUCCEEDED, revision=new.revision - 1)
            self._entry("ack", old, ended, tag)
            op, old = "enqueue", None
        if old is not None and new.incarnation != old.incarnation:
            if old.state in {State.SCHEDULED, State.READY, State.DEAD}:
                ended = replace(
                    old,
                    state=State.PURGED if old.state == State.DEAD else State.CANCELLED,
                    revision=new.revision - 1,
                )
                name = "purge" if old.state == State.DEAD else "replace"
                self._entry(name, old, ended, tag)
            old = None
        self._entry(op, old, new, tag)

    def _entry(self, op: str, old: Task | None, new: Task, tag: str) -> None:
        self.journal.append(
            {
                "topic": self.topic,
                "shard": 0,
                "stream_id": f"{self.now_ms}-{len(self.journal)}",
                "op": op,
                "id": new.id,
                "incarnation": new.incarnation,
                "revision": new.revision,
                "from": old.state.name.lower() if old else "none",
                "to": new.state.name.lower(),
                "promotion": new.promotion,
                "attempt": new.attempt,
                "run": new.run,
                "due_ms": new.due_ms,
                "at_ms": self.now_ms,
                "epoch": self.epoch,
                "owner": self.nonce.hex() if op in {"promote", "expire"} else "",
                "lineage": tag,
            }
        )

    def lead(self) -> None:
        """Another leader takes over."""
        self.nonce = self.random.randbytes(8)
        self.now_ns += 5_000 * MS if self.epoch else 0
        _, self.epoch, *_ = self.step(spec.Acquire(self.nonce, 4_000))

    def promote(self) -> None:
        """The leader does what is due."""
        self.step(spec.Promote(self.nonce, self.epoch, 4_000, 100))

    def reap(self) -> None:
        """The leader ends leases that have expired."""
        self.step(spec.Reap(self.nonce, self.epoch, 4_000, (0.5,) * 100))


def _name(operation: spec.Operation, new: Task) -> str:
    name = type(operation).__name__.lower()
    if name == "deletedead" or (name != "purge" and new.state == State.PURGED):
        return "purge"
    return {"retrieve": "lease", "reap": "expire"}.get(name, name)


__all__ = ["MS", "WALL_MS", "SyntheticStore"]
