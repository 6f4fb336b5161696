"""The parent of several processes, with processes that follow a plan."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ddq.config import StartupError
from ddq.health import Readiness
from ddq.processes import (
    ChildFailedError,
    ChildKilledError,
    Supervised,
    Supervisor,
    reserved_port,
    supervisor,
)
from ddq.processes.figures import Snapshot, lasting, merged, metrics_of, snapshot

DEADLINE_S = 30.0
STOP_S = 20.0

CHILD = """
import json, os, pathlib, signal, socket, sys
folder, number, fd = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
parent = socket.socket(fileno=fd)
plan = (folder / "plan").read_text()
def say(**document):
    parent.sendall(json.dumps(document).encode() + b"\\n")
def counted(value):
    reasons = {"store": "away"} if f"sick-{number}" in plan else {}
    say(reasons=reasons, metrics=[
        dict(name="c", kind="counter", doc="d", samples=[["c_total", {}, value]])
    ])
if "deaf" in plan:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0) if "hears" in plan else None)
else:
    signal.signal(signal.SIGTERM, lambda *_: (counted(5), sys.exit(0)))
if "fails" in plan:
    sys.exit(7)
if "dies" in plan:
    os.kill(os.getpid(), signal.SIGKILL)
say(ready={"number": number, "options": sys.stdin.read()})
for line in parent.makefile():
    counted(3)
