"""The worker processes, and what they report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

STOP_TIMEOUT_S = 15.0


@dataclass(eq=False)
class Member:
    """One worker process.

    Attributes:
        holding: tasks it has started and not ended, with their attempts.
        ended: how many of its attempts ended in which way.
    """

    name: str
    process: asyncio.subprocess.Process
    holding: dict[str, int] = field(default_factory=dict)
    started: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    killed: bool = False

    @property
    def state(self) -> str:
        """For the table."""
        if self.killed:
            return "killed"
        return "at work" if self.process.returncode is None else "stopped"


@dataclass(eq=False)
class WorkerPool:
    """All workers of the demo.

    Attributes:
        runs: how often each task was started, over all workers.
        late_ms: how late each delivery was by the store's clock; below 0 would be early.
        retries: attempts that failed and were to be repeated.
        orphans: tasks that a killed worker held.
    """

    address: str
    members: list[Member] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)
    late_ms: list[float] = field(default_factory=list)
    retries: int = 0
    orphans: set[str] = field(default_factory=set)
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> Member:
        """Starts one more worker."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ddq.demo.worker",
            self.address,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Ctrl-C is for the demo, which then stops its workers.
            process_group=0,
        )
        member = Member(f"worker {len(self.members) + 1}", process)
        self.members.append(member)
        self._readers.append(asyncio.create_task(self._read(member), name=member.name))
        return member

    async def kill(self, member: Member) -> set[str]:
        """SIGKILL. Returns what it was working on, which only its leases remember now."""
        member.killed = True
        member.process.kill()
        await member.process.wait()
        # All that it had written is read before what it held is known.
        await asyncio.gather(self._readers[self.members.index(member)])
        self.orphans |= member.holding.keys()
        return set(member.holding)

    async def stop(self) -> None:
        """Lets all workers finish and stop."""
        for member in self.members:
            if member.process.stdin is not None:
                member.process.stdin.close()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            for member in self.members:
                await member.process.wait()
            await asyncio.gather(*self._readers)

    async def end(self) -> None:
        """Leaves no process behind, whatever happened."""
        for member in self.members:
            if member.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    member.process.kill()
            await member.process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _read(self, member: Member) -> None:
        assert member.process.stdout is not None
        async for line in member.process.stdout:
            self._note(member, json.loads(line))

    def _note(self, member: Member, report: dict[str, Any]) -> None:
        if report["event"] == "start":
            member.holding[report["id"]] = report["attempt"]
            member.started += 1
            self.runs[report["id"]] += 1
            self.late_ms.append(report["late_ms"])
        else:
            member.holding.pop(report["id"], None)
            member.ended[report["verdict"]] += 1
            self.retries += report["verdict"] == "nacked"
