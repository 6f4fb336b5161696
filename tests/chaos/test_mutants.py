"""The seeded mutations of a cluster: each changes what it names, and only while it is applied."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chaos.checker.bounds import Bounds
from chaos.checker.promises import g12_one_leader
from chaos.checker.view import RunView
from chaos.experiments.campaign import RunOutcome
from chaos.experiments.mutants.registry import MUTATIONS, find_mutation
from chaos.experiments.mutants.run import found_by
from chaos.experiments.scenarios import scenario
from chaos.history.journal import Journal
from chaos.history.notes import MetricNote, RunNote, TopicSettings
from chaos.history.reader import History, Note
from ddq.client import NewTask, convert
from ddq.errors import OutcomeUnknown
from ddq.scheduler.visit import Visitor
from ddq.server.notifier import ReadyNotifier
from ddq.server.retrieval import Retrieval
from ddq.store import runner
from ddq.store.barrier import DataNodes, Policy, Timing
from ddq.store.scripts import load_scripts
from ddq.store.topology.sentinel import SentinelTopology
from ddq.task import Durability
from models.promises import BY_ID

NODES = DataNodes(3)


def policy(mode: Durability = Durability.QUORUM) -> Policy:
    return Policy(mode, fsync=False, nodes=NODES, timing=Timing.of(1.0))


def test_each_mutation_has_a_scenario_that_bears_its_faults_and_promises_that_exist() -> None:
    for each in MUTATIONS.values():
        assert each.mode in scenario(each.scenario).modes, each.name
        assert each.breaks
        assert each.breaks <= BY_ID.keys()
    with pytest.raises(ValueError, match="no mutation is called 'none'"):
        find_mutation("none")


def test_a_mutation_changes_something_while_it_is_applied() -> None:
    def seen() -> list[object]:
        spec = convert.task_spec(NewTask(b"", "a", delay=timedelta(seconds=5)), "a")
        return [
            policy().waits,
            Timing.of(1.0),
            OutcomeUnknown.definite,
            {name: script.source for name, script in load_scripts().items()},
            Visitor._acquire,
            ReadyNotifier.notify,
            Retrieval.retrieve,
            vars(runner)["Receipt"],
            SentinelTopology.connect,
            spec.WhichOneof("schedule"),
        ]

    whole = seen()
    for each in MUTATIONS.values():
        with each.apply():
            assert seen() != whole, each.name
        assert seen() == whole, each.name


def test_a_mutation_is_found_only_by_a_promise_that_it_breaks() -> None:
    mutation = find_mutation("client-clock")
    assert found_by(mutation, RunOutcome("a", "INVALID", broken=["G5", "G6"])) == ["G5"]
    assert found_by(mutation, RunOutcome("a", "INVALID", broken=["G6"])) == []
    assert found_by(mutation, RunOutcome("a", "UNKNOWN", broken=[])) == []
    assert found_by(mutation, RunOutcome("a", "FAILED", broken=["G5"])) == []


def led(*samples: tuple[float, str, float]) -> list[str]:
    """What G12 finds in samples of (seconds, scheduler, shards led), of two shards and a probe."""
    history = History([], [], [])
    topics = {"t": TopicSettings(shards=2)}
    history.notes.append(Note(0, 0, "harness", "run", RunNote(topics=topics)))
    for index, (at_s, process, count) in enumerate(samples, 1):
        value = MetricNote(g12_one_leader.SHARDS_LED, count)
        history.notes.append(Note(index, round(at_s * 1e9), process, "metric", value))
    view = RunView(history, Journal([], []), None, Bounds(recovery_ms=5_000))
    return [anomaly.summary for anomaly in g12_one_leader.check(view).anomalies]


def test_two_schedulers_that_go_on_leading_the_same_shards_break_one_leader() -> None:
    healthy = [(n, "a", 2.0) for n in range(9)] + [(9 + n, "b", 1.0) for n in range(9)]
    assert led(*healthy) == []
    # For a moment both may believe it.
    assert led((1, "a", 3), (2, "b", 3), (4, "a", 3), (5, "a", 0), (9, "b", 3)) == []
    (summary,) = led((1, "a", 3), (2, "b", 3), (4, "a", 3), (6, "b", 3), (8, "a", 3))
    assert "more than the 3 shards" in summary
    assert "a 3, b 3" in summary
