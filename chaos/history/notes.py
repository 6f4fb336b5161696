"""What a history says beside its operations: the run, faults, roles, leaders, metrics, phases."""

from __future__ import annotations

from typing import Literal

import msgspec

from chaos.history.operations import RetrySettings, Value


class TopicSettings(Value):
    """A topic as it was made; the defaults of requests that name none."""

    shards: int = 1
    policy: RetrySettings = msgspec.field(default_factory=RetrySettings)
    lease_ms: int = 30_000
    retention_ms: int = 3_600_000
    durability: str = ""
    journal: bool = False


class RunNote(Value):
    """The first event: what runs, and the wall clock of the controller at that moment.

    Attributes:
        replicas: how many replicas each master is configured to have; -1: not known.
    """

    wall_ms: int = 0
    topics: dict[str, TopicSettings] = msgspec.field(default_factory=dict)
    scenario: str = ""
    seed: int = 0
    version: str = ""
    durability: str = ""
    command: str = ""
    replicas: int = -1


class FaultNote(Value):
    """``phase`` inject and heal bracket the fault; ``verified``: it was seen to have happened.

    ``number`` tells it from others of its kind that are not over yet.
    """

    kind: str
    target: str = ""
    phase: Literal["inject", "heal"] = "inject"
    verified: bool = True
    detail: str = ""
    number: str = ""


class RoleNote(Value):
    """A sample of a store node's role; the event's process is the node's name."""

    role: Literal["master", "replica", "sentinel", "down", "unknown"]


class LeaderNote(Value):
    """A sample of what a scheduler leads, for a report; the event's process is the scheduler.

    Attributes:
        leads: False: it gave it up, or was deposed.
        lineage: tag of a transition made under it, where known.
    """

    topic: str
    shard: int = 0
    epoch: int = 0
    leads: bool = True
    lineage: str = ""


class LossNote(Value):
    """All nodes of a store came back without the end of what they had.

    Written only where every server that continues had acknowledged something that was lost: a
    server that had not cannot know of the loss.

    Attributes:
        kept_revision: the greatest revision that the topic, which has one shard, still holds.
    """

    topic: str
    kept_revision: int


class MetricNote(Value):
    """A count that a process keeps, since its start; the event's process is its name."""

    name: str
    value: float = 0.0


class CreditNote(Value):
    """A stream begins to ask for tasks, or asks for none; the event's process is the request_id of
    its subscription.

    Attributes:
        tasks: how many it asks for; 0: none from now on.
        spent_by: request_id of the reply that brought the last task asked for; "" where the client
            has ended the stream, or has lost it.
    """

    tasks: int = 0
    spent_by: str = ""


class PhaseNote(Value):
    """The part of the run that begins: load, heal, drain, end."""

    phase: str


NOTES: dict[str, type[Value]] = {
    "run": RunNote,
    "fault": FaultNote,
    "role": RoleNote,
    "leader": LeaderNote,
    "loss": LossNote,
    "metric": MetricNote,
    "credit": CreditNote,
    "phase": PhaseNote,
}
"""Events of type ``info`` that are not operations; their content is in their reply."""
