"""Every limit, default and setting of ddq, units last.

The tables in docs/API.md (limits) and docs/OPERATIONS.md (settings) are generated from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

MS_PER_SECOND = 1_000
SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
YEAR_MS = 365 * DAY_MS
KIB = 1_024
MIB = 1_024 * KIB


def described(default: Any, doc: str) -> Any:
    """A dataclass field with its sentence for the generated tables."""
    return field(default=default, metadata={"doc": doc})


UNLIMITED_ATTEMPTS = 2**32 - 1
"""A ``max_attempts`` without limit.

The greatest number that the field and the record hold, so that the comparison "attempt >=
max_attempts" of every version is right for it: 0.1 and 0.2 serve such a task as this one does. A
server of 0.1 or 0.2 refuses to take one, instead of applying another limit.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for. Part of the API: the same on every server."""

    topic_name_max_chars: int = described(128, "characters of a topic's name: A-Z a-z 0-9 . _ -")
    topic_uid_bytes: int = described(16, "bytes of a topic's uid")
    task_id_max_bytes: int = described(256, "bytes of a task's id, UTF-8")
    request_id_max_bytes: int = described(64, "bytes of a request_id, UTF-8")
    payload_max_bytes: int = described(1 * MIB, "bytes of a payload")
    headers_max_count: int = described(64, "headers of a task")
    header_key_max_bytes: int = described(128, "bytes of a header's key")
    headers_max_bytes: int = described(16 * KIB, "bytes of all keys and values of a task's headers")
    batch_max_items: int = described(1_000, "items of a batch")
    batch_max_bytes: int = described(3 * MIB, "bytes of payloads and headers in a batch")
    error_max_bytes: int = described(2_048, "bytes kept of a nack's error")
    delay_max_ms: int = described(10 * YEAR_MS, "how far ahead a task may be due")
    debounce_limit_min_ms: int = described(1, "shortest limit of a debounce")
    retrieve_topics_max_count: int = described(16, "topics of one Retrieve")
    retrieve_max_tasks: int = described(1_000, "tasks of one Retrieve")
    retrieve_max_bytes: int = described(3 * MIB, "bytes of payloads and headers of one Retrieve")
    retrieve_wait_max_ms: int = described(60 * SECOND_MS, "how long one Retrieve may wait")
    stream_credit_max_tasks: int = described(10_000, "open credit of a StreamRetrieve in tasks")
    stream_credit_max_bytes: int = described(
        64 * MIB, "open credit of a StreamRetrieve in bytes of payloads and headers"
    )
    lease_min_ms: int = described(100, "shortest lease")
    lease_max_ms: int = described(12 * HOUR_MS, "longest lease")
    lease_token_bytes: int = described(16, "bytes of a lease token")
    shards_max_count: int = described(64, "shards of a topic")
    page_max_count: int = described(1_000, "entries of one page")
    page_token_max_bytes: int = described(1 * KIB, "bytes of a page token")
    max_attempts_max_count: int = described(10_000, "attempts of one run, unless unlimited")
    snooze_min_ms: int = described(1, "shortest delay of a snooze")
    snoozes_max_count: int = described(10_000, "snoozes of one run")
    initial_backoff_max_ms: int = described(1 * DAY_MS, "first backoff")
    max_backoff_max_ms: int = described(30 * DAY_MS, "longest backoff")
    multiplier_max: float = described(100.0, "factor from one backoff to the next; at least 1")
    tombstone_retention_max_ms: int = described(
        30 * DAY_MS, "how long a finished id is remembered, at most"
    )
    max_run_max_ms: int = described(30 * DAY_MS, "how long a topic lets a handler run, at most")
    journal_entries_min_count: int = described(1_000, "fewest journal entries kept a shard")
    journal_entries_max_count: int = described(100_000_000, "most journal entries kept a shard")
    max_tasks_max_count: int = described(10**12, "greatest bound on the tasks of a topic")
    request_max_bytes: int = described(
        4 * MIB,
        "bytes of one gRPC message; a larger one ends in the transport's RESOURCE_EXHAUSTED",
    )


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Defaults:
    """What an unset field means."""

    max_attempts: int = described(5, "attempts of one run")
    initial_backoff_ms: int = described(1 * SECOND_MS, "first backoff")
    max_backoff_ms: int = described(10 * MINUTE_MS, "longest backoff")
    multiplier: float = described(2.0, "factor from one backoff to the next")
    jitter: float = described(0.1, "random part on top of a backoff, as a share of it")
    lease_ms: int = described(30 * SECOND_MS, "lease")
    tombstone_retention_ms: int = described(1 * HOUR_MS, "how long a finished id is remembered")
    journal_max_entries: int = described(1_000_000, "journal entries kept a shard")
    page_count: int = described(100, "entries of one page")


DEFAULTS = Defaults()


DURABILITIES = ("fast", "quorum", "all")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one process runs. Each is a flag of ``ddq`` and an environment variable.

    ``store_timeout_ms`` becomes ``--store-timeout-ms`` and ``DDQ_STORE_TIMEOUT_MS``.
    """

    store_wait_ms: int = described(
        60 * SECOND_MS,
        "how long a process waits at its start for a store that does not answer yet, or for an "
        "embedded one to load its data",
    )
    store_timeout_ms: int = described(
        5 * SECOND_MS, "longest wait for one answer of the store; then the outcome is unknown"
    )
    store_queue_max_count: int = described(
        20_000, "requests that may wait for the store; one more is OVERLOADED"
    )
    store_queue_max_bytes: int = described(
        128 * MIB,
        "bytes of the requests that wait for one connection to the store, and of the replies that "
        "wait for its replicas; one more request is OVERLOADED",
    )
    calls_waiting_max_count: int = described(
        5_000,
        "calls that may wait for a server to begin with them; one more has no effect, and gRPC "
        "ends it with CANCELLED",
    )
    durability: str = described(
        "quorum",
        "what replies of a topic wait for if it does not say: fast, quorum or all data nodes; "
        "kept with the topic when it is made",
    )
    fsync: bool = described(
        False, "such a topic's replies also wait until those nodes have the write on disk"
    )
    data_nodes: str = described(
        "",
        "the store's data nodes, master and replicas: HOST:PORT,HOST:PORT,… as the store names "
        "them, or in a Cluster how many each shard has; empty: one, without replicas",
    )
    store_address_map: str = described(
        "",
        "where addresses of the store are reached from here: HOST:PORT=HOST:PORT,… as the store "
        "names them, or HOST=HOST to keep the ports; for Sentinel and Cluster",
    )
    down_after_ms: int = described(
        0,
        "silence after which the store's own failover replaces a master; 0: ask Sentinel or "
        "Cluster, and 5 s where there is neither",
    )
    barrier_keep_ms: int = described(
        60 * SECOND_MS, "how long heartbeats keep a QUORUM chain unbroken after the last request"
    )
    store_checks: bool = described(
        True, "refuse a store whose settings break the durability; off: only warn"
    )
    max_clock_skew_ms: int = described(
        1 * SECOND_MS, "difference between the store's clock and a server's that is accepted"
    )
    max_request_age_ms: int = described(
        10 * MINUTE_MS, "how far ahead not_after may lie; no tombstone is kept for less"
    )
    default_request_timeout_ms: int = described(
        75 * SECOND_MS, "deadline of a call that brings none; longer than a Retrieve may wait"
    )
    leader_lease_ms: int = described(
        10 * SECOND_MS, "how long a scheduler that went silent keeps others from a shard"
    )
    promote_batch_count: int = described(256, "tasks moved by one promotion or reaping script")
    collect_batch_count: int = described(
        200, "tombstones, and request records, forgotten by one script"
    )
    purge_batch_count: int = described(500, "tasks looked at by one purge script")
    sweep_interval_ms: int = described(
        30 * SECOND_MS, "safety sweep over all shards, should every wake-up hint have been lost"
    )
    operator_steps_max_count: int = described(
        200, "scripts that one purge, deletion or redrive runs before it answers done = false"
    )
    drain_ms: int = described(
        5 * SECOND_MS,
        "how long a stopping server lets calls that run finish; those that only wait for a task "
        "are answered at once",
    )
    auto_create_topics: bool = described(True, "the first enqueue to a topic creates it")
    tls_server_cert: str = described(
        "",
        "file with the server's certificate and its chain, PEM; with it the gRPC port has TLS; the "
        "file is read again when it changes",
    )
    tls_server_key: str = described(
        "", "file with the certificate's private key, PEM; empty: it is in the certificate's file"
    )
    tls_client_ca: str = described(
        "",
        "file with the CA certificates, PEM, that have to have signed the certificate of each "
        "client; empty: clients need none",
    )


