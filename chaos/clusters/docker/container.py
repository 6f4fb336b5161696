"""One program in a container, as a ``Child``: signals reach it, and its end is seen at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos.clusters import ClusterError
from chaos.clusters.docker.engine import IMAGE, Engine
from chaos.clusters.process.launch import Child, process_state

# In place of the shell, so that the program is what gets the signals.
_INTO_LOG = 'exec "$@" >>"$0" 2>&1'


class ContainerChild(Child):
    """A program that runs in a container; made by ``launch_container``.

    Lives through a descriptor of its process and not through the engine: on a busy machine that
    takes tenths of a second for a signal, and faults are timed.
    """

    def __init__(self, engine: Engine, container: Any, pid: int, log: Path) -> None:
        self._engine = engine
        self._container = container
        self._pid = pid
        self.log = log
        self._ended = asyncio.Event()
        self._descriptor: int | None = None
        with contextlib.suppress(ProcessLookupError):
            self._descriptor = os.pidfd_open(pid) if pid else None
        if self._descriptor is None:
            self._ended.set()
        else:
            asyncio.get_running_loop().add_reader(self._descriptor, self._end)

    def _end(self) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        self._ended.set()

    @property
    def pid(self) -> int:
        """As this machine counts, not the container."""
        return self._pid

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    @property
    def stopped(self) -> bool:
        """Whether the kernel says that it is stopped by a signal."""
        return self.alive and process_state(self._pid) == "T"

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; one that is gone does not mind."""
        if self._descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    async def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self.signal(signal.SIGKILL)
        await self._ended.wait()

    async def wait(self) -> int:
        """Waits until it ends; returns its exit status."""
        await self._ended.wait()
        status = await self._engine.call(self._container.wait)
        return int(status["StatusCode"])

    async def remove(self) -> None:
        """Removes the container of a program that has ended."""
        await self._engine.call(self._container.remove, force=True, v=True)


async def launch_container(
    engine: Engine,
    name: str,
    command: Sequence[str],
    *,
    folder: Path,
    log: Path,
    env: Mapping[str, str] | None = None,
    volumes: Sequence[str] = (),
    image: str = IMAGE,
    **options: Any,
) -> ContainerChild:
    """Starts a program in a container of its own; its output is appended to ``log``.

    Args:
        folder: of the run; there under the same path.
        volumes: further ones, as SOURCE:PATH.
        options: of the engine's library, as ``network_mode``.

    Raises:
        ClusterError: the engine refuses, or runs on another machine.
    """
    # The user of the harness reads, and removes, what the program writes.
    options.setdefault("user", f"{os.getuid()}:{os.getgid()}")
    container = await engine.call(
        engine.client.containers.create,
        image,
        ["sh", "-c", _INTO_LOG, str(log), *command],
        entrypoint=[],
        name=name,
        environment=dict(env or {}),
        labels=engine.labels,
        working_dir=str(folder),
        volumes=[f"{folder}:{folder}", *volumes],
        **options,
    )
    await engine.call(container.start)
    await engine.call(container.reload)
    # 0 of one that has ended by now.
    pid = int(container.attrs["State"]["Pid"])
    if pid and process_state(pid) is None and await _runs(engine, container):
        raise ClusterError("the container engine runs on another machine; use CLUSTER=process")
    return ContainerChild(engine, container, pid, log)


async def _runs(engine: Engine, container: Any) -> bool:
    await engine.call(container.reload)
    return bool(container.status == "running")


def at(engine: Engine, network: str, ip: str) -> dict[str, Any]:
    """Options that give a container a fixed address."""
    deployment = engine.client.api.create_endpoint_config(ipv4_address=ip)
    return {"network": network, "networking_config": {network: deployment}}
