"""The planted bugs, by name: what is patched, and by which promise it is to be found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ddq.store.barrier import Answer, Chain, DataNodes, Policy, Timing

WAIT_S = 2.0
"""How long WAIT may take, where nothing else bounds it."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One mistake.

    Attributes:
        breaks: promises by which it may be found.
        plant: patches the process.
    """

    name: str
    doc: str
    breaks: frozenset[str]
    plant: Callable[[], None]


def _rule_off() -> None:
    """A majority counts at any time, as with plain WAIT."""

    def judge(chain: Chain, answer: Answer) -> bool:
        return answer.acked_count >= chain.policy.nodes.majority_replicas_count

    _patch(Timing, "of", staticmethod(lambda _down_after_s: Timing(WAIT_S, 0.0)))
    _patch(Chain, "judge", judge)
    _patch(Chain, "wants_all", lambda _chain, _now_s: False)


def _wait_left_out() -> None:
    """Replies leave when the master has it, whatever the topic says."""
    _patch(Policy, "waits", property(lambda _: False))


def _wait_with_too_few() -> None:
    """One replica is enough, in ALL too."""

    def judge(_chain: Chain, answer: Answer) -> bool:
        return answer.acked_count >= 1

    _patch(Timing, "of", staticmethod(lambda _down_after_s: Timing(WAIT_S, 0.0)))
    _patch(DataNodes, "replicas_count", property(lambda nodes: min(1, nodes.count - 1)))
    _patch(Chain, "judge", judge)


def _patch(owner: type, name: str, value: object) -> None:
    setattr(owner, name, value)


BUGS: Mapping[str, Bug] = {
    bug.name: bug
    for bug in (
        Bug(
            "rule-off",
            "a majority under WAIT counts at any time",
            frozenset({"G2"}),
            _rule_off,
        ),
        Bug(
            "wait-left-out",
            "replies leave when the master has it",
            frozenset({"G2", "G4", "G9"}),
            _wait_left_out,
        ),
        Bug(
            "wait-with-too-few",
            "ALL waits for one replica",
            frozenset({"G2", "G4", "G9"}),
            _wait_with_too_few,
        ),
    )
}


def bug(name: str) -> Bug:
    """A bug by its name; ValueError if there is none."""
    if name not in BUGS:
        raise ValueError(f"no bug is called {name!r}; there are {', '.join(BUGS)}")
    return BUGS[name]
