"""What a data node may start as, given what the Sentinels say: no I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

_FORCE_HINT = (
    "if no other data node will ever come back, or this one must win, start it once with "
    "--force-master"
)


@dataclass(frozen=True, slots=True)
class SentinelAnswer:
    """What one Sentinel says of the master.

    Attributes:
        master: ip:port.
        replicas_count: how many replicas of that master it has ever seen.
        config_epoch: number of the failover that made that master; 0 before the first.
    """

    master: str
    replicas_count: int
    config_epoch: int


@dataclass(frozen=True, slots=True)
class Follow:
    """Start as a replica of this master."""

    master: str


@dataclass(frozen=True, slots=True)
class Lead:
    """Start as master; ``why`` that is safe, or on which option it rests."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Stay down and ask again; ``why``, for the log."""

    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not start at all: what was asked for goes against what a majority says."""

    why: str


Decision: TypeAlias = Follow | Lead | Wait | Refuse


def decide(
    views: Sequence[SentinelAnswer],
    *,
    sentinels_count: int,
    own: str,
    bootstrap: bool = False,
    force_master: bool = False,
) -> Decision:
    """The role in which a node may start.

    Args:
        views: of the Sentinels that answered.
        sentinels_count: how many there are by configuration; a majority is counted of these.
        own: this node's ip:port, as the Sentinels know it.
        bootstrap: lead if the cluster is new. Harmless in one that is not: there the Sentinels
            know replicas, or have had a failover, and the flag no longer says anything.
        force_master: lead unless a majority names another node. An operator's word that nothing
            newer is held elsewhere.
    """
    majority = sentinels_count // 2 + 1
    votes = Counter(view.master for view in views)
    named = next((master for master, count in votes.items() if count >= majority), None)
    if named is not None and named != own:
        if force_master:
            return Refuse(
                f"a majority of the Sentinels names {named} as master; start this node without "
                "--force-master, as its replica"
            )
        return Follow(named)
    if force_master:
        return Lead("--force-master")
    if named == own:
        if bootstrap and all(_is_new(view) for view in views):
            return Lead("--bootstrap of a new cluster")
        return Wait(
            "the Sentinels still name this node as master; it stays down until they have elected "
            f"another one; {_FORCE_HINT}"
        )
    if len(views) < majority:
        return Wait(
            f"{len(views)} of {sentinels_count} Sentinels name a master, {majority} have to"
        )
    votes_text = ", ".join(f"{master} ({count})" for master, count in sorted(votes.items()))
    return Wait(f"no majority of the Sentinels agrees on a master: {votes_text}")


def _is_new(view: SentinelAnswer) -> bool:
    """Whether nothing can be lost yet: no replica has ever followed this master or replaced one."""
    return view.replicas_count == 0 and view.config_epoch == 0
