"""The processes of ddq, and Toxiproxy, in containers beside the cluster's hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos.clusters.docker.cluster import DDQ, DockerCluster
from chaos.clusters.docker.container import at
from chaos.clusters.process.launch import Child
from chaos.faults.links import Toxiproxy
from chaos.systems.ddq.options import SystemOptions
from chaos.systems.ddq.process import Launcher
from chaos.systems.ddq.processes import ProcessSystem

_PYTHON = "/opt/ddq/bin/python"
_TOXIPROXY = Path("/usr/local/bin/toxiproxy-server")
_TOXIPROXY_LAST = 190
# Seeded mutations and failpoints are not part of an image; they come with the harness, which is
# mounted.
_HARNESS = "/opt/harness"
_HARNESS_FOLDERS = ("chaos", "models")


class DockerSystem(ProcessSystem):
    """``ddq serve`` and ``ddq scheduler``, each in a container with an address of its own.

    Args:
        folder: where logs go; below the cluster's own folder or beside it.
    """

    def __init__(
        self,
        cluster: DockerCluster,
        folder: Path,
        options: SystemOptions,
        *,
        maps: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._containers = cluster
        super().__init__(cluster, folder.absolute(), options, maps=maps)

    def _program(self, name: str, failpoint: Path | None) -> list[str]:
        arguments = self._options.python(name, failpoint)
        return [_PYTHON, *arguments] if arguments else [DDQ]

    def _launcher(self, name: str, ip: str) -> Launcher:
        root = Path(__file__).parents[3]
        harness = [f"{root / folder}:{_HARNESS}/{folder}:ro" for folder in _HARNESS_FOLDERS]
        harnessed = bool(self._options.mutation) or self._options.failpoints

        async def launch(
            command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str] | None = None
        ) -> Child:
            return await self._containers.launch_in(
                name,
                command,
                log=log,
                folder=cwd,
                env={**(env or {}), **({"PYTHONPATH": _HARNESS} if harnessed else {})},
                volumes=harness if harnessed else [],
                **at(self._containers.engine, self._containers.prefix, ip),
            )

        return launch

    @property
    def ips(self) -> list[str]:
        """Where connections come from that do not go through Toxiproxy."""
        return [process.ip for process in (*self.apis, *self.schedulers)]


class DockerToxiproxy(Toxiproxy):
    """A Toxiproxy in a container with an address of its own."""

    def __init__(self, cluster: DockerCluster, folder: Path) -> None:
        self.ip = cluster.net.ip(_TOXIPROXY_LAST)
        self._containers = cluster
        super().__init__(_TOXIPROXY, self.ip, folder.absolute())

    async def _launch(self, command: Sequence[str], log: Path) -> Child:
        return await self._containers.launch_in(
            "toxiproxy",
            command,
            log=log,
            folder=log.parent,
            **at(self._containers.engine, self._containers.prefix, self.ip),
        )
