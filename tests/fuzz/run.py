"""One run: a store, a server with a scheduler, a healthy client, and what attacks the server."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.bench import processes
from tests.fuzz.traffic import Tally, attack, linger, make_calls
from tools.repo import ROOT

ATTACK_SHARE = 0.5
"""Connections that break the protocol, among all."""
SLOW_COUNT = 40
"""Connections that send slowly or nothing, at every moment."""
TRANSFER_TIMEOUT_MS = 10_000
MIB = 1 << 20
SAMPLE_S = 0.5
GROWTH_MAX_SHARE = 1.15
GROWTH_MAX_MIB = 32.0
"""The memory of the last quarter may exceed that of the second by so much: what arrives at once
differs from one moment to the next."""
HEALTHY_TIMEOUT_S = 180.0


@dataclass
class Report:
    """What a run found.

    Attributes:
        codes: RPCs by code and reason, as the server counts them.
        memory_mib: of the server, over time.
        healthy: what the healthy client says.
        log_lines: of the server that say ERROR or CRITICAL, or belong to a traceback.
        ended: how the server ended by itself; None: it works.
    """

    seed: int
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    codes: dict[str, int] = field(default_factory=dict)
    memory_mib: list[float] = field(default_factory=list)
    healthy: dict[str, Any] = field(default_factory=dict)
    log_lines: list[str] = field(default_factory=list)
    ended: int | None = None

    def quarters_mib(self) -> tuple[float, float]:
        """The median memory of the second quarter of the run, and of the last."""
        values = self.memory_mib or [0.0]
        quarter = max(1, len(values) // 4)
        second = sorted(values[quarter : 2 * quarter] or values)
        last = sorted(values[-quarter:])
        return second[len(second) // 2], last[len(last) // 2]

    def faults(self) -> list[str]:
        """What should not have happened, a line each."""
        found = []
        if self.ended is not None:
            found.append(f"the server ended with status {self.ended}")
        found += [f"the log says: {line}" for line in self.log_lines[:5]]
        found += [
            f"{count} RPCs ended with {code}"
            for code, count in self.codes.items()
            if code.startswith(("INTERNAL", "UNKNOWN", "DATA_LOSS"))
        ]
        if unanswered := self.tally.ended["unanswered"]:
            paths = _pairs(self.tally.unanswered)
            found.append(f"{unanswered} calls were not answered: {paths}")
        before, after = self.quarters_mib()
        if after > before * GROWTH_MAX_SHARE + GROWTH_MAX_MIB:
            found.append(f"the memory grew from {before:.0f} to {after:.0f} MiB")
        if not self.healthy.get("acknowledged"):
            found.append("the healthy client got nothing done")
        found += [
            f"the healthy client: {name} {self.healthy[name]}"
            for name in ("missing", "foreign", "wrong")
            if self.healthy.get(name)
        ]
        return found

    def lines(self) -> list[str]:
        """For people."""
        before, after = self.quarters_mib()
        rate = self.tally.count / self.seconds if self.seconds else 0.0
        healthy = self.healthy
        memory = (
            f"{before:.0f} in the second quarter, {after:.0f} in the last, "
            f"{max(self.memory_mib, default=0.0):.0f} at most"
        )
        times = (
            f"enqueue p50 / p99 / max {_triple(healthy.get('call_ms'))} ms, "
            f"late {_triple(healthy.get('late_ms'))} ms"
        )
        done = (
            f"{healthy.get('acknowledged', 0):,} tasks acknowledged, "
            f"{len(healthy.get('missing', []))} missing"
        )
        errors = _pairs(healthy.get("errors", {})) or "none"
        return [
            f"seed {self.seed}: {self.tally.count:,} requests, {self.seconds:.0f} s, {rate:.0f}/s",
            f"sent: {_pairs(self.tally.sent)}",
            f"ended: {_pairs(self.tally.ended)}",
            f"RPCs by the server's count: {_pairs(self.codes)}",
            f"memory of the server in MiB: {memory}",
            f"healthy client: {done}; {times}; errors: {errors}",
        ]


def _pairs(values: dict[str, int]) -> str:
    ordered = sorted(values.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered)


def _triple(values: list[float] | None) -> str:
    return " / ".join(f"{value:,.0f}" for value in values or [])


async def run(
    folder: Path,
    requests: int,
    seed: int,
    *,
    connections: int,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Sends so many requests to a server of its own, and says what it found.

    Args:
        folder: for the store and the logs; empty.
        connections: that send at the same time.
        say: is given a line about the progress now and then.
    """
    report = Report(seed)
    port, metrics = processes.free_port(), processes.free_port()
    log = folder / "server.log"
    async with processes.store(folder) as (store_port, _):
        command = [
            str(Path(sys.executable).with_name("ddq")), "serve", "--scheduler",
            "--store", f"redis://127.0.0.1:{store_port}/0", "--listen", f"127.0.0.1:{port}",
            "--metrics-listen", f"127.0.0.1:{metrics}", "--durability", "fast",
            "--transfer-timeout-ms", str(TRANSFER_TIMEOUT_MS),
        ]  # fmt: skip
        async with processes.running(command, log, port=port, says="on 127.0.0.1") as pid:
            async with _healthy(port, report), _sampled(pid, report):
                began_s = time.monotonic()
                await _hostile(port, requests, seed, connections, report.tally, say)
                report.seconds = time.monotonic() - began_s
            report.codes = await asyncio.to_thread(_codes, metrics)
            report.ended = _ended(pid)
    report.log_lines = _bad_lines(log)
    return report


