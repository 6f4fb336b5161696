"""The client library: Client for asyncio, SyncClient for all else.

Errors are those of ddq.errors. Of a mutation OutcomeUnknown means that it may or may not have
taken effect; after any other error it certainly has not.
"""

from ddq.client.access import Access, AccessError
from ddq.client.aio import Client
from ddq.client.process import WrongProcessError
from ddq.client.repeat import Backoff, SystemTiming, Timing
from ddq.client.streaming import LeaseStream, StreamCall, StreamSource
from ddq.client.sync import SyncClient
from ddq.client.topic_values import (
    Redriven,
    ShardStats,
    TaskCounts,
    Topic,
    TopicSettings,
    TopicStats,
)
from ddq.client.values import (
    Acked,
    Cancelled,
    DeadDeleted,
    Enqueued,
    Extended,
    ItemResult,
    Lease,
    LeaseRef,
    Nacked,
    NewTask,
    RanAgain,
    Receipt,
    Released,
    Rescheduled,
    RetryPolicy,
    Snoozed,
    Task,
)
from ddq.config import UNLIMITED_ATTEMPTS
from ddq.task import Durability, OnConflict, TaskState

__all__ = [
    "UNLIMITED_ATTEMPTS",
    "Access",
    "AccessError",
    "Acked",
    "Backoff",
    "Cancelled",
    "Client",
    "DeadDeleted",
    "Durability",
    "Enqueued",
    "Extended",
    "ItemResult",
    "Lease",
    "LeaseRef",
    "LeaseStream",
    "Nacked",
    "NewTask",
    "OnConflict",
    "RanAgain",
    "Receipt",
    "Redriven",
    "Released",
    "Rescheduled",
    "RetryPolicy",
    "ShardStats",
    "Snoozed",
    "StreamCall",
    "StreamSource",
    "SyncClient",
    "SystemTiming",
    "Task",
    "TaskCounts",
    "TaskState",
    "Timing",
    "Topic",
    "TopicSettings",
    "TopicStats",
    "WrongProcessError",
]
