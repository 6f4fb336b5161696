"""Who lost replies and does not know what happened: every answer that follows is explained."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from models import operations as ops
from models.queue import Shard
from models.uncertain import UncertainShard, UnexplainedError
from tests.profiles import LONG
from tests.stateful.dump import read_shard
from tests.stateful.real import RealShard, comparable

pytestmark = LONG

MOMENT_MS = 1_000_000
IDS = st.sampled_from(["a", "b"])


def _request(op: ops.Operation) -> ops.Request:
    return ops.Request((op,), caller_ms=1_000)


def test_an_unknown_outcome_forks_and_an_observation_decides() -> None:
    maybe = UncertainShard().maybe(_request(ops.Enqueue("a", b"x")), [1_000])
    assert len(maybe.shards) == 2
    look = _request(ops.Get("a"))
    absent = ops.Response("OK", 1_000, (("NOT_FOUND",),))
    assert len(maybe.observe(look, 1_000, absent).shards) == 1


def test_a_reply_that_no_state_explains_is_an_error() -> None:
    known = UncertainShard().maybe(_request(ops.Cancel("a")), [1_000])
    look = _request(ops.Get("a"))
    with pytest.raises(UnexplainedError, match="was answered"):
        known.observe(look, 1_000, ops.Response("OK", 1_000, (("OK", ()),)))


class LossyMachine(RuleBasedStateMachine):
    """A caller that loses replies, against the real store: it is never surprised.

    Attributes:
        socket: of the server.
        lies: the store runs requests whose sender got a definite error.
    """

    socket: ClassVar[str]
    lies: ClassVar[bool] = False

    @initialize()
    def begin(self) -> None:
        self.real = RealShard(self.socket)
        start: Shard = read_shard(self.real.redis, self.real.id)
        self.known = UncertainShard((start,))

    def teardown(self) -> None:
        if hasattr(self, "real"):
            self.real.close()

    def _ask(self, op: ops.Operation) -> tuple[ops.Request, ops.Response]:
        request = ops.Request((op,), caller_ms=MOMENT_MS)
        return request, self.real.ask(request, MOMENT_MS)

    @rule(
        op=st.one_of(
            st.builds(ops.Enqueue, IDS, st.sampled_from([b"x", b"y"])), st.builds(ops.Cancel, IDS)
        ),
        arrives=st.booleans(),
    )
    def lose_reply(self, op: ops.Operation, arrives: bool) -> None:
        """The request may or may not have run; the caller cannot tell."""
        request = ops.Request((op,), caller_ms=MOMENT_MS)
        if len(self.known.shards) < 64:
            if arrives:
                self.real.ask(request, MOMENT_MS)
            self.known = self.known.maybe(request, [MOMENT_MS])

    @rule(task_id=IDS)
    def fails(self, task_id: str) -> None:
        """A request that is known to have failed changes nothing."""
        if self.lies:
            self._ask(ops.Enqueue(task_id, b"lie"))

    @rule(op=st.one_of(st.builds(ops.Get, IDS), st.just(ops.Survey()), st.builds(ops.Cancel, IDS)))
    def observe(self, op: ops.Operation) -> None:
        """Some possible state explains every answer."""
        request, answer = self._ask(op)
        self.known = self.known.observe(request, MOMENT_MS, answer, comparable)


def test_every_answer_is_explained(stateful_socket: str) -> None:
    LossyMachine.socket, LossyMachine.lies = stateful_socket, False
    run_state_machine_as_test(LossyMachine, settings=settings(max_examples=60))


def test_a_store_that_lies_is_found_out(stateful_socket: str) -> None:
    LossyMachine.socket, LossyMachine.lies = stateful_socket, True
    with pytest.raises(UnexplainedError):
        run_state_machine_as_test(
            LossyMachine, settings=settings(max_examples=60, report_multiple_bugs=False)
        )
