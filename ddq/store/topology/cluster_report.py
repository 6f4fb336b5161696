"""The report of one node about a Cluster: its slots, their masters and the epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis.exceptions

from ddq.store.connection import Connection, NotSentError, ReplyLostError
from ddq.store.topology.base import info_fields
from ddq.store.topology.node import Node
from ddq.store.topology.refresh import ANSWER_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Range:
    """The slots from ``first`` to ``last``, their master and its replicas."""

    first: int
    last: int
    master: Node
    replicas: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """The report of one node about the Cluster.

    Attributes:
        ok: whether it takes the Cluster to be well; one in a minority does not.
        epoch: the newest that it knows.
        ranges: of slots.
        mastery_epochs: of the failover, or migration, by which each master got what it has.
    """

    ok: bool
    epoch: int
    ranges: tuple[Range, ...]
    mastery_epochs: dict[Node, int]

    @property
    def slots_count(self) -> int:
        """How many slots have a master."""
        return sum(found.last - found.first + 1 for found in self.ranges)

    def __str__(self) -> str:
        state = "ok" if self.ok else "fail"
        return f"cluster_state {state}, {self.slots_count} slots served, epoch {self.epoch}"


class _NoReportError(Exception):
    """A node does not say what it is asked for."""


async def ask_node(connection: Connection, asked: Node) -> ClusterReport:
    """The report of one node about the Cluster.

    Raises:
        Exception: it does not answer, or is of no Cluster.
    """
    try:
        replies = await connection.send(
            [("CLUSTER", "SLOTS"), ("CLUSTER", "INFO"), ("CLUSTER", "NODES")], ANSWER_TIMEOUT_S
        )
    except (NotSentError, ReplyLostError) as error:
        raise _NoReportError(str(error)) from error
    for reply in replies:
        if isinstance(reply, redis.exceptions.RedisError):
            raise _NoReportError(str(reply)) from reply
    slots, info, nodes = replies
    try:
        fields = info_fields(info)
        epochs = dict(_epochs(nodes.decode()))
        masters = {
            address: epochs[ids[2].decode()]
            for _, _, ids, *_ in slots
            if (address := _address(ids, asked))
        }
        return ClusterReport(
            ok=fields["cluster_state"] == "ok",
            epoch=int(fields["cluster_current_epoch"]),
            ranges=tuple(_ranges(slots, asked)),
            mastery_epochs=masters,
        )
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise _NoReportError(f"its answer cannot be read: {error!r}") from error


def importing_slots(nodes: str) -> list[int]:
    """The slots that are being moved to a node, by its own answer to CLUSTER NODES.

    Raises:
        ValueError: the answer cannot be read.
    """
    (own,) = (line for line in nodes.splitlines() if "myself" in line.split(" ")[2])
    # [slot-<-from] is on its way here, [slot->-to] away from here.
    return [int(word[1:].split("-", 1)[0]) for word in own.split(" ") if "-<-" in word]


def _ranges(slots: Sequence[Any], asked: Node) -> Iterator[Range]:
    for first, last, master, *replicas in slots:
        address = _address(master, asked)
        if address is not None:
            others = (_address(replica, asked) for replica in replicas)
            yield Range(first, last, address, tuple(node for node in others if node))


def _address(entry: Sequence[Any], asked: Node) -> Node | None:
    """A node of CLUSTER SLOTS; None for one that has no address yet.

    No host means the one that was asked; "?" that it should have a name, and none was
    configured.
    """
    host = (entry[0] or b"").decode()
    if host == "?":
        details = [value.decode() for value in entry[3]] if len(entry) > 3 else []
        host = dict(zip(details[::2], details[1::2], strict=True)).get("ip", "?")
    return None if host == "?" else Node(host or asked.host, int(entry[1]))


def _epochs(nodes: str) -> Iterator[tuple[str, int]]:
    """CLUSTER NODES: id, address, flags, master, ping, pong, config-epoch, link, slots."""
    for line in nodes.splitlines():
        words = line.split(" ")
        yield words[0], int(words[6])
