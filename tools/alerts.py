"""What to alert on: docs/OPERATIONS.md and deploy/prometheus/ddq.rules.yaml are made from here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that needs a person.

    Attributes:
        when: PromQL.
        means: what has happened.
        do: what to do.
    """

    name: str
    when: str
    means: str
    do: str


def _errors(*reasons: str) -> str:
    return f'increase(ddq_store_errors_total{{reason=~"{"|".join(reasons)}"}}[5m]) > 0'


ALERTS = (
    Alert(
        "no scheduler", "absent(ddq_scheduler_shards)",
        "nothing becomes due", "start `ddq scheduler`",
    ),
    Alert(
        "tasks become ready late",
        "histogram_quantile(0.999, sum by (le) (rate(ddq_scheduler_lateness_seconds_bucket[5m])))"
        " > 0.25",
        "schedulers cannot keep up, or the store is slow; after a failover or a pause for a moment",
        "look at `ddq_store_send_seconds` and the schedulers' processor time; give busy topics "
        "more shards",
    ),
    Alert(
        "rollback", _errors("ROLLBACK_DETECTED"),
        "the store lost writes that it had acknowledged at QUORUM or ALL",
        "find out how before you reset; until then writes are refused",
    ),
    Alert(
        "clocks", _errors("CLOCK_UNSAFE"),
        "a clock of the store or of a process is off, or the store's ran backwards",
        "set the clocks right; see Clocks",
    ),
    Alert(
        "store away", "ddq_serving == 0",
        "a server does not reach its store, and answers UNAVAILABLE",
        "look at the store and the network to it",
    ),
    Alert(
        "outcomes unknown",
        'rate(ddq_store_errors_total{reason="WRITE_OUTCOME_UNKNOWN"}[5m]) > 1',
        "answers of the store are lost, or replicas do not confirm in time",
        "look at the store, its replicas and the network",
    ),
    Alert(
        "barriers break", "increase(ddq_barrier_breaks_total[10m]) > 5",
        "the master, a replica or a server falls silent again and again; each time QUORUM waits "
        "for all replicas until it has settled",
        "look for pauses of the hosts, slow disks, and lost packets between data nodes",
    ),
    Alert(
        "too few replicas", _errors("NOT_ENOUGH_REPLICAS"),
        "the store's `min-replicas-to-write` is not met: it takes no writes",
        "bring the replicas back",
    ),
    Alert(
        "store full", _errors("STORE_FULL"),
        "the store is at its `maxmemory` and takes no new tasks",
        "let tasks end, purge, or raise `maxmemory`",
    ),
    Alert(
        "overload",
        _errors("OVERLOADED") + " or increase(ddq_calls_refused_total[5m]) > 0",
        "more calls arrive than the servers or the store can handle; `ddq_calls_refused_total` "
        "says which bound of the server was reached, `store_queue_max_count` and "
        "`store_queue_max_bytes` are those of the store",
        "fewer or larger batches; for the servers more processes, for the store a faster disk, or "
        "more shards on more nodes",
    ),
    Alert(
        "schedulers depose each other", "rate(ddq_scheduler_deposed_total[10m]) > 0.1",
        "schedulers stall for longer than `leader_lease_ms`, or come and go",
        "give them processor time; raise `leader_lease_ms`",
    ),
    Alert(
        "too few workers", "ddq_oldest_ready_age_seconds > 60",
        "tasks are ready, and no worker takes them", "add workers; `ddq stats` says to which topic",
    ),
    Alert(
        "malformed entries",
        "max(delta(ddq_malformed_entries[1h])) > 0 or " + _errors("STORE_MALFORMED"),
        "another program wrote into ddq's keys, or a file was damaged", "see Malformed entries",
    ),
    Alert(
        "processes end", "increase(ddq_process_ends_total[10m]) > 2",
        "processes of --processes ended by themselves, and were replaced",
        "the log says how each ended: out of memory, or a bug to report",
    ),
    Alert(
        "bugs", 'increase(ddq_rpcs_total{code="INTERNAL"}[5m]) > 0',
        "an RPC failed in a way that ddq does not know", "the server's log says where: report it",
    ),
)  # fmt: skip
"""Worst first."""
