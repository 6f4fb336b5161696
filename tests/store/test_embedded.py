"""The embedded store: its data is found again, and its process is never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis

from ddq.config import Settings
from ddq.store.embedded import EmbeddedStore, StoreStartError
from tests.support.queue import Queue
from tests.support.store import ControlledStore, StoreServer

TIMEOUT_S = 30.0


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    """Short enough for the path of a socket."""
    with TemporaryDirectory(prefix="ddq-test-") as name:
        yield Path(name)


async def test_data_is_found_again_after_a_stop_and_after_a_kill(folder: Path) -> None:
    for kill in (False, True, None):
        store = EmbeddedStore(folder / "data")
        await store.start()
        server = StoreServer(store.socket_path)
        controlled = ControlledStore(server, Settings(), real_time=True)
        queue = Queue(controlled)
        found = {key for key in ("False", "True") if server.sync.exists("ddq:topics")}
        if kill is not None:
            await queue.create()
            await queue.add(str(kill), f"payload {kill}".encode(), delay_ms=60_000)
        else:
            assert found
            for task_id in ("False", "True"):
                assert (await queue.get(task_id)).payload == f"payload {task_id}".encode()
        await controlled.close()
        server.sync.close()
        if kill:
            os.kill(store.pid, signal.SIGKILL)
            assert await store.wait() == -signal.SIGKILL
        await store.stop()
        assert not store.socket_path.exists()


async def test_it_syncs_every_write_keeps_everything_and_listens_nowhere_else(
    folder: Path,
) -> None:
    store = EmbeddedStore(folder)
    await store.start()
    try:
        client = redis.Redis(unix_socket_path=str(store.socket_path), decode_responses=True)
        settings: Any = client.config_get("*")
        wanted = {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "port": "0",
            "save": "",
        }
        assert {name: settings[name] for name in wanted} == wanted
        assert store.socket_path.stat().st_mode & 0o077 == 0
        client.close()
    finally:
        await store.stop()


async def test_two_do_not_share_a_folder(folder: Path) -> None:
    first = EmbeddedStore(folder)
    await first.start()
    try:
        with pytest.raises(StoreStartError, match="in use by another ddq"):
            await EmbeddedStore(folder).start()
        client = redis.Redis(unix_socket_path=str(first.socket_path))
        assert client.ping(), "the attempt did not disturb the first"
        client.close()
    finally:
        await first.stop()
    second = EmbeddedStore(folder)
    await second.start()
    await second.stop()


async def test_a_folder_that_cannot_be_used_is_named(folder: Path) -> None:
    taken = folder / "file"
    taken.write_text("not a folder")
    with pytest.raises(StoreStartError, match=str(taken)):
        await EmbeddedStore(taken).start()


async def test_a_file_that_valkey_cannot_load_is_said_with_its_log(folder: Path) -> None:
    (folder / "appendonlydir").mkdir()
    manifest = folder / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("this is not a manifest\n")
    with pytest.raises(StoreStartError, match=r"valkey\.log"):
        await EmbeddedStore(folder).start()


async def test_a_folder_with_a_long_path_works(folder: Path) -> None:
    store = EmbeddedStore(folder / ("x" * 120))
    await store.start()
    try:
        assert len(os.fsencode(store.socket_path)) < 108
        client = redis.Redis(unix_socket_path=str(store.socket_path))
        assert client.ping()
        client.close()
    finally:
        await store.stop()
    assert not store.socket_path.exists()


PARENT = """
import asyncio, sys
from pathlib import Path
from ddq.store.embedded import EmbeddedStore

async def main():
    store = EmbeddedStore(Path(sys.argv[1]))
    await store.start()
    print(store.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_no_process_is_left_behind_by_a_parent_that_is_killed(
    folder: Path, how: signal.Signals
) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        pid = int(await parent.stdout.readline())
    ended = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    try:
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        assert not ended.is_set()
        parent.send_signal(how)
        async with asyncio.timeout(TIMEOUT_S):
            await parent.wait()
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
    # Nothing holds the folder: it can be used at once.
    store = EmbeddedStore(folder)
    await store.start()
    await store.stop()
