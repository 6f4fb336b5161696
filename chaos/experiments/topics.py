"""Creates the topics of a run with the settings that its history names."""

from __future__ import annotations

from datetime import timedelta

from chaos.faults import Mode
from chaos.history.notes import TopicSettings
from chaos.history.operations import (
    RetrySettings,
)
from ddq.client import Client, Durability, RetryPolicy
from ddq.client import TopicSettings as ClientSettings

RETRY = RetrySettings(6, 100, 1_000, 2.0, 0.1)
"""Of every topic of a recorded run; multiplier and jitter are the server's defaults."""


def topic_settings(mode: Mode, *, shards: int = 1, journal: bool = False) -> TopicSettings:
    """The settings of a topic of a recorded run."""
    return TopicSettings(shards, RETRY, durability=mode.value, journal=journal)


async def create_topic(
    client: Client,
    name: str,
    mode: Mode,
    *,
    shards: int = 1,
    retry: RetrySettings | None = None,
    journal: bool = False,
    timeout_s: float | None = None,
) -> None:
    """Creates a topic; settings that are not given are the server's.

    Raises:
        DdqError: it could not be created.
    """
    policy = (
        None
        if retry is None
        else RetryPolicy(
            retry.max_attempts,
            timedelta(milliseconds=retry.initial_backoff_ms or 0),
            timedelta(milliseconds=retry.max_backoff_ms or 0),
        )
    )
    settings = ClientSettings(
        default_retry_policy=policy,
        durability=Durability[mode.value.upper()],
        journal=journal or None,
    )
    await client.create_topic(name, shards=shards, settings=settings, timeout_s=timeout_s)


__all__ = ["RETRY", "create_topic", "topic_settings"]
