"""Level 3 without a fault: a task that is ready is delivered to a worker that waits (G14)."""

from __future__ import annotations

import pytest

from tests.bugs.registry import BUGS
from tests.stateful.delivery import late_deliveries

SEEDS = range(20)
BUG = next(bug for bug in BUGS if bug.name == "a wake-up is dropped")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_ready_task_is_delivered_in_any_order_of_events(stateful_socket: str, seed: int) -> None:
    found, waited_count = late_deliveries(stateful_socket, seed)
    assert not found, found
    assert waited_count >= 5, "the workers did not wait"


def test_without_its_wake_up_it_would_not_be(stateful_socket: str) -> None:
    assert BUG.directed is not None
    assert BUG.patch is not None
    with BUG.patch():
        assert "a worker waited for it" in BUG.directed(stateful_socket)
