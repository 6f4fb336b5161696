"""The feed of hints holds on to the present master, and looks at everything after each change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from ddq.store import subscription
from ddq.store.hints import Hint, HintFeed, ReadyHint, Reset
from ddq.store.keys import ShardId
from ddq.store.topology import SentinelTopology, open_topology, parse_store_url
from tests.support.fake_redis import FakeNode, FakeSentinel, running, until

READY = ReadyHint(ShardId("mail", 0), 1)


class Scene:
    """A Sentinel, a master and a replica, and a feed that is running."""

    def __init__(self) -> None:
        self.sentinel = FakeSentinel()
        self.old = FakeNode("master")
        self.new = FakeNode("slave")
        self.received: list[Hint] = []
        self.topology: SentinelTopology

    def fail_over(self) -> None:
        self.old.role, self.new.role = "slave", "master"
        self.sentinel.master, self.sentinel.epoch = self.new.node, 2

    async def find(self) -> None:
        await self.topology.node_of("any", asyncio.get_running_loop().time() + 20)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    async with running(scene.sentinel, scene.old, scene.new):
        scene.sentinel.master = scene.old.node
        topology = open_topology(parse_store_url(f"sentinel://{scene.sentinel.node}/main"))
        assert isinstance(topology, SentinelTopology)
        scene.topology = topology
        feed = HintFeed(topology)
        feed.listen(scene.received.append)
        task = asyncio.create_task(feed.run())
        try:
            await scene.old.subscribed.wait()
            await until(lambda: scene.received == [Reset()])
            yield scene
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await topology.close()


async def test_hints_arrive_and_noise_does_not(scene: Scene) -> None:
    scene.old.publish("ddq:hints", "noise")
    scene.old.publish("ddq:hints", "ready {mail} 1")
    await until(lambda: scene.received == [Reset(), READY])


async def test_a_lost_connection_is_reopened_and_everything_is_looked_at(scene: Scene) -> None:
    scene.old.drop()
    await until(lambda: scene.received == [Reset(), Reset()])
    scene.old.publish("ddq:hints", "ready {mail} 1")
    await until(lambda: scene.received[-1] == READY)


async def test_a_change_of_master_is_followed_at_once(scene: Scene) -> None:
    scene.fail_over()
    scene.topology.suspect(scene.old.node, "READONLY")
    await scene.find()
    await scene.new.subscribed.wait()
    await until(lambda: scene.received == [Reset(), Reset()])
    scene.new.publish("ddq:hints", "ready {mail} 1")
    await until(lambda: scene.received[-1] == READY)


async def test_a_connection_that_fell_silent_is_given_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    # These apply to the next subscription; this one keeps its long time-out.
    monkeypatch.setattr(subscription, "SILENCE_MAX_S", 0.2)
    monkeypatch.setattr(subscription, "PING_INTERVAL_S", 0.02)
    scene.old.drop()
    await until(lambda: scene.old.commands.count(("PING",)) >= 20)
    assert scene.received == [Reset(), Reset()], "what answers is not silent"
    scene.old.hangs = True
    await until(lambda: "silent for 0.2 s" in caplog.text)
    scene.old.hangs = False
    await until(lambda: len(scene.received) == 3)
