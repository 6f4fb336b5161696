"""A topic's shard moves to another master of a Cluster under traffic, there and back."""

from __future__ import annotations

from chaos.experiments.maintenance.story import Stage, Story

_TIMES = 2


def migration(*, atomic: bool = False) -> Story:
    """Every shard of the first topic moves, while its tasks come and go, to each other master.

    Args:
        atomic: by CLUSTER MIGRATESLOTS, instead of key by key.
    """

    async def migrate(stage: Stage) -> None:
        cluster = stage.sharded
        topic = stage.topics[0]
        for key in (f"ddq:control:{{{topic}}}", f"ddq:control:{{{topic}:1}}"):
            slot = cluster.slot_of(key)
            masters = [await cluster.master(shard) for shard in range(len(cluster.shards))]
            home = await cluster.owner(slot)
            away = [master for master in masters if master != home]
            for target in (*away[:_TIMES], home):
                async with stage.step("slot", f"{slot} to {target.name}"):
                    await cluster.migrate_slot(slot, target, atomic=atomic)

    return Story(
        "a slot that moves under traffic, its target's replicas in sync, breaks no promise",
        migrate,
        sharded=True,
    )


__all__ = ["migration"]
