"""The report of one Sentinel: the master it names, and its part in an election."""

from __future__ import annotations

from dataclasses import dataclass

import redis.exceptions

from ddq.store.connection import Connection, NotSentError, ReplyLostError
from ddq.store.topology.base import Replica, SentinelSettings
from ddq.store.topology.election import (
    QUESTION_COMMAND,
    QUESTION_EPOCH,
    QUESTION_NAME,
    Ballot,
    read_vote,
)
from ddq.store.topology.node import Node
from ddq.store.topology.refresh import ANSWER_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class SentinelReport:
    """The report of one Sentinel.

    Attributes:
        run_id: of the Sentinel, which may be known by two addresses.
        master: the node it names.
        epoch: of the failover that made it master; the newest counts.
        settings: how it watches the master.
        others: the other Sentinels that it knows.
        replicas: as it sees them.
    """

    run_id: bytes
    master: Node
    epoch: int
    settings: SentinelSettings
    others: tuple[Node, ...]
    replicas: tuple[Replica, ...]

    def __str__(self) -> str:
        return f"{self.master} since epoch {self.epoch}"


class _NoReportError(Exception):
    """A Sentinel answers, and cannot say what it is asked for."""


async def ask_sentinel(connection: Connection, sentinel: Node, name: str) -> SentinelReport:
    """Asks one Sentinel.

    Its MASTER names the old one until the last replica has followed; its
    GET-MASTER-ADDR-BY-NAME names the new one from the promotion on, with the same epoch.
    """
    try:
        address, state, others, replicas, run_id = await connection.send(
            [
                ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name),
                ("SENTINEL", "MASTER", name),
                ("SENTINEL", "SENTINELS", name),
                ("SENTINEL", "REPLICAS", name),
                ("SENTINEL", "MYID"),
            ],
            ANSWER_TIMEOUT_S,
        )
    except (NotSentError, ReplyLostError) as error:
        raise _NoReportError(str(error)) from error
    for reply in (address, state, others, replicas, run_id):
        if isinstance(reply, redis.exceptions.RedisError):
            raise _NoReportError(str(reply)) from reply
    if address is None:
        raise _NoReportError(f"it knows no master {name!r}")
    try:
        fields = _fields(state)
        return SentinelReport(
            run_id=run_id,
            master=Node(address[0].decode(), int(address[1])),
            epoch=int(fields["config-epoch"]),
            settings=SentinelSettings(
                sentinel=sentinel,
                down_after_ms=int(fields["down-after-milliseconds"]),
                failover_timeout_ms=int(fields["failover-timeout"]),
                quorum=int(fields["quorum"]),
                sentinels_count=int(fields["num-other-sentinels"]) + 1,
                config_epoch=int(fields["config-epoch"]),
            ),
            others=tuple(_node(_fields(other)) for other in others),
            replicas=tuple(_replica(_fields(replica)) for replica in replicas),
        )
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise _NoReportError(f"its answer cannot be read: {error!r}") from error


async def ask_ballot(connection: Connection, sentinel: Node, name: str, node: Node) -> Ballot:
    """The answer of one Sentinel about the election of a master.

    Raises:
        Exception: it does not answer, or not what can be read.
    """
    try:
        address, state, vote, run_id = await connection.send(
            [
                ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name),
                ("SENTINEL", "MASTER", name),
                (
                    "SENTINEL",
                    QUESTION_COMMAND,
                    node.host,
                    node.port,
                    QUESTION_EPOCH,
                    QUESTION_NAME,
                ),
                ("SENTINEL", "MYID"),
            ],
            ANSWER_TIMEOUT_S,
        )
    except (NotSentError, ReplyLostError) as error:
        raise _NoReportError(str(error)) from error
    for reply in (address, state, vote, run_id):
        if isinstance(reply, redis.exceptions.RedisError):
            raise _NoReportError(str(reply)) from reply
    try:
        fields = _fields(state)
        down, vote_epoch = read_vote(vote)
        return Ballot(
            run_id=run_id,
            sentinel=str(sentinel),
            master=Node(address[0].decode(), int(address[1])),
            config_epoch=int(fields["config-epoch"]),
            vote_epoch=vote_epoch,
            down=down,
            leads="failover_in_progress" in fields["flags"].split(","),
            known_count=int(fields["num-other-sentinels"]) + 1,
        )
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise _NoReportError(f"its answer cannot be read: {error!r}") from error


def _fields(reply: list[bytes]) -> dict[str, str]:
    values = [value.decode() for value in reply]
    return dict(zip(values[::2], values[1::2], strict=True))


def _node(fields: dict[str, str]) -> Node:
    return Node(fields["ip"], int(fields["port"]))


def _replica(fields: dict[str, str]) -> Replica:
    away = {"s_down", "o_down", "disconnected"} & {*fields["flags"].split(",")}
    online = fields["master-link-status"] == "ok" and not away
    return Replica(_node(fields), online=online, priority=int(fields["slave-priority"]))
