"""A rolling upgrade from the previous release, as docs/OPERATIONS.md describes it."""

from __future__ import annotations

from chaos.experiments.maintenance.procedure import Procedure
from chaos.experiments.recorded import RecordedSession
from chaos.systems.ddq.previous_release import PREVIOUS
from ddq.client import Durability, TopicSettings


async def upgrade(session: RecordedSession) -> None:
    """Schedulers of this version beside the old servers, then server after server.

    0.1.0 has no schedulers but its servers: were those replaced first, tasks would wait for the
    first scheduler.
    """
    system = session.ddq
    for scheduler in system.schedulers:
        async with session.step("start", scheduler.name):
            await scheduler.restart()
    for api in system.apis:
        async with session.step("upgrade", api.name):
            await api.terminate()
            await system.upgrade(api)
            await system.wait_until_serving()
    async with session.step("durability", "quorum"):
        # What an old topic has is FAST, which is all that the old servers knew.
        settings = TopicSettings(durability=Durability.QUORUM)
        for topic in session.topics:
            await session.client.update_topic(topic, settings)


UPGRADE = Procedure(
    f"a rolling upgrade from {PREVIOUS} loses nothing, and fails no request that has 30 s",
    upgrade,
    previous=True,
)

__all__ = ["UPGRADE", "upgrade"]
