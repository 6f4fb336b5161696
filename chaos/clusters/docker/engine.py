"""The container engine, asked from asyncio; everything that a run makes there bears its label."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import getpass
import hashlib
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import docker
import docker.errors
import requests.exceptions

from chaos.clusters import ClusterError, NotAvailableError
from chaos.eventually import eventually

# The run that a container, network or volume belongs to: the number of its net, which says by a
# lock whether the run is alive, see net.py.
RUN_LABEL = "ddq.chaos.run"
# Engines are shared; what another machine or user has there is not ours to sweep up.
OWNER_LABEL = "ddq.chaos.owner"
SOURCE_LABEL = "ddq.source"

IMAGE = "ddq-chaos:local"
_TIMEOUT_S = 60
_WORKERS = 8
_POLL_S = 0.01
_INSTALL = "install Debian's docker.io and iptables and start dockerd as root"

P = ParamSpec("P")
R = TypeVar("R")


def owner() -> str:
    """Who runs this: user and machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def why_unavailable(image: str = IMAGE) -> str | None:
    """Why no cluster can be had in containers here, and what would help; None if one can."""
    if not hasattr(os, "pidfd_open"):
        return f"containers are watched from Linux, and this is {sys.platform}"
    try:
        client = docker.from_env(timeout=_TIMEOUT_S)
        try:
            found = client.images.get(image)
        finally:
            client.close()
    except docker.errors.ImageNotFound:
        return f"there is no image {image}; run `make image`"
    except (docker.errors.DockerException, requests.exceptions.RequestException):
        return f"no container engine answers; {_INSTALL}"
    if found.labels.get(SOURCE_LABEL) != source_digest():
        return f"the image {image} holds another ddq than this folder; run `make image`"
    return None


def source_digest() -> str:
    """The digest of what tools/image.sh builds in: over the package's files, as sha256sum does.

    An image that was built before the last change would let yesterday's code pass today.
    """
    root = Path(__file__).parents[3]
    files = (path for path in (root / "ddq").rglob("*") if path.is_file())
    names = sorted(str(path.relative_to(root)) for path in files if path.suffix != ".pyc")
    lines = (
        f"{hashlib.sha256((root / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Engine:
    """The engine as one run uses it.

    Args:
        run: the number of the run's net.

    Raises:
        NotAvailableError: there is none.
    """

    def __init__(self, run: int) -> None:
        try:
            self.client = docker.from_env(timeout=_TIMEOUT_S)
            self.client.ping()
        except (docker.errors.DockerException, requests.exceptions.RequestException):
            raise NotAvailableError(f"no container engine answers; {_INSTALL}") from None
        self.labels = {RUN_LABEL: str(run), OWNER_LABEL: owner()}
        # Its library blocks; the loop's own threads are too few for a whole cluster at once.
        self._threads = concurrent.futures.ThreadPoolExecutor(_WORKERS, "engine")

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs one of its library's calls beside the loop.

        Raises:
            ClusterError: the engine said no; the message is its own.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))
        except docker.errors.APIError as error:
            raise ClusterError(f"the container engine refuses: {error.explanation}") from None
        except requests.exceptions.RequestException as error:
            raise ClusterError(f"the container engine does not answer: {error}") from None

    async def exec(self, container: Any, command: Sequence[str]) -> int:
        """Runs a command in a container as root; returns its exit status, when it has ended.

        Detached and asked for: what a command prints that ends at once may never arrive, nor its
        status, on a busy machine.
        """
        api = self.client.api
        made = await self.call(api.exec_create, container.id, list(command), user="root")
        await self.call(api.exec_start, made["Id"], detach=True)

        async def ended() -> tuple[int] | None:
            status = (await self.call(api.exec_inspect, made["Id"]))["ExitCode"]
            return None if status is None else (int(status),)

        (status,) = await eventually(ended, None, poll_s=_POLL_S)
        return status

    async def remove_all(self) -> None:
        """Removes whatever this run made."""
        await remove(self, self.labels)

    def close(self) -> None:
        """Ends the threads and the connection; nothing can be asked any more."""
        self._threads.shutdown(wait=False)
        self.client.close()


async def remove(engine: Engine, labels: Mapping[str, str]) -> list[str]:
    """Removes containers, networks and volumes with these labels; returns a line for each."""
    client = engine.client
    having: dict[str, Any] = {"label": [f"{name}={value}" for name, value in labels.items()]}
    containers = await engine.call(
        client.containers.list, all=True, filters=having, ignore_removed=True
    )
    # Their networks are those of the holders, which must go last.
    await asyncio.gather(*(engine.call(_force, each) for each in containers))
    networks = await engine.call(client.networks.list, filters=having)
    volumes = await engine.call(client.volumes.list, filters=having)
    for each in (*networks, *volumes):
        await engine.call(_remove, each)
    return [
        *(f"container {each.name}" for each in containers),
        *(f"network {each.name}" for each in networks),
        *(f"volume {each.name}" for each in volumes),
    ]


def _remove(thing: Any) -> None:
    # Another run may sweep at the same time.
    with contextlib.suppress(docker.errors.NotFound):
        thing.remove()


def _force(container: Any) -> None:
    try:
        container.remove(force=True, v=True)
    except docker.errors.NotFound:
        pass
    except docker.errors.APIError as error:
        # Another process is removing it.
        if error.status_code != 409:
            raise