"""


@dataclass
class Running:
    """A supervisor that runs.

    Attributes:
        lines: what it logs.
        infos: what it gave to on_ready.
    """

    supervisor: Supervisor
    folder: Path
    task: asyncio.Task[None]
    stop: asyncio.Event
    ready: asyncio.Event
    infos: list[dict[str, object]]
    lines: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    def plan(self, words: str) -> None:
        (self.folder / "plan").write_text(words)

    @property
    def pids(self) -> dict[int, int]:
        return {number: child.pid for number, child in self.supervisor._places.items()}

    async def said(self, words: str) -> str:
        """Waits for a log line."""
        async with asyncio.timeout(DEADLINE_S):
            while words not in (line := await self.lines.get()):
                pass
        return line

    async def figures(self) -> Snapshot:
        return await self.supervisor._figures()

    async def count(self) -> float:
        """What all processes have counted, as Prometheus would get it."""
        return value(await self.figures(), "c_total")


@asynccontextmanager
async def running(
    folder: Path, *, count: int = 2, plan: str = "", stop_s: float = STOP_S
) -> AsyncIterator[Running]:
    command = (sys.executable, "-S", "-c", CHILD, str(folder))
    made = Supervisor(Supervised(command, b"options", count, stop_s))
    stop, ready, infos = asyncio.Event(), asyncio.Event(), list[dict[str, object]]()

    def on_ready(info: dict[str, object]) -> None:
        infos.append(info)
        ready.set()

    (folder / "plan").write_text(plan)
    task = asyncio.create_task(made.run(stop, on_ready))
    task.add_done_callback(lambda _: ready.set())
    it = Running(made, folder, task, stop, ready, infos)

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            it.lines.put_nowait(record.getMessage())

    handler, log = Lines(), logging.getLogger("ddq.processes")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
        yield it
    finally:
        stop.set()
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
        await asyncio.wait({task}, timeout=DEADLINE_S)
        assert task.done()
        if not task.cancelled():
            task.exception()


def value(figures: Snapshot, name: str) -> float:
    (found,) = [v for f in figures for sample, _, v in f.samples if sample == name]
    return found


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_MIN_S", 0.0)


async def test_processes_get_their_number_and_their_options(tmp_path: Path) -> None:
    async with running(tmp_path, count=3) as it:
        assert it.infos == [{"number": "1", "options": "options"}]
        assert [child.info for child in it.supervisor._places.values()] == [
            {"number": str(number), "options": "options"} for number in (1, 2, 3)
        ]
        assert value(await it.figures(), "ddq_processes") == 3
        it.stop.set()
        await it.task


async def test_a_process_that_ends_is_replaced_and_what_it_counted_stays(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        assert await it.count() == 6
        before = it.pids
        os.kill(before[2], signal.SIGKILL)
        line = await it.said("another starts")
        assert line == f"process 2 (pid {before[2]}) was killed by SIGKILL; another starts in 0.0 s"
        await it.said("works")
        after = it.pids
        assert after[1] == before[1]
        assert after[2] != before[2]
        assert await it.count() == 9
        os.kill(after[1], signal.SIGTERM)
        await it.said("ended with exit status 0")
        await it.said("works")
        # It counted 5 in the end.
        assert await it.count() == 14
        assert value(await it.figures(), "ddq_process_ends_total") == 2


async def test_the_delay_grows_while_processes_fail_at_their_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as it:
        monkeypatch.setattr(supervisor, "BACKOFF_MIN_S", 0.06)
        monkeypatch.setattr(supervisor, "BACKOFF_MAX_S", 0.3)
        it.plan("fails")
        os.kill(it.pids[1], signal.SIGKILL)
        lines = [await it.said("another starts") for _ in range(5)]
        assert [line.rpartition(" in ")[2] for line in lines] == [
            "0.1 s", "0.1 s", "0.2 s", "0.3 s", "0.3 s",
        ]  # fmt: skip
        assert "ended with exit status 7 before it worked" in lines[-1]
        assert value(await it.figures(), "ddq_processes") == 1, "the other one works"
        it.plan("")
        await it.said("works")
        assert value(await it.figures(), "ddq_processes") == 2


async def test_a_process_that_fails_at_the_start_ends_all_with_its_status(tmp_path: Path) -> None:
    async with running(tmp_path, plan="fails") as it:
        with pytest.raises(ChildFailedError) as caught:
            await it.task
        assert caught.value.status == 7
        assert not it.infos
        assert it.lines.empty(), "the process has said why"


async def test_a_process_that_is_killed_at_the_start_is_named(tmp_path: Path) -> None:
    async with running(tmp_path, plan="dies") as it:
        with pytest.raises(ChildKilledError, match=r"process 1 \(pid .*killed by SIGKILL before"):
            await it.task


async def test_a_reload_replaces_all_and_counts_on(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        before = it.pids
        it.supervisor.reload()
        await it.said("reload: done")
        assert not {*before.values()} & {*it.pids.values()}
        for pid in before.values():
            await gone(pid)
        # The old ones counted 5 each in the end, the new ones 3.
        assert await it.count() == 16
        assert value(await it.figures(), "ddq_process_ends_total") == 0


async def test_a_reload_that_fails_leaves_those_that_work(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        before = it.pids
        it.plan("fails")
        it.supervisor.reload()
        assert "exit status 7 before it worked" in await it.said("reload: it ends here")
        assert it.pids == before
        it.plan("")
        it.supervisor.reload()
        await it.said("reload: done")


async def test_a_process_that_does_not_stop_is_killed_and_named(tmp_path: Path) -> None:
    async with running(tmp_path, plan="deaf", stop_s=0.2) as it:
        pids = it.pids
        it.stop.set()
        with pytest.raises(ChildKilledError, match=r"process 2 .* did not end within 0\.2 s"):
            await it.task
        for pid in pids.values():
            await gone(pid)


async def test_a_second_signal_reaches_the_processes(tmp_path: Path) -> None:
    async with running(tmp_path, plan="deaf, hears the second one") as it:
        it.stop.set()
        while not it.supervisor._ending:  # noqa: ASYNC110 - it has no event of its own
            await asyncio.sleep(0)
        it.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await it.task
        assert not it.supervisor._alive


async def gone(pid: int) -> None:
    """Waits until a process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await asyncio.to_thread(select.select, [descriptor], [], [], DEADLINE_S)
    finally:
        os.close(descriptor)


# The port -------------------------------------------------------------------------------------


