"""The seeded mutations, by name: what is patched, where it is found, and by which promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from chaos.experiments.mutants.effects import EFFECTS
from chaos.experiments.mutants.mistakes import MISTAKES, Patch, edited
from chaos.faults import Mode
from ddq.client import convert
from ddq.errors import OutcomeUnknown
from ddq.store.barrier import Answer, Chain, Policy, Timing
from ddq.store.connection import Command, Connection, Reply
from ddq.store.topology import Node, SentinelTopology

WAIT_S = 2.0
"""How long WAIT may take, where nothing else bounds it."""
SLOW_CLOCK = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class SeededMutation:
    """One mistake of ddq.

    Attributes:
        breaks: promises that may find it.
        scenario, mode: where it is found; see chaos/experiments/scenarios.py.
        apply: patches the process while the block lasts.
        in_client: it is in the client library, and so in the harness; else in the processes of ddq.
        only: the one process that has it; "" for all.
        workload: what clients do in place of what the scenario has them do; "" for that.
        rate: operations a second, for a mistake that shows only for a moment; None: as in any run.
    """

    name: str
    doc: str
    breaks: frozenset[str]
    scenario: str
    mode: Mode
    apply: Patch
    in_client: bool = False
    only: str = ""
    workload: str = ""
    rate: float | None = None


@contextmanager
def _rule_off() -> Iterator[None]:
    """A majority counts at any time, as with plain WAIT."""

    def judge(chain: Chain, answer: Answer) -> bool:
        return answer.acked_count >= chain.policy.nodes.majority_replicas_count

    with _no_settling(), mock.patch.object(Chain, "judge", judge):
        yield


@contextmanager
def _no_settling() -> Iterator[None]:
    timing = staticmethod(lambda _down_after_s: Timing(WAIT_S, 0.0, WAIT_S, 0.0))
    with (
        mock.patch.object(Timing, "of", timing),
        mock.patch.object(Chain, "wants_all", return_value=False),
    ):
        yield


def _wait_left_out() -> AbstractContextManager[Any]:
    """Replies leave when the master has the write, whatever the topic says."""
    return mock.patch.object(Policy, "waits", property(lambda _: False))


@contextmanager
def _wait_with_too_few() -> Iterator[None]:
    """One replica is enough, in ALL too."""

    def judge(_chain: Chain, answer: Answer) -> bool:
        return answer.acked_count >= 1

    with _no_settling(), mock.patch.object(Chain, "judge", judge):
        yield


class _Divided:
    """A connection whose barriers take another one.

    WAIT speaks of what its own connection wrote: on one that wrote nothing it says that every
    replica has all of it, whichever replicas follow the node by now.
    """

    def __init__(self, scripts: Connection, barriers: Connection) -> None:
        self._scripts = scripts
        self._barriers = barriers

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        """See Connection.send."""
        if commands[-1] != ("ROLE",):
            return await self._scripts.send(commands, timeout_s)
        replies = await self._scripts.send(commands[:-2], timeout_s)
        return [*replies, *await self._barriers.send(commands[-2:], timeout_s)]

    async def close(self) -> None:
        """See Connection.close."""
        await self._scripts.close()
        await self._barriers.close()


def _stale_master_trusted() -> AbstractContextManager[Any]:
    """The barrier uses a connection of its own, and a master without replicas passes."""
    connect = SentinelTopology.connect

    def divided(topology: SentinelTopology, node: Node) -> Connection:
        return _Divided(connect(topology, node), connect(topology, node))

    return mock.patch.object(SentinelTopology, "connect", divided)


def _timeout_is_failure() -> AbstractContextManager[Any]:
    """A client that gets no reply takes it for a refusal."""
    return mock.patch.object(OutcomeUnknown, "definite", True)


def _client_clock() -> AbstractContextManager[Any]:
    """The client computes when a task is due, by a clock that is slow."""
    put = convert.put_schedule

    def put_schedule(message: Any, delay: timedelta | None, due: datetime | None) -> None:
        if delay is None:
            put(message, delay, due)
        else:
            put(message, None, datetime.now(UTC) - SLOW_CLOCK + delay)

    return mock.patch.object(convert, "put_schedule", put_schedule)


def _epoch_unchecked() -> AbstractContextManager[Any]:
    """A scheduler that has led once continues as leader."""
    return edited("return control.nonce == nonce and control.epoch == epoch", "return true")


MUTATIONS: Mapping[str, SeededMutation] = {
    each.name: each
    for each in (
        SeededMutation(
            "rule-off",
            "a majority under WAIT counts at any time",
            frozenset({"G2", "G4", "G7", "G9"}),
            "old-master-believed",
            Mode.QUORUM,
            _rule_off,
            # Between its return and the moment at which its replicas hear of another.
            rate=200.0,
        ),
        SeededMutation(
            "wait-left-out",
            "replies leave when the master has it",
            frozenset({"G2", "G4", "G9"}),
            "old-master-believed",
            Mode.QUORUM,
            _wait_left_out,
        ),
        SeededMutation(
            "wait-with-too-few",
            "ALL waits for one replica",
            frozenset({"G2", "G4", "G9"}),
            "cut-through-a-host",
            Mode.ALL,
            _wait_with_too_few,
        ),
        SeededMutation(
            "stale-master-believed",
            "the barrier is sent on a connection of its own",
            frozenset({"G2", "G4", "G9"}),
            "master-cut-off",
            Mode.QUORUM,
            _stale_master_trusted,
        ),
        SeededMutation(
            "timeout-is-failure",
            "a client that gets no reply takes it for a refusal",
            frozenset({"G1", "G2", "G3", "G4", "G9"}),
            "half-open",
            Mode.QUORUM,
            _timeout_is_failure,
            in_client=True,
        ),
        SeededMutation(
            "epoch-unchecked",
            "a scheduler that was deposed continues",
            frozenset({"G3", "G8", "G12"}),
            "scheduler-leader-stopped",
            Mode.QUORUM,
            _epoch_unchecked,
        ),
        SeededMutation(
            "client-clock",
            "the client computes when a task is due, by a clock 3 s slow",
            frozenset({"G5"}),
            "planned-failover",
            Mode.QUORUM,
            _client_clock,
            in_client=True,
        ),
        *(
            SeededMutation(name, doc, breaks, scenario, Mode.QUORUM, patch)
            for name, (doc, breaks, scenario, patch) in MISTAKES.items()
        ),
        *(
            SeededMutation(
                name,
                doc,
                frozenset({promise}),
                scenario,
                Mode.QUORUM,
                patch,
                workload=workload,
            )
            for name, (doc, promise, scenario, workload, patch) in EFFECTS.items()
        ),
    )
}


def find_mutation(name: str) -> SeededMutation:
    """A mutation by its name; ValueError if there is none."""
    if name not in MUTATIONS:
        raise ValueError(f"no mutation is called {name!r}; there are {', '.join(MUTATIONS)}")
    return MUTATIONS[name]
