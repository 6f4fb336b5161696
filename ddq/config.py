"""Every limit, default and setting of ddq, units last.

The tables in docs/API.md (limits) and docs/OPERATIONS.md (settings) are generated from here. This
module describes the settings; ddq/configuration.py reads them from flags, environment and file. It
stays free of other packages, because the client library imports it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from typing import Any

MS_PER_SECOND = 1_000
SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
YEAR_MS = 365 * DAY_MS
KIB = 1_024
MIB = 1_024 * KIB


def described(
    default: Any,
    doc: str,
    *,
    least: int | None = None,
    most: int | None = None,
    choices: tuple[str, ...] = (),
    pattern: str = "",
    secret: bool = False,
) -> Any:
    """A dataclass field with its sentence for the generated tables, and the values it may have.

    Args:
        least, most: bounds of a number, both included.
        choices: the only texts that are allowed; empty: any.
        pattern: a regular expression that a text has to match; empty: any text.
        secret: the value is never shown.
    """
    return field(
        default=default,
        metadata={
            "doc": doc,
            "least": least,
            "most": most,
            "choices": choices,
            "pattern": pattern,
            "secret": secret,
        },
    )


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
    topic_max_bytes: int = described(
        2**50, "greatest bound on the bytes of payloads and headers of a topic"
    )
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
DEFAULT_ADDRESS = "127.0.0.1:50051"
LOG_FORMATS = ("console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
PROCESSES_MAX_COUNT = 256
TARGET = r"(?:dns|ipv4|ipv6|unix|unix-abstract|xds):.+|.+:(?P<port>\d{1,5})"
"""HOST:PORT, or a target of gRPC with a scheme."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How one process runs. Each is a flag of ``ddq``, an environment variable and a key of a file.

    ``store_timeout_ms`` becomes ``--store-timeout-ms`` and ``DDQ_STORE_TIMEOUT_MS``.
    """

    store_wait_ms: int = described(
        60 * SECOND_MS,
        "how long a process waits at its start for a store that does not answer yet, or for an "
        "embedded one to load its data",
        least=1,
        most=1 * DAY_MS,
    )
    store_timeout_ms: int = described(
        5 * SECOND_MS,
        "longest wait for one answer of the store; then the outcome is unknown",
        least=1,
        most=1 * HOUR_MS,
    )
    store_queue_max_count: int = described(
        20_000,
        "requests that may wait for the store; one more is OVERLOADED",
        least=1,
        most=10_000_000,
    )
    store_queue_max_bytes: int = described(
        128 * MIB,
        "bytes of the requests that wait for one connection to the store, and of the replies that "
        "wait for its replicas; one more request is OVERLOADED",
        least=1,
        most=64 * 1_024 * MIB,
    )
    calls_waiting_max_count: int = described(
        5_000,
        "calls that may wait for a server to begin with them; while there are more, new ones are "
        "OVERLOADED, those that end or prolong attempts from half as many again; beyond twice as "
        "many gRPC ends them with CANCELLED",
        least=1,
        most=1_000_000,
    )
    calls_waiting_max_ms: int = described(
        500,
        "how long a call may wait for a server to begin with it; while one waits for longer, new "
        "ones are OVERLOADED, likewise",
        least=1,
        most=1 * HOUR_MS,
    )
    calls_running_max_count: int = described(
        10_000,
        "calls that a server has begun with, waiting ones included; one more is OVERLOADED",
        least=1,
        most=1_000_000,
    )
    calls_running_max_bytes: int = described(
        256 * MIB,
        "bytes of the requests of those calls, and of replies on their way; one more call is "
        "OVERLOADED",
        least=1,
        most=64 * 1_024 * MIB,
    )
    transfer_timeout_ms: int = described(
        30 * SECOND_MS,
        "how long a client may take to send a request, or to take a reply; then the call is ended, "
        "or the connection closed",
        least=1,
        most=1 * DAY_MS,
    )
    connections_max_count: int = described(
        2_000, "connections of a server; it closes one more at once", least=1, most=1_000_000
    )
    connection_calls_max_count: int = described(
        1_000, "calls under way of one connection; one more is OVERLOADED", least=1, most=1_000_000
    )
    connection_idle_ms: int = described(
        5 * MINUTE_MS,
        "how long a connection without calls is kept; then its client connects again when it has "
        "a call; 0: for ever",
        least=0,
        most=1 * DAY_MS,
    )
    durability: str = described(
        "quorum",
        "what replies of a topic wait for if it does not say: fast, quorum or all data nodes; "
        "kept with the topic when it is made",
        choices=DURABILITIES,
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
        least=0,
        most=1 * HOUR_MS,
    )
    barrier_keep_ms: int = described(
        60 * SECOND_MS,
        "how long heartbeats keep a QUORUM chain unbroken after the last request",
        least=0,
        most=1 * DAY_MS,
    )
    store_checks: bool = described(
        True, "refuse a store whose settings break the durability; off: only warn"
    )
    max_clock_skew_ms: int = described(
        1 * SECOND_MS,
        "difference between the store's clock and a server's that is accepted",
        least=1,
        most=1 * DAY_MS,
    )
    max_request_age_ms: int = described(
        10 * MINUTE_MS,
        "how far ahead not_after may lie; no tombstone is kept for less",
        least=1,
        most=30 * DAY_MS,
    )
    default_request_timeout_ms: int = described(
        75 * SECOND_MS,
        "deadline of a call that brings none; longer than a Retrieve may wait",
        least=1,
        most=1 * DAY_MS,
    )
    leader_lease_ms: int = described(
        10 * SECOND_MS,
        "how long a scheduler that went silent keeps others from a shard",
        least=1,
        most=1 * HOUR_MS,
    )
    promote_batch_count: int = described(
        256, "tasks moved by one promotion or reaping script", least=1, most=10_000
    )
    collect_batch_count: int = described(
        200, "tombstones, and request records, forgotten by one script", least=1, most=10_000
    )
    purge_batch_count: int = described(
        500, "tasks looked at by one purge script", least=1, most=10_000
    )
    sweep_interval_ms: int = described(
        30 * SECOND_MS,
        "safety sweep over all shards, should every wake-up hint have been lost",
        least=1,
        most=1 * DAY_MS,
    )
    operator_steps_max_count: int = described(
        200,
        "scripts that one purge, deletion or redrive runs before it answers done = false",
        least=1,
        most=1_000_000,
    )
    drain_ms: int = described(
        5 * SECOND_MS,
        "how long a stopping server lets calls that run finish; those that only wait for a task "
        "are answered at once",
        least=1,
        most=1 * HOUR_MS,
    )
    metrics_topics_max_count: int = described(
        50,
        "topics that have metrics of their own; the others are summed as other",
        least=0,
        most=10_000,
    )
    traces: bool = described(
        False,
        "send OpenTelemetry traces by OTLP; OTEL_EXPORTER_OTLP_ENDPOINT and so on say where to, "
        "and `ddq[otel]` has to be installed",
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
    access_file: str = described(
        "",
        "file with the tokens and certificates that are known and what each may do, as ddq token "
        "writes it; read again when it changes; empty: every client may do everything",
    )
    insecure: bool = described(
        False,
        "listen beyond this machine also without TLS or tokens: where something in front of it "
        "protects the port",
    )
    metrics_insecure: bool = described(
        False,
        "show metrics in plain HTTP and without a token, wherever they are; off: with the "
        "certificate and the access file of the gRPC port, if it has them",
    )
    admin_api: bool = described(
        True, "serve the DelayQueueAdminService: topics, dead tasks and statistics"
    )
    reflection: bool = described(True, "serve gRPC reflection, by which clients find the API")
    health_api: bool = described(True, "serve the gRPC health service, which needs no token")


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What else a command reads from flags, environment and file. None: the command decides.

    ``node_data`` is ``DDQ_NODE_DATA`` and the flag ``--data`` of ``ddq node``; elsewhere the flag
    has the name of the setting.
    """

    address: str = described(
        DEFAULT_ADDRESS, "server that the other commands talk to", pattern=TARGET
    )
    listen: str = described(
        DEFAULT_ADDRESS, "where a server listens; port 0: any free", pattern=TARGET
    )
    tls: bool = described(
        False, "use TLS towards the server, and trust the certificate authorities of the system"
    )
    tls_ca: str | None = described(None, "file with CA certificates to trust in their place, PEM")
    tls_cert: str | None = described(None, "file with the certificate of a client, PEM")
    tls_key: str | None = described(None, "file with its private key, PEM")
    token_file: str | None = described(None, "file with the token that a client sends")
    plain_token: bool = described(False, "send the token without TLS to other machines too")
    store: str | None = described(None, "URL of the store", secret=True)
    data: str = described("ddq-data", "folder of `ddq dev`, where it keeps the tasks")
    scheduler: bool | None = described(
        None, "whether a server is a scheduler too; unset: on an embedded store only"
    )
    processes: int = described(
        1, "processes that share the work as one server", least=1, most=PROCESSES_MAX_COUNT
    )
    metrics_listen: str | None = described(
        None,
        "where Prometheus may ask for metrics, and a supervisor for /livez and /readyz, over HTTP",
        pattern=TARGET,
    )
    log_format: str = described(
        "console", "lines of the log for people, or one JSON document each", choices=LOG_FORMATS
    )
    log_level: str | None = described(None, "what goes to stderr", choices=LOG_LEVELS)
    node_data: str | None = described(None, "folder of a data node, for its data and node.conf")
    node_announce: str | None = described(
        None, "IP:PORT by which the Sentinels know this data node"
    )
    node_sentinels: str | None = described(None, "all Sentinels, HOST:PORT,HOST:PORT,…")
    node_master_name: str = described("mymaster", "the master's name at the Sentinels")
    node_config: str | None = described(None, "file with settings of the data node's own server")
    node_server: str | None = described(None, "program of the data node's server")
    node_bootstrap: bool = described(
        False, "whether this data node may start as the master of a new cluster"
    )
    node_sentinel_username: str | None = described(None, "user name for the Sentinels")
    node_sentinel_password: str | None = described(None, "password for the Sentinels", secret=True)
    node_sentinel_tls: bool = described(False, "whether the Sentinels speak TLS")
    node_sentinel_ca: str | None = described(
        None, "file with the certificate authority of the Sentinels"
    )


ENV_PREFIX = "DDQ_"


class Origin(StrEnum):
    """Where a value comes from, the strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


class ConfigurationError(ValueError):
    """The configuration cannot be used.

    Attributes:
        problems: one line for each setting that is wrong, with the remedy.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Configuration:
    """Every setting, and where each comes from.

    Attributes:
        settings: those that every process has.
        process: those of some commands; None where nothing is given.
    """

    settings: Settings
    process: ProcessSettings
    origins: Mapping[str, Origin]

    def value(self, name: str) -> Any:
        """The value of a setting by its name."""
        owner = self.settings if name in setting_names(Settings) else self.process
        return getattr(owner, name)


@functools.cache
def setting_specs() -> Mapping[str, Field[Any]]:
    """The description of each setting, by its name."""
    return {spec.name: spec for kind in (Settings, ProcessSettings) for spec in fields(kind)}


@functools.cache
def setting_names(kind: type[Settings | ProcessSettings]) -> frozenset[str]:
    return frozenset(spec.name for spec in fields(kind))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{ENV_PREFIX}{name.upper()}"


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
