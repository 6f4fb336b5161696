"""Which scope each RPC needs: the one table that decides it, and fails where an RPC has no row.

The table of docs/API.md is generated from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ddq.access.scopes import Action


class Topics(Enum):
    """Which topics a request is about."""

    TOPIC = "topic"
    NAME = "name"
    TOPICS = "topics"
    SUBSCRIBED = "subscribe.topics"
    EVERY = "every topic"


@dataclass(frozen=True, slots=True)
class Rule:
    """What the caller of an RPC needs.

    Attributes:
        action: with the topics of the request; None: no scope.
        topics: where the request names them.
        public: needs no token either.
        waits: the call may last for long, and ends when its caller loses what it needs.
    """

    action: Action | None = None
    topics: Topics = Topics.EVERY
    public: bool = False
    waits: bool = False

    def named(self, request: Any) -> Sequence[str] | None:
        """The topics that a request names; None: it is about every topic."""
        where = self.topics
        if where is Topics.TOPIC:
            return (request.topic,)
        if where is Topics.NAME:
            return (request.name,)
        if where is Topics.TOPICS:
            return request.topics  # type: ignore[no-any-return]
        if where is Topics.SUBSCRIBED:
            # A later message only adds credit, and one with another subscription is refused.
            return request.subscribe.topics  # type: ignore[no-any-return]
        return None


_PRODUCE = Rule(Action.PRODUCE, Topics.TOPIC)
_CONSUME = Rule(Action.CONSUME, Topics.TOPIC)
_READ = Rule(Action.READ, Topics.TOPIC)
_READ_TOPIC = Rule(Action.READ, Topics.NAME)
_READ_ALL = Rule(Action.READ, Topics.EVERY)
_ADMIN = Rule(Action.ADMIN, Topics.TOPIC)
_ADMIN_TOPIC = Rule(Action.ADMIN, Topics.NAME)

RULES: Mapping[str, Rule] = {
    "ddq.v1.DelayQueueService/Enqueue": _PRODUCE,
    "ddq.v1.DelayQueueService/BatchEnqueue": _PRODUCE,
    "ddq.v1.DelayQueueService/Retrieve": Rule(Action.CONSUME, Topics.TOPICS, waits=True),
    "ddq.v1.DelayQueueService/StreamRetrieve": Rule(Action.CONSUME, Topics.SUBSCRIBED, waits=True),
    "ddq.v1.DelayQueueService/Ack": _CONSUME,
    "ddq.v1.DelayQueueService/BatchAck": _CONSUME,
    "ddq.v1.DelayQueueService/RunAgain": _CONSUME,
    "ddq.v1.DelayQueueService/Nack": _CONSUME,
    "ddq.v1.DelayQueueService/BatchNack": _CONSUME,
    "ddq.v1.DelayQueueService/Extend": _CONSUME,
    "ddq.v1.DelayQueueService/BatchExtend": _CONSUME,
    "ddq.v1.DelayQueueService/Release": _CONSUME,
    "ddq.v1.DelayQueueService/BatchRelease": _CONSUME,
    "ddq.v1.DelayQueueService/Snooze": _CONSUME,
    "ddq.v1.DelayQueueService/BatchSnooze": _CONSUME,
    "ddq.v1.DelayQueueService/Cancel": _PRODUCE,
    "ddq.v1.DelayQueueService/BatchCancel": _PRODUCE,
    "ddq.v1.DelayQueueService/Reschedule": _PRODUCE,
    "ddq.v1.DelayQueueService/GetTask": _READ,
    "ddq.v1.DelayQueueService/ListTasks": _READ,
    "ddq.v1.DelayQueueAdminService/CreateTopic": _ADMIN_TOPIC,
    "ddq.v1.DelayQueueAdminService/GetTopic": _READ_TOPIC,
    "ddq.v1.DelayQueueAdminService/ListTopics": _READ_ALL,
    "ddq.v1.DelayQueueAdminService/UpdateTopic": _ADMIN_TOPIC,
    "ddq.v1.DelayQueueAdminService/DeleteTopic": _ADMIN_TOPIC,
    "ddq.v1.DelayQueueAdminService/PauseTopic": _ADMIN_TOPIC,
    "ddq.v1.DelayQueueAdminService/ResumeTopic": _ADMIN_TOPIC,
    "ddq.v1.DelayQueueAdminService/PurgeTopic": _ADMIN_TOPIC,
    "ddq.v1.DelayQueueAdminService/ListDeadTasks": _READ,
    "ddq.v1.DelayQueueAdminService/RedriveDeadTasks": _ADMIN,
    "ddq.v1.DelayQueueAdminService/DeleteDeadTask": _ADMIN,
    "ddq.v1.DelayQueueAdminService/GetTopicStats": _READ,
    # Probes of orchestrators and load balancers have no token, and learn only whether it serves.
    "grpc.health.v1.Health/Check": Rule(public=True),
    "grpc.health.v1.Health/Watch": Rule(public=True),
    "grpc.health.v1.Health/List": Rule(public=True),
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(waits=True),
}

METRICS = _READ_ALL
"""What the metrics port needs."""


def rule_of(method: str) -> Rule:
    """The rule of an RPC, SERVICE/NAME.

    Raises:
        LookupError: it has none, so that no server starts with it.
    """
    try:
        return RULES[method]
    except KeyError:
        raise LookupError(
            f"{method} has no rule in ddq/access/rules.py: say there which scope it needs"
        ) from None
