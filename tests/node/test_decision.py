"""What a data node may start as: the table of cases, and the waiting until one is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from ddq.node import Follow, Lead, NodeOptions, Refuse, SentinelAnswer, Wait, decide, wait_for_role
from ddq.node.config import DEFAULTS, write_config
from ddq.node.run import NodeStartError
from ddq.node.sentinels import Sentinels

OWN, OTHER, THIRD = "10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.3:7000"


def views(*masters: str, replicas: int = 2, epoch: int = 0) -> list[SentinelAnswer]:
    return [SentinelAnswer(master, replicas, epoch) for master in masters]


@pytest.mark.parametrize(
    ("answers", "flags", "expected"),
    [
        # A node that is down already follows the master that a majority names.
        (views(OTHER, OTHER, OTHER), {}, Follow(OTHER)),
        (views(OTHER, OTHER, OWN), {}, Follow(OTHER)),
        (views(OTHER, OTHER), {}, Follow(OTHER)),
        # One Sentinel alone, cut off from the others, may name any node.
        (views(OTHER), {}, Wait),
        (views(), {}, Wait),
        (views(OTHER, THIRD, OWN), {}, Wait),
        # The heart of it.
        (views(OWN, OWN, OWN), {}, Wait),
        (views(OWN, OWN, OTHER), {}, Wait),
        # A new cluster, and what looks like one to a Sentinel or two.
        (views(OWN, OWN, OWN, replicas=0), {"bootstrap": True}, Lead),
        (views(OWN, OWN, OWN, replicas=0), {}, Wait),
        (views(OWN, replicas=0), {"bootstrap": True}, Wait),
        (views(OWN, OWN, replicas=0) + views(OWN), {"bootstrap": True}, Wait),
        (views(OWN, OWN, OWN, replicas=0, epoch=1), {"bootstrap": True}, Wait),
        # The flag may stay where it is for ever.
        (views(OWN, OWN, OWN), {"bootstrap": True}, Wait),
        (views(OTHER, OTHER, OTHER), {"bootstrap": True}, Follow(OTHER)),
        # An operator's word counts unless a majority knows better.
        (views(OWN, OWN, OWN), {"force_master": True}, Lead),
        (views(), {"force_master": True}, Lead),
        (views(OTHER), {"force_master": True}, Lead),
        (views(OTHER, OTHER), {"force_master": True}, Refuse),
    ],
)
def test_role_of_a_starting_node(
    answers: list[SentinelAnswer], flags: dict[str, bool], expected: Follow | type
) -> None:
    decision = decide(answers, sentinels_count=3, own=OWN, **flags)
    if isinstance(expected, type):
        assert isinstance(decision, expected), decision
    else:
        assert decision == expected


class FakeSentinel:
    """Names the ``master`` that it was given; None means that it hangs."""

    def __init__(self, master: str | None) -> None:
        self.master = master
        self.asked = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[tuple[str, int]]:
        async with AsyncExitStack() as stack:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            stack.callback(server.close)
            host, port = server.sockets[0].getsockname()
            yield host, port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while header := await reader.readline():
            words = []
            for _ in range(int(header[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2].decode())
            if words[0] == "SENTINEL":
                self.asked.set()
                if self.master is None:
                    continue
                ip, _, port = self.master.rpartition(":")
                answer = ["ip", ip, "port", port, "num-slaves", "2", "config-epoch", "1",
                          "flags", "master"]  # fmt: skip
                writer.write(b"*%d\r\n" % len(answer))
                writer.writelines(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in answer)
            else:
                writer.write(b"+OK\r\n")
        writer.close()


@asynccontextmanager
async def three(*masters: str | None) -> AsyncIterator[tuple[list[FakeSentinel], Sentinels]]:
    async with AsyncExitStack() as stack:
        fakes = [FakeSentinel(master) for master in masters]
        addresses = [await stack.enter_async_context(fake.listening()) for fake in fakes]
        yield fakes, Sentinels(addresses, "mymaster", timeout_s=0.2)


def options(sentinels: Sentinels, *, force_master: bool = False) -> NodeOptions:
    return NodeOptions(
        data=Path("/nonexistent"),
        ip="10.0.0.1",
        port=7000,
        sentinels=sentinels,
        server=Path("/nonexistent"),
        force_master=force_master,
    )


async def test_it_waits_until_a_majority_names_another(caplog: pytest.LogCaptureFixture) -> None:
    async with three(OWN, OWN, None) as (fakes, sentinels):
        waiting = asyncio.create_task(wait_for_role(options(sentinels)))
        fakes[0].master = OTHER
        for fake in fakes[:2]:
            fake.asked.clear()
            await fake.asked.wait()
        # One for, one against, one that hangs: not yet.
        assert not waiting.done()
        fakes[1].master = OTHER
        assert await waiting == Follow(OTHER)
    lines = [record.getMessage() for record in caplog.records]
    assert any("no majority" in line and "does not answer" in line for line in lines)


async def test_a_node_that_is_forced_to_lead_against_a_majority_is_refused() -> None:
    async with three(OTHER, OTHER, OTHER) as (_, sentinels):
        with pytest.raises(NodeStartError, match=f"names {OTHER}"):
            await wait_for_role(options(sentinels, force_master=True))


def test_role_of_a_node_comes_from_the_sentinels_and_not_from_its_file(tmp_path: Path) -> None:
    template = "REPLICAOF 9.9.9.9 1\nport 1\nappendfsync always\ndir /elsewhere\n# a remark\n"
    data = tmp_path / 'with "quotes"'
    data.mkdir()
    path = write_config(data, template, port=7000, role=Follow(OTHER))
    assert path.read_text().splitlines() == [
        "appendfsync always",
        "# a remark",
        "port 7000",
        f'dir "{tmp_path}/with \\"quotes\\""',
        "replicaof 10.0.0.2 7000",
    ]
    assert path.stat().st_mode & 0o077 == 0
    # The next life has nothing of the last one in it.
    assert "replicaof" not in write_config(data, DEFAULTS, port=7, role=Lead("x")).read_text()