async def _hostile(
    port: int,
    requests: int,
    seed: int,
    connections: int,
    tally: Tally,
    say: Callable[[str], None],
) -> None:
    """Attacks from several connections at a time, until so many requests were sent."""
    random = Random(seed)

    async def sender(source: Random) -> None:
        while tally.count < requests:
            try:
                if source.random() < ATTACK_SHARE:
                    await attack(port, source, tally)
                else:
                    await make_calls(port, source, tally, requests)
            except OSError as error:
                tally.ended[f"not connected: {type(error).__name__}"] += 1
                await asyncio.sleep(0.1)

    async def slow(source: Random) -> None:
        while True:
            with suppress(OSError):
                await linger(port, source, tally)
            await asyncio.sleep(0.1)

    async def progress() -> None:
        while True:
            await asyncio.sleep(30)
            say(f"{tally.count:,} of {requests:,} requests")

    beside = [asyncio.create_task(slow(Random(random.random()))) for _ in range(SLOW_COUNT)]
    beside.append(asyncio.create_task(progress()))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(sender(Random(random.random())))
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


@asynccontextmanager
async def _healthy(port: int, report: Report) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fuzz.healthy", f"127.0.0.1:{port}",
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(HEALTHY_TIMEOUT_S):
            output, _ = await process.communicate()
        if output:
            report.healthy = json.loads(output)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def _sampled(pid: int, report: Report) -> AsyncIterator[None]:
    async def sample() -> None:
        while True:
            with suppress(OSError):
                report.memory_mib.append(processes.resident_bytes(pid) / MIB)
            await asyncio.sleep(SAMPLE_S)

    sampling = asyncio.create_task(sample())
    try:
        yield
    finally:
        sampling.cancel()


def _ended(pid: int) -> int | None:
    """How the server ended, if it did: it is a child whose status was not read."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return -1
    return -1 if state == "Z" else None


def _codes(metrics: int) -> dict[str, int]:
    """What the server counts, by code and reason."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    found: dict[str, int] = {}
    for labels, value in re.findall(r"^ddq_rpcs_total\{([^}]*)\} (\S+)$", text, re.MULTILINE):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        name = pairs["code"]
        if pairs["reason"] not in {"", name}:
            name += f" {pairs['reason']}"
        if count := int(float(value)):
            found[name] = found.get(name, 0) + count
    return found


def _bad_lines(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if re.search(r"Traceback|ERROR|CRITICAL|Error:|error:", line)]
