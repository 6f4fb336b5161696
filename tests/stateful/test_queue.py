"""Level 2: the specification and the store agree, whatever is asked of them."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.profiles import LONG
from tests.stateful.machine import QueueMachine

pytestmark = LONG


def test_store_does_what_the_specification_says(stateful_socket: str) -> None:
    """Every operation, in any order, at any time: equal answers and equal state."""
    QueueMachine.socket = stateful_socket
    run_state_machine_as_test(QueueMachine, settings=settings())
