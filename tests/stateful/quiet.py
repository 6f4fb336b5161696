"""A simulation without faults in which commands take no time: what is late was slept through (G6).

There is no sweep in here: a scheduler that neither its own knowledge nor a hint wakes sleeps on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any
from unittest import mock

from chaos.history.journal import Entry
from ddq.scheduler import Scheduler
from tests.stateful.clients import TOPIC
from tests.stateful.history import Exchanges, journal_of
from tests.stateful.simulate import make_topic, simulated_scripts
from tests.stateful.simulation import Simulation
from tests.stateful.wires import Stop

STEPS_MAX_COUNT = 2_000


class QuietSimulation:
    """A simulation in which time passes when nothing else can happen; the order is random."""

    def __init__(self, socket: str, random: Random, *, schedulers: int, hints: bool) -> None:
        self.simulation = Simulation(
            socket, simulated_scripts(), lambda _: 0, "quorum", faults=False, apis=1,
            schedulers=schedulers,
        )  # fmt: skip
        self.exchanges = Exchanges(self.simulation.loop.time)
        self._random = random
        self._hints = hints
        self._answers: list[Callable[[], Any]] = []
        self.ran: Counter[tuple[str, str | None]] = Counter()

    def scheduler(self, number: int = 1) -> Scheduler:
        """One of its schedulers."""
        scheduler = self.simulation.processes[f"scheduler{number}"].scheduler
        assert scheduler is not None
        return scheduler

    def run_until(self, end_s: float) -> None:
        """Everything up to a moment."""
        simulation = self.simulation
        for _ in range(STEPS_MAX_COUNT):
            if self.run_one():
                continue
            timer_s = simulation.loop.next_timer_s()
            if timer_s is None or timer_s > end_s:
                simulation.loop.move_to(end_s)
                return
            simulation.loop.move_to(timer_s)
        raise AssertionError("G6 bounded lateness: a process asks again and again")

    def run_one(self) -> bool:
        """One thing that can happen now; False when nothing can."""
        simulation = self.simulation
        if not self._hints:
            simulation.hints.clear()
        ways: list[Callable[[], Any]] = [partial(self._run, stop) for stop in simulation.stops]
        ways += [partial(self._answer, position) for position in range(len(self._answers))]
        ways += [
            partial(simulation.deliver_hint, position) for position in range(len(simulation.hints))
        ]
        if ways:
            self._random.choice(ways)()
            simulation.loop.settle()
        return bool(ways)

    def _run(self, stop: Stop) -> None:
        """A hint about the effect of a command may arrive before the command's own reply."""
        self.ran[stop.process, self.simulation.script_of(stop)] += 1
        reply = self.simulation.execute(stop)
        self._answers.append(partial(stop.done.set_result, reply))

    def refuse(self, times: int) -> Callable[[Stop], None]:
        """Runs commands, but breaks the first ones of schedulers."""
        run, left = self._run, iter(range(times))

        def run_or_break(stop: Stop) -> None:
            broken = stop.process.startswith("scheduler") and next(left, None) is not None
            (self.simulation.break_connection if broken else run)(stop)

        return run_or_break

    def _answer(self, position: int) -> None:
        self._answers.pop(position)()

    def journal(self) -> list[Entry]:
        """Every transition so far."""
        simulation = self.simulation
        entries = simulation.cluster.client("one").xrange(simulation.shard.key("journal"))
        return journal_of(TOPIC, entries).entries


@contextmanager
def quiet(
    socket: str, seed: int, *, schedulers: int = 1, hints: bool = True
) -> Iterator[QuietSimulation]:
    """A topic in a simulation without sweeps; schedulers have not started."""
    with (
        mock.patch.object(Scheduler, "_sweep_s", property(lambda _: 1e6)),
        mock.patch.object(Scheduler, "_topics_interval_s", property(lambda _: 1e6)),
    ):
        it = QuietSimulation(socket, Random(seed), schedulers=schedulers, hints=hints)
        try:
            it.simulation.spawn(make_topic(it.simulation), "operator")
            it.run_until(0.001)
            yield it
        finally:
            it.simulation.close()
