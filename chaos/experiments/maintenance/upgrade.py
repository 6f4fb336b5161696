"""A rolling upgrade from the release before this one, as docs/OPERATIONS.md describes it."""

from __future__ import annotations

from chaos.experiments.maintenance.story import Stage, Story
from chaos.systems.ddq.previous_release import PREVIOUS
from ddq.client import Durability, TopicSettings


async def upgrade(stage: Stage) -> None:
    """Schedulers of this version beside the old servers, then server after server.

    0.1.0 has no schedulers but its servers: were those replaced first, tasks would wait for the
    first scheduler.
    """
    system = stage.deployment.system
    for scheduler in system.schedulers:
        async with stage.step("start", scheduler.name):
            await scheduler.restart()
    for api in system.apis:
        async with stage.step("upgrade", api.name):
            await system.terminate(api)
            await system.upgrade(api)
            await system.wait_until_serving()
    async with stage.step("durability", "quorum"):
        # What an old topic has is FAST, which is all that the old servers knew.
        settings = TopicSettings(durability=Durability.QUORUM)
        for topic in stage.topics:
            await stage.client.update_topic(topic, settings)


UPGRADE = Story(
    f"a rolling upgrade from {PREVIOUS} loses nothing, and fails no request that has 30 s",
    upgrade,
    earlier=True,
)

__all__ = ["UPGRADE", "upgrade"]
