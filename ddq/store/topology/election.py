"""Whether an election that would replace a master may be under way, by what the Sentinels answer.

A Sentinel keeps the newest epoch in which it voted for a leader, on disk, and the epoch of the
failover that made the present master one. A leader needs the votes of a majority. So where each
Sentinel of some majority has voted in no epoch newer than the master's, no leader has been elected
that could still replace it; and a Sentinel that does not consider the master down begins no
election. A newer vote stands for an election that is under way, that was given
up, or that has ended behind a partition: which of the three, only the leader knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddq.store.barrier import ElectionAnswer
from ddq.store.topology.node import Node

QUESTION_COMMAND = "IS-MASTER-DOWN-BY-ADDR"
QUESTION_EPOCH = 0
"""Epoch 0 is older than every vote: the Sentinel answers with its vote, and gives none."""
QUESTION_NAME = "ddq"
"""Anything but ``*``, at which a Sentinel leaves its vote out."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """The answer of one Sentinel about the election of a master.

    Attributes:
        run_id: of the Sentinel.
        sentinel: its name for messages.
        master: the node that it names as master.
        config_epoch: of the failover that made that node the master.
        vote_epoch: the newest epoch in which it voted for a leader; 0: it has not voted.
        down: whether it considers the node down, that the question was about.
        leads: whether it is running a failover itself.
        known_count: the Sentinels that it knows, itself included.
    """

    run_id: bytes
    sentinel: str
    master: Node
    config_epoch: int
    vote_epoch: int
    down: bool
    leads: bool
    known_count: int


class Elections:
    """Reads the Sentinels' answers, and remembers which epochs' elections are known to be over."""

    def __init__(self) -> None:
        self._over: dict[bytes, int] = {}
        """By Sentinel: the newest of its votes that is known to have come to nothing. By Sentinel,
        since one that is set up again counts its epochs from the start, under a new run id."""

    def read(self, node: Node, ballots: Sequence[Ballot], seeds_count: int) -> ElectionAnswer:
        """Takes the answers about one node together.

        Args:
            node: the master that is in use.
            ballots: at most one for each Sentinel.
            seeds_count: the Sentinels of the store's URL; each Sentinel may know of more.
        """
        known_count = max([seeds_count, *(each.known_count for each in ballots)])
        complete = len(ballots) == known_count
        if len(ballots) <= known_count // 2:
            return ElectionAnswer(
                f"{len(ballots)} of {known_count} Sentinels answer, and a majority is needed to "
                "know that none of them replaces the master",
                complete,
            )
        naming = [each.config_epoch for each in ballots if each.master == node]
        epoch = max(naming, default=-1)
        for each in ballots:
            if each.master != node and each.config_epoch >= epoch:
                return ElectionAnswer(
                    f"Sentinel {each.sentinel} names {each.master} as master since epoch "
                    f"{each.config_epoch}",
                    complete,
                )
        if doubting := next((each for each in ballots if each.down), None):
            return ElectionAnswer(
                f"Sentinel {doubting.sentinel} considers the master down", complete
            )
        newer = [
            each for each in ballots if each.vote_epoch > max(epoch, self._over.get(each.run_id, 0))
        ]
        if not newer:
            return ElectionAnswer("", complete)
        if leader := next((each for each in ballots if each.leads), None):
            return ElectionAnswer(f"Sentinel {leader.sentinel} is running a failover", complete)
        if complete:
            # Each one answers, and none is running a failover: the elections up to this epoch were
            # given up. A new one takes a new epoch, and begins only after another silence.
            self._over.update((each.run_id, each.vote_epoch) for each in newer)
            return ElectionAnswer("", complete)
        newest = max(newer, key=lambda each: each.vote_epoch)
        return ElectionAnswer(
            f"Sentinel {newest.sentinel} voted in epoch {newest.vote_epoch} and the master is of "
            f"epoch {epoch}: {known_count - len(ballots)} of {known_count} Sentinels do not "
            "answer, and a failover may be complete there; bring them back, or order a failover "
            "(SENTINEL FAILOVER <master> COORDINATED), which settles it under a newer epoch",
            complete,
        )


def read_vote(reply: Sequence[object]) -> tuple[bool, int]:
    """Whether a Sentinel considers the node down, and the epoch of its newest vote.

    The epoch counts without a leader too: a Sentinel that was restarted has kept only the epoch.

    Raises:
        ValueError, TypeError: the answer cannot be read.
    """
    down, _, epoch = reply
    if not isinstance(epoch, int):
        raise TypeError(f"not an epoch: {epoch!r}")
    return bool(down), epoch
