"""A topic's shard moves to another master of a Cluster under traffic, there and back."""

from __future__ import annotations

from chaos.planned.story import Stage, Story

_TIMES = 2


async def migrate(stage: Stage) -> None:
    """Every shard of the first topic, while its tasks come and go, to each other master."""
    cluster = stage.sharded
    topic = stage.topics[0]
    for key in (f"ddq:control:{{{topic}}}", f"ddq:control:{{{topic}:1}}"):
        slot = cluster.slot_of(key)
        masters = [await cluster.master(shard) for shard in range(len(cluster.shards))]
        home = await cluster.owner(slot)
        away = [master for master in masters if master != home]
        for target in (*away[:_TIMES], home):
            async with stage.step("slot", f"{slot} to {target.name}"):
                await cluster.migrate_slot(slot, target)


MIGRATION = Story(
    "a slot that moves under traffic, its target's replicas in sync, breaks no promise",
    migrate,
    sharded=True,
)

__all__ = ["MIGRATION", "migrate"]