def bound(port: int, *, address: str = "127.0.0.1", reuse: bool, share: bool) -> None:
    """Listens as another program might; OSError if it may not."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
        sock.bind((address, port))
        sock.listen()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])  # noqa: S104
def test_a_port_is_kept_for_those_that_share_it(host: str) -> None:
    with reserved_port(f"{host}:0") as address:
        name, _, port = address.rpartition(":")
        assert (name, port != "0") == (host, True)
        bound(int(port), reuse=True, share=True)
        for reuse in (True, False):
            with pytest.raises(OSError, match="in use"):
                bound(int(port), reuse=reuse, share=False)
        with pytest.raises(StartupError, match="in use"), reserved_port(address):
            pass
    bound(int(port), reuse=False, share=False)


@pytest.mark.parametrize("share", [True, False])
def test_a_port_on_which_another_program_listens_is_refused(share: bool) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104
            listen = f"{host}:{sock.getsockname()[1]}"
            with pytest.raises(StartupError, match=r"in use .* another"), reserved_port(listen):
                pass


def test_an_address_of_another_machine_is_refused() -> None:
    with (
        pytest.raises(StartupError, match="not this machine's; choose another"),
        reserved_port("192.0.2.1:0"),
    ):
        pass
    with pytest.raises(StartupError, match="cannot listen on"), reserved_port("no.invalid:0"):
        pass


async def test_one_process_that_is_ready_is_enough(tmp_path: Path) -> None:
    async with running(tmp_path, plan="sick-2") as it:
        await it.ready.wait()
        found = await asyncio.to_thread(it.supervisor.readiness)
        reason = f"process 2 (pid {it.pids[2]}): store"
        assert found == Readiness(True, {reason: "away"})
    async with running(tmp_path, plan="sick-1 sick-2") as it:
        await it.ready.wait()
        found = await asyncio.to_thread(it.supervisor.readiness)
        assert (found.ready, len(found.reasons)) == (False, 2)


async def test_processes_that_do_not_work_are_a_reason(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        await it.ready.wait()
        it.plan("dies")
        os.kill(it.pids[1], signal.SIGKILL)
        await it.said("another starts")
        found = await asyncio.to_thread(it.supervisor.readiness)
        assert found == Readiness(True, {"processes": "1 of 2 work"})


# The metrics ----------------------------------------------------------------------------------


def registry(fill: Callable[[CollectorRegistry], None]) -> Snapshot:
    made = CollectorRegistry()
    fill(made)
    return snapshot(made)


def test_counters_and_histograms_are_added_and_gauges_by_their_rule() -> None:
    def one(size: int) -> Snapshot:
        def fill(into: CollectorRegistry) -> None:
            Counter("n_total", "d", ["l"], registry=into).labels("x").inc(size)
            Counter("only_total", "d", ["l"], registry=into).labels(str(size)).inc()
            Histogram("h", "d", buckets=(1, 10), registry=into).observe(size)
            Gauge("ddq_rpcs_running", "d", registry=into).set(size)
            Gauge("ddq_serving", "d", registry=into).set(size)
            Gauge("ddq_tasks", "d", ["state"], registry=into).labels("ready").set(size)
            Gauge("process_start_time_seconds", "d", registry=into).set(size)

        return registry(fill)

    def values(given: Snapshot) -> dict[str, float]:
        return {
            name + "".join(f"/{label}" for label in labels.values()): value
            for family in given
            for name, labels, value in family.samples
            if not name.endswith("_created")
        }

    both = merged([one(2), one(5)])
    assert values(both) == {
        "n_total/x": 7, "only_total/2": 1, "only_total/5": 1,
        "h_bucket/1.0": 0, "h_bucket/10.0": 2, "h_bucket/+Inf": 2, "h_count": 2, "h_sum": 7,
        "ddq_rpcs_running": 7, "ddq_serving": 2, "ddq_tasks/ready": 5,
        "process_start_time_seconds": 2,
    }  # fmt: skip
    assert {family.name for family in lasting(both)} == {"n", "only", "h"}
    created = [v for f in both for name, _, v in f.samples if name == "n_created"]
    first = [v for f in one(1) for name, _, v in f.samples if name == "n_created"]
    assert created < first, "the time at which the first one began, not a sum"
    assert {metric.type for metric in metrics_of(both)} == {"counter", "histogram", "gauge"}
