"""The embedded store: durable, private, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import pytest
import redis

from ddq.store.embedded import EmbeddedStore, StoreStartError

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


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def test_every_write_is_synced_and_no_port_is_open(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    await store.start()
    try:
        client = redis.Redis(unix_socket_path=str(store.socket_path), decode_responses=True)
        wanted = {
            "appendonly": "yes", "appendfsync": "always", "port": "0", "save": "",
            "maxmemory-policy": "noeviction",
        }  # fmt: skip
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        assert stat.S_IMODE(store.socket_path.stat().st_mode) & 0o077 == 0
        client.close()
    finally:
        await store.stop()
    assert not store.socket_path.exists()


async def test_data_of_the_store_survives_a_restart(tmp_path: Path) -> None:
    for expected in (None, b"1"):
        store = EmbeddedStore(tmp_path)
        await store.start()
        client = redis.Redis(unix_socket_path=str(store.socket_path))
        assert client.get("key") == expected
        client.set("key", 1)
        client.close()
        await store.stop()


async def test_a_folder_has_one_server(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    await store.start()
    try:
        with pytest.raises(StoreStartError, match="is in use by another ddq"):
            await EmbeddedStore(tmp_path).start()
        # The one that was refused has not taken the other's socket along.
        assert store.socket_path.exists()
    finally:
        await store.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the signal is Linux's")
async def test_the_store_dies_with_its_killed_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    async with asyncio.timeout(10):
        while is_alive(pid):  # noqa: ASYNC110 - the end of a grandchild has no event
            await asyncio.sleep(0.01)


async def test_a_folder_that_cannot_be_used_is_said_to(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreStartError, match="cannot be used") as caught:
        await EmbeddedStore(blocked / "data").start()
    assert "\n" not in str(caught.value)


async def test_a_long_path_has_its_socket_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    store = EmbeddedStore(folder)
    assert not store.socket_path.is_relative_to(folder)
    await store.start()
    await store.stop()
