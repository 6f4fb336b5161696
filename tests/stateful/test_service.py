"""Level 2 over gRPC: the same machine, through real calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from models import operations as ops
from tests.profiles import LONG
from tests.stateful.machine import IDS, QueueMachine
from tests.stateful.served import NEXT_DIGEST, ServedShard, digest_of

pytestmark = LONG

MESSAGES = (
    ops.Enqueue("", b"one", ops.When(0), ops.Policy(2, 10, 700, 2_500, 333)),
    ops.Enqueue("", b"two", ops.When(500), ops.Policy(max_attempts=1)),
    ops.Enqueue("", b"three", ops.When(1_000_700, absolute=True), ops.Policy(3, 0, 700, 1_000, 0)),
)
"""A content stands for all that is sent beside the id, so each has one schedule and policy."""
_DIGESTS = {message.content: digest_of(message).rstrip(b"\0") for message in MESSAGES}
_DIGESTS[b"next"] = NEXT_DIGEST.rstrip(b"\0")


class ServedMachine(QueueMachine):
    """Specification and service side by side; leases are as long as the API asks for."""

    shard_class = ServedShard
    repeats_ids = False

    def kept_content(self, content: bytes) -> bytes:
        """The service keeps a digest of all that was sent."""
        return _DIGESTS[content]

    def alike(self, op: Any, answer: ops.Response, expected: ops.Response) -> bool:
        """An error carries no receipt, and a Retrieve only its leases."""
        if isinstance(op, ops.Retrieve) and answer.results and expected.results:
            return answer.results[0][2] == expected.results[0][2]
        return (answer.status, answer.results) == (expected.status, expected.results)

    def as_sent(self, *operations: Any, request_id: str) -> tuple[Any, str]:
        """Within the API's bounds: a lease of 100 ms, one schedule a content, an id to replace."""
        sent = tuple(self._within_bounds(op) for op in operations)
        replaces = any(
            isinstance(op, ops.Reschedule)
            or (isinstance(op, ops.Enqueue) and op.on_conflict not in {"fail", "existing"})
            for op in sent
        )
        return sent, request_id or (self._new_token().hex() if replaces else "")

    def _within_bounds(self, op: Any) -> Any:
        if isinstance(op, ops.Enqueue):
            message = next(m for m in MESSAGES if op.content[:3] == m.content[:3])
            return replace(op, content=message.content, when=message.when, policy=message.policy)
        if isinstance(op, ops.Retrieve):
            tokens = op.tokens or (self._new_token(),)
            return ops.Retrieve(max(op.lease_ms, 100), tokens, max_bytes=1 << 20)
        if isinstance(op, ops.Extend):
            return replace(op, lease_ms=max(op.lease_ms, 100))
        if isinstance(op, ops.Nack) and op.dead:
            return replace(op, delay_ms=None)
        return op

    @rule(task_id=IDS, message=st.sampled_from(MESSAGES))
    def enqueue_message(self, task_id: str, message: ops.Enqueue) -> None:
        self.ask(replace(message, id=task_id))


def test_service_does_what_the_specification_says(stateful_socket: str) -> None:
    """Validation, conversion and statuses change nothing about what happens."""
    ServedMachine.socket = stateful_socket
    examples = max(10, settings().max_examples // 5)
    run_state_machine_as_test(ServedMachine, settings=settings(max_examples=examples))
