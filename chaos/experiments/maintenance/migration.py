"""A topic's shard moves to another master of a Cluster under traffic, there and back."""

from __future__ import annotations

from chaos.experiments.maintenance.procedure import Procedure
from chaos.experiments.recorded import RecordedSession
from chaos.workloads import LONG_TIMEOUTS

_TIMES = 2
SHARDS = LONG_TIMEOUTS.shards


def migration(*, atomic: bool = False) -> Procedure:
    """Every shard of the first topic moves, while its tasks come and go, to each other master.

    Args:
        atomic: by CLUSTER MIGRATESLOTS, instead of key by key.
    """

    async def migrate(session: RecordedSession) -> None:
        cluster = session.sharded
        topic = session.topics[0]
        for shard in range(SHARDS):
            slot = cluster.slot_of(session.deployment.system.shard_key(topic, shard))
            masters = [await cluster.master(group) for group in range(len(cluster.shards))]
            home = await cluster.owner(slot)
            away = [master for master in masters if master != home]
            for target in (*away[:_TIMES], home):
                async with session.step("slot", f"{slot} to {target.name}"):
                    await cluster.migrate_slot(slot, target, atomic=atomic)

    return Procedure(
        "a slot that moves under traffic, its target's replicas in sync, breaks no promise",
        migrate,
        sharded=True,
    )


__all__ = ["migration"]
