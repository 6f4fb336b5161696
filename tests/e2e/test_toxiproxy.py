"""Bad connections, by the Toxiproxy that tools/go pins."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from chaos.clusters import ClusterError
from chaos.clusters.process import SentinelCluster
from chaos.faults import KINDS, FaultContext, FaultRow
from chaos.faults.links import STORE_HELLO, Toxiproxy
from chaos.faults.nemesis import FaultEvent, FaultPhase, Schedule, Step, play
from tools.repo import ROOT


async def test_every_kind_of_bad_connection_happens_and_is_undone(tmp_path: Path) -> None:
    built = subprocess.run(  # noqa: ASYNC221
        [ROOT / "tools" / "gotool.sh", "server"], check=True, capture_output=True, text=True
    )
    cluster = SentinelCluster(folder=tmp_path)
    toxiproxy = Toxiproxy(Path(built.stdout.strip()), cluster.net.ip(210), tmp_path)
    try:
        await cluster.start()
        await toxiproxy.start()
        addresses = [node.address for node in cluster.data]
        link = await toxiproxy.link("api-store", addresses, STORE_HELLO)
        context = FaultContext(cluster, links={link.name: link})

        kinds = [each for each in KINDS if each.row is FaultRow.CONNECTIONS]
        steps = [
            Step(
                each.name,
                link.name,
                {name: values[-1] for name, values in each.strengths.items()},
                settle=False,
            )
            for each in kinds
        ]
        events: list[FaultEvent] = []
        await play(Schedule((tuple(steps),), down_after_ms=1_000), context, events.append)
        assert [(event.step.kind, event.phase) for event in events] == [
            (each.name, phase)
            for each in kinds
            for phase in (
                FaultPhase.BEGUN,
                FaultPhase.INJECTED,
                FaultPhase.VERIFIED,
                FaultPhase.HEALED,
            )
        ]
        assert await link.toxics() == [set(), set(), set()]
        assert None not in await link.answer_s(2.0)

        with pytest.raises(ClusterError, match="there already"):
            await toxiproxy.link("api-store", addresses, STORE_HELLO)
    finally:
        await toxiproxy.stop()
        await cluster.stop()
