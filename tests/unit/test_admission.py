"""Which calls a server refuses before it begins with them."""

from __future__ import annotations

import asyncio
from typing import cast

from ddq.config import Settings
from ddq.metrics import null_metrics
from ddq.server.admission import Admission
from ddq.server.waiting_calls import SAMPLE_S, Channelz, WaitingCalls


class FakeCounts:
    """What gRPC counts, as a test says it."""

    def __init__(self) -> None:
        self.started = 0
        self.open = 0

    def started_count(self) -> int:
        return self.started

    def open_count(self) -> int:
        return self.open


class World:
    """An admission, and a clock that a test moves."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.counts = FakeCounts()
        self.now_s = 100.0
        self.waiting = WaitingCalls(cast("Channelz", self.counts), lambda: self.now_s)
        self.admission = Admission(
            settings or Settings(), null_metrics(), self.waiting, lambda _: None
        )

    def arrive(self, count: int) -> None:
        self.counts.started += count
        self.counts.open += count

    async def hand_over(self, name: str = "Enqueue") -> bool:
        """Whether a call is begun with; it has ended then."""

        async def call() -> bool:
            return self.admission.refusal(name) is None

        admitted = await asyncio.create_task(call())
        self.counts.open -= 1
        return admitted


async def test_calls_are_refused_from_the_bound_on_until_half_of_it_is_left() -> None:
    world = World(Settings(calls_waiting_max_count=10, calls_waiting_max_ms=60_000))
    world.arrive(16)
    assert [await world.hand_over() for _ in range(16)] == [False] * 10 + [True] * 6


async def test_calls_that_wait_within_the_bound_are_not_refused() -> None:
    world = World(Settings(calls_waiting_max_count=10, calls_waiting_max_ms=60_000))
    world.arrive(11)
    assert all([await world.hand_over() for _ in range(11)])


async def test_a_call_that_waits_too_long_makes_later_ones_refused() -> None:
    world = World(Settings(calls_waiting_max_ms=1_000))
    world.arrive(5)
    assert await world.hand_over()
    world.now_s += 1.1
    assert [await world.hand_over() for _ in range(4)] == [False, False, False, True]


async def test_a_pause_of_the_process_is_not_taken_for_a_wait() -> None:
    world = World(Settings(calls_waiting_max_ms=1_000))
    world.arrive(1)
    assert await world.hand_over()
    world.now_s += 60
    world.arrive(20)
    assert all([await world.hand_over() for _ in range(20)])


async def test_calls_that_end_attempts_have_half_as_much_room_again() -> None:
    world = World(Settings(calls_waiting_max_count=10, calls_waiting_max_ms=60_000))
    world.arrive(15)
    assert not await world.hand_over("BatchEnqueue")
    assert await world.hand_over("BatchAck")
    world.arrive(10)
    world.now_s += SAMPLE_S
    assert not await world.hand_over("BatchAck")
    assert await world.hand_over("Check")


async def test_calls_that_ended_while_they_waited_are_not_counted() -> None:
    """gRPC never hands them over."""
    world = World(Settings(calls_waiting_max_count=10, calls_waiting_max_ms=60_000))
    world.arrive(50)
    world.counts.open -= 49
    assert await world.hand_over()
    assert world.waiting.count == 0


async def test_calls_under_way_are_bounded() -> None:
    world = World(Settings(calls_running_max_count=4))
    end = asyncio.Event()

    async def call(name: str) -> bool:
        admitted = world.admission.refusal(name) is None
        await end.wait()
        return admitted

    names = ["Retrieve"] * 4 + ["Enqueue", "Ack", "Ack"]
    calls = [asyncio.create_task(call(name)) for name in names]
    await asyncio.sleep(0)
    end.set()
    assert await asyncio.gather(*calls) == [True] * 4 + [False, True, False]
    assert await world.hand_over("Enqueue")


async def test_requests_under_way_are_bounded_in_bytes() -> None:
    admission = World(Settings(calls_running_max_bytes=100)).admission
    assert admission.hold("Enqueue", "a", 150) is None
    assert "150 bytes" in str(admission.hold("Enqueue", "b", 1))
    admission.let_go("a", 150)
    assert admission.hold("Enqueue", "a", 60) is None
    assert admission.hold("Enqueue", "b", 60) is not None
    assert admission.hold("Ack", "b", 60) is None


async def test_calls_of_one_connection_are_bounded() -> None:
    admission = World(Settings(connection_calls_max_count=2)).admission
    held = [admission.hold("Enqueue", peer, 0) is None for peer in ("a", "a", "a", "b")]
    assert held == [True, True, False, True]
    admission.let_go("a", 0)
    assert admission.hold("Enqueue", "a", 0) is None
