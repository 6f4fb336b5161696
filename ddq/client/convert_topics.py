"""Topics, their settings and statistics as messages, and back; see convert.py."""

from __future__ import annotations

from google.protobuf.message import Message

from ddq.client import convert, topic_values
from ddq.task import Durability
from ddq.v1 import delay_queue_admin_service_pb2 as admin_pb
from ddq.v1 import task_pb2, topic_pb2


def topic_settings(settings: topic_values.TopicSettings | None) -> topic_pb2.TopicSettings:
    """Those settings that are not None."""
    message = topic_pb2.TopicSettings()
    if settings is None:
        return message
    convert.put_retry_policy(message.default_retry_policy, settings.default_retry_policy)
    convert.put_duration(message.default_lease_duration, settings.default_lease_duration)
    convert.put_duration(message.tombstone_retention, settings.tombstone_retention)
    convert.put_duration(message.max_run, settings.max_run)
    if settings.max_bytes is not None:
        message.max_bytes = convert.uint("settings.max_bytes", settings.max_bytes)
    if settings.max_tasks is not None:
        message.max_tasks = convert.uint("settings.max_tasks", settings.max_tasks)
    if settings.durability is not None:
        message.durability = task_pb2.Durability.ValueType(settings.durability)
    if settings.journal is not None:
        message.journal = settings.journal
    if settings.journal_max_entries is not None:
        message.journal_max_entries = convert.uint(
            "settings.journal_max_entries", settings.journal_max_entries
        )
    return message


def set_paths(message: Message, prefix: str = "") -> list[str]:
    """The paths of a field mask for all that is set in ``message``, for retry policies field by
    field: a mask that names the whole policy would put its unset fields back to the default."""
    paths = []
    for field, value in message.ListFields():
        path = prefix + field.name
        if isinstance(value, task_pb2.RetryPolicy):
            paths += set_paths(value, f"{path}.")
        else:
            paths.append(path)
    return paths


def topic(message: topic_pb2.Topic) -> topic_values.Topic:
    """A topic and its settings, defaults filled in by the server."""
    settings = message.settings
    return topic_values.Topic(
        name=message.name,
        uid=message.uid,
        shards=message.shards,
        settings=topic_values.TopicSettings(
            default_retry_policy=convert.retry_policy(settings.default_retry_policy),
            default_lease_duration=convert.span(settings, "default_lease_duration"),
            max_tasks=settings.max_tasks if settings.HasField("max_tasks") else None,
            tombstone_retention=convert.span(settings, "tombstone_retention"),
            durability=convert.enum(Durability, settings.durability)
            if settings.durability
            else None,
            journal=settings.journal if settings.HasField("journal") else None,
            journal_max_entries=(
                settings.journal_max_entries if settings.HasField("journal_max_entries") else None
            ),
            max_run=convert.span(settings, "max_run"),
            max_bytes=settings.max_bytes if settings.HasField("max_bytes") else None,
        ),
        paused=message.paused,
        deleting=message.state == topic_pb2.TOPIC_STATE_DELETING,
        revision=message.revision,
        create_time=convert.time(message, "create_time"),
    )


def counts(message: admin_pb.TaskCounts) -> topic_values.TaskCounts:
    """The figures of a topic or a shard."""
    return topic_values.TaskCounts(
        enqueued=message.enqueued,
        scheduled=message.scheduled,
        ready=message.ready,
        leased=message.leased,
        dead=message.dead,
        succeeded=message.succeeded,
        cancelled=message.cancelled,
        purged=message.purged,
        set_aside=message.set_aside,
    )


def topic_stats(message: admin_pb.GetTopicStatsResponse) -> topic_values.TopicStats:
    """A topic in figures."""
    return topic_values.TopicStats(
        counts=counts(message.counts),
        shards=tuple(
            topic_values.ShardStats(
                shard=shard.shard,
                counts=counts(shard.counts),
                tombstones=shard.tombstones,
                stray_entries=shard.stray_entries,
                next_due_time=convert.time(shard, "next_due_time"),
                next_lease_expire_time=convert.time(shard, "next_lease_expire_time"),
                oldest_ready_age=convert.span(shard, "oldest_ready_age"),
                leader_epoch=shard.leader_epoch,
                receipt=convert.receipt(shard.receipt),
            )
            for shard in message.shards
        ),
    )
