"""The model of the unbroken-barrier rule: it holds, each part is needed, and ddq follows it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ddq.store.barrier import Answer, Chain, DataNodes, ElectionAnswer, Policy, Timing
from ddq.task import Durability
from models.barrier import rule as client
from models.barrier import state as places
from models.barrier.__main__ import main
from models.barrier.rule import Rule
from models.barrier.search import search, steps
from models.barrier.state import Fault, initial, lost
from models.barrier.store import Faults

STATES_MAX_COUNT = 200_000
RULE = Rule(candidates=False)
"""The part about candidates has searches of its own."""
PAUSED, ISOLATED, CRASHED = (Fault.PAUSED,), (Fault.ISOLATED,), (Fault.CRASHED,)


@pytest.mark.parametrize("kind", [PAUSED, ISOLATED, CRASHED], ids=str)
@pytest.mark.parametrize("rule", [RULE, replace(RULE, all=True)], ids=["QUORUM", "ALL"])
def test_one_fault_of_a_whole_host_loses_nothing(rule: Rule, kind: tuple[Fault, ...]) -> None:
    found = search(rule, Faults((kind,)), STATES_MAX_COUNT)
    assert found.schedule == ()
    assert found.exhausted


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        (["chain"], PAUSED),
        (["window"], PAUSED),
        (["votes"], PAUSED),
        (["votes"], ISOLATED),
        # Either is enough for one fault: an election begins soon after the master's return.
        (["settle", "down"], PAUSED),
        (["settle", "down"], ISOLATED),
    ],
    ids=str,
)
def test_without_a_part_one_fault_loses_an_acknowledged_write(
    parts: list[str], kind: tuple[Fault, ...]
) -> None:
    rule, faults = replace(RULE, **dict.fromkeys(parts, False)), Faults((kind,))
    found = search(rule, faults, STATES_MAX_COUNT)
    assert any("THE WRITE IS ACKNOWLEDGED" in action for action in found.schedule)
    assert lost(_played(found.schedule, rule, faults))


def _played(schedule: tuple[str, ...], rule: Rule, faults: Faults) -> places.State:
    """The state at which a schedule ends, action by action."""
    state = initial()
    for action in schedule:
        state = next(after for name, after in steps(state, rule, faults) if name == action)
    return state


def test_the_command_prints_the_schedule_and_says_how_the_search_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["paused", "--without", "window"]) == 1
    assert "FAULT: host 0 is paused" in capsys.readouterr().out
    assert main(["crashed"]) == 0
    assert "holds" in capsys.readouterr().out
    assert main(["isolated", "--states", "100"]) == 2
    assert "not finished" in capsys.readouterr().out
    assert main(["--deep", "--states", "50"]) == 1
    assert "the control found no loss" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["flooded"])
    assert "no kind of fault is called 'flooded'" in capsys.readouterr().err


# The same rule as the store's -------------------------------------------------------------------

TIMING = Timing(
    window_s=places.WINDOW,
    settle_s=places.SETTLE,
    down_after_s=places.DOWN_AFTER,
    election_s=places.SETTLE_ELECTION,
)
REPLICAS = {places.BITS[1]: ("n1", 1), places.BITS[2]: ("n2", 1)}
NODES = DataNodes(3, frozenset({("n0", 1), *REPLICAS.values()}))

Action = tuple[str, int, int, int]
barriers = st.tuples(
    st.sampled_from(["barrier", "barrier with a question"]),
    st.integers(0, 2),
    st.sampled_from([0, 2, 4, 6]),
    st.integers(0, 2),
)
questions = st.tuples(st.just("question"), st.integers(0, 1), st.integers(0, 1), st.just(0))
ticks = st.just(("tick", 0, 0, 0))
quiet_times = st.integers(1, places.SETTLE + 1).map(
    lambda count: [("barrier", 1, 6, 0), ("tick", 0, 0, 0)] * count
)
"""A majority confirms promptly: without such times no chain ever settles."""
sequences = st.lists(
    st.one_of(quiet_times, st.one_of(barriers, questions, ticks).map(lambda one: [one])),
    max_size=30,
).map(lambda parts: [action for part in parts for action in part])


LATE_ANSWER = [
    ("barrier", 1, 6, 0),
    ("tick", 0, 0, 0),
    ("barrier", 1, 6, 0),
    ("barrier with a question", 1, 6, 1),
]
"""Sent before the end of the settling time, and answered at its end."""


@given(sequences)
@example(LATE_ANSWER)
def test_the_rule_of_the_model_is_the_rule_of_the_store(actions: list[Action]) -> None:
    """Barriers that take from no tick to two, answers of the Sentinels, and time between them."""
    rule = Rule()
    known = bytearray(initial())
    known[places.BROKEN], known[places.SETTLES_IN] = 1, places.UNCONFIRMED
    known[places.HAS_LAST], known[places.TRUSTED_FOR] = 0, places.DOWN_AFTER
    chain = Chain(Policy(Durability.QUORUM, fsync=False, nodes=NODES, timing=TIMING))
    now = 100

    def wait(ticks_count: int) -> None:
        nonlocal now
        for _ in range(ticks_count):
            client.tick(known, rule)
            now += 1

    def ask(*, pending: bool, complete: bool) -> None:
        if chain.wants_elections(now):
            chain.hear(now, ElectionAnswer("pending" if pending else "", complete))
            client.hear(known, pending=pending, complete=complete, rule=rule)

    for action in actions:
        match action:
            case ("barrier" | "barrier with a question" as name, confirmed, seen, took):
                sent = now
                known[places.SENT_FOR] = 0
                known[places.SENT_SETTLED] = known[places.SETTLES_IN] == 0
                known[places.WRITE] = places.Write.EXECUTED
                wait(took)
                if name != "barrier":
                    ask(pending=False, complete=True)
                attached = frozenset(node for bit, node in REPLICAS.items() if seen & bit)
                good = chain.judge(Answer(sent, now, confirmed, attached))
                client.judge(known, confirmed, seen, rule)
                assert (known[places.WRITE] == places.Write.ACKNOWLEDGED) == good
            case ("question", pending, complete, _):
                ask(pending=bool(pending), complete=bool(complete))
            case _:
                wait(1)
        assert bool(known[places.BROKEN]) == bool(chain.broken_because)
        wants = known[places.BROKEN] and not known[places.QUIET] and not known[places.SETTLES_IN]
        assert bool(wants) == chain.wants_elections(now)