def check_settings(settings: Settings) -> None:
    """Raises ValueError with one line that names the setting and the remedy."""
    for spec in fields(settings):
        value = getattr(settings, spec.name)
        if isinstance(value, bool | str):
            continue
        least = 0 if spec.name in {"down_after_ms", "barrier_keep_ms"} else 1
        if value < least:
            raise ValueError(f"{spec.name} is {value}; it has to be at least {least}")
    if settings.durability not in DURABILITIES:
        raise ValueError(
            f"durability is {settings.durability!r}; give one of {', '.join(DURABILITIES)}"
        )
    if settings.max_request_age_ms + 2 * settings.max_clock_skew_ms > (
        LIMITS.tombstone_retention_max_ms
    ):
        raise ValueError(
            "max_request_age_ms plus twice max_clock_skew_ms exceeds the longest tombstone "
            f"retention of {LIMITS.tombstone_retention_max_ms} ms; lower one of them"
        )


def retention_min_ms(settings: Settings) -> int:
    """The shortest tombstone retention with which a late repeat still finds its answer, in ms.

    A request may take effect until its not_after, by a clock that is off by the skew either way.
    """
    return settings.max_request_age_ms + 2 * settings.max_clock_skew_ms


class StartupError(Exception):
    """The process cannot start; one line says what is wrong and what to do."""


def split_address(listen: str) -> tuple[str, int]:
    """HOST and PORT; StartupError if it is not that."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise StartupError(f"cannot listen on {listen!r}; give HOST:PORT")
    return host, int(port)
