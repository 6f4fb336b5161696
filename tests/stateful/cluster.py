"""A replicated store that forks: one server, a database for each node.

A node is a log of commands and the database that they led to. A replica's log is a prefix of its
master's, in whole commands: a script is never cut in two. At a failover a replica continues from
the prefix that it has, while the deposed master still answers the clients that are connected to it.

WAIT counts as the real one does: the replicas that are attached to *this* node and have the last
write of *this connection*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from ddq.store.connection import Command, Reply
from ddq.store.scripts import Script
from tests.stateful.real import CLOCK_KEY

HINT_KEY = "test:hints"
_CHANGES = "rdb_changes_since_last_save"
_BOOKKEEPING = (CLOCK_KEY.encode(), HINT_KEY.encode())


@dataclass
class Node:
    """One data node.

    Attributes:
        log: commands that it has, with the time of each.
        applied: how many of them have run on its database. A replica's run when its database is
            needed: that is seldom, and each command costs a round trip.
        replicas: those attached to it, and how much of the log each has.
    """

    name: str
    database: int
    log: list[tuple[Command, int]] = field(default_factory=list)
    applied: int = 0
    replicas: dict[str, int] = field(default_factory=dict)


class Cluster:
    """Three nodes on one server.

    Args:
        socket: of the server, whose first databases are emptied.
        scripts: to run where a command names one by its hash.
    """

    def __init__(self, socket: str, scripts: Mapping[str, Script]) -> None:
        self._clients = [
            redis.Redis(unix_socket_path=socket, db=number, single_connection_client=True)
            for number in range(3)
        ]
        self._clients[0].flushall()
        # A script cache that is warm from the last simulation would change this one.
        self._clients[0].script_flush()
        self._sources = {script.sha1: script.source for script in scripts.values()}
        self.nodes = {
            name: Node(name, number) for number, name in enumerate(("one", "two", "three"))
        }
        self.nodes["one"].replicas = {"two": 0, "three": 0}
        self.master = "one"
        self.deposed: str | None = None
        self.failovers = 0
        self.hidden: str | None = None
        """A replica that was promoted where its old master cannot see it."""

    def close(self) -> None:
        """Closes the connections to the server."""
        for client in self._clients:
            client.close()

    # Commands ------------------------------------------------------------------------------

    def run(self, node: Node, command: Command, now_ms: int) -> tuple[Reply, list[bytes]]:
        """Runs a script on a node; the reply, or the store's error, and the hints it gave."""
        client = self._clients[node.database]
        # What the shared prelude publishes is kept here instead, to be lost or doubled.
        pipe = client.pipeline(transaction=False)
        pipe.set(CLOCK_KEY, now_ms)
        pipe.info("persistence")
        pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        pipe.info("persistence")
        pipe.lrange(HINT_KEY, 0, -1)
        pipe.delete(HINT_KEY)
        _, before, reply, after, hints, _ = pipe.execute(raise_on_error=False)
        # What wrote nothing is not replicated, and a WAIT behind it speaks of an older write.
        if after[_CHANGES] != before[_CHANGES]:
            node.log.append((command, now_ms))
            node.applied += 1
        return reply, hints

    def acked(self, node: Node, position: int) -> int:
        """Replicas attached to the node that have its log up to ``position``."""
        return sum(have >= position for have in node.replicas.values())

    def flush_scripts(self) -> None:
        """Forgets all scripts, as a restarted or promoted node has."""
        self._clients[0].script_flush()

    # Replication ---------------------------------------------------------------------------

    def lagging(self) -> list[tuple[Node, str]]:
        """Each link over which something is still to be copied."""
        return [
            (node, name)
            for node in self.nodes.values()
            for name, have in node.replicas.items()
            if have < len(node.log)
        ]

    def catch_up(self, master: Node, name: str, commands: int) -> None:
        """A replica takes in the next commands of its master's log."""
        have = master.replicas[name]
        copied = master.log[have : have + commands]
        self.nodes[name].log += copied
        master.replicas[name] = have + len(copied)

    def _apply(self, node: Node) -> None:
        """Brings a node's database up to its log."""
        pending = node.log[node.applied :]
        node.applied = len(node.log)
        if not pending:
            return
        pipe = self._clients[node.database].pipeline(transaction=False)
        sent: set[str] = set()
        for command, now_ms in pending:
            pipe.set(CLOCK_KEY, now_ms)
            again = command
            if command[0] == "EVALSHA" and command[1] not in sent:
                # Whether the server still has the script in its cache is not known.
                sent.add(str(command[1]))
                again = ("EVAL", self._sources[str(command[1])], *command[2:])
            pipe.execute_command(*again)  # type: ignore[no-untyped-call]
        pipe.delete(HINT_KEY)
        pipe.execute()

    def role(self, node: Node) -> Reply:
        """As the node itself sees it: a deposed one does not know yet."""
        attached = [[name.encode(), b"1", b"0"] for name in node.replicas]
        return [b"master", len(node.log), attached]

    # Failover ------------------------------------------------------------------------------

    def best_replicas(self) -> list[str]:
        """Those of the master's replicas that have most of its log: who Sentinel chooses among."""
        replicas = self.nodes[self.master].replicas
        most = max(replicas.values())
        return [name for name, have in replicas.items() if have == most]

    def promote_hidden(self, name: str) -> None:
        """A replica is promoted; its old master still counts it among its own."""
        self._apply(self.nodes[name])
        self.nodes[name].replicas = {}
        self.hidden = name

    def fail_over(self, name: str) -> None:
        """A replica is promoted. The other one stays with the deposed master for now."""
        old = self.nodes[self.master]
        del old.replicas[name]
        self._apply(self.nodes[name])
        self.nodes[name].replicas = {}
        self.hidden = None
        self.deposed, self.master = self.master, name
        self.failovers += 1

    def repoint(self) -> None:
        """The other replica is taken from the deposed master, and copies the new one."""
        assert self.deposed is not None
        old = self.nodes[self.deposed]
        for name in list(old.replicas):
            del old.replicas[name]
            self._copy(self.nodes[self.master], self.nodes[name])

    def heal(self) -> None:
        """The deposed master learns of its fate: its branch is gone, and it copies the new one."""
        self.repoint()
        assert self.deposed is not None
        self._copy(self.nodes[self.master], self.nodes[self.deposed])
        self.deposed = None

    def lose_tail(self, kept: int) -> None:
        """Every node comes back with the first commands of the master's log only.

        This happens when a master lost the unwritten end of its file and was back before a Sentinel
        noticed: its replicas follow it down.
        """
        log = self.nodes[self.master].log[:kept]
        for node in self.nodes.values():
            self._clients[node.database].flushdb()
            node.log, node.applied = list(log), 0
            self._apply(node)
            node.replicas = {name: len(node.log) for name in node.replicas}

    def _copy(self, source: Node, target: Node) -> None:
        """A full synchronisation."""
        reader, writer = self._clients[source.database], self._clients[target.database]
        writer.flushdb()
        for key in sorted(reader.keys()):
            if key not in _BOOKKEEPING:
                name: Any = key
                reader.copy(name, name, destination_db=str(target.database))
        target.log, target.applied = list(source.log), len(source.log)
        target.replicas = {}
        source.replicas[target.name] = len(source.log)

    def client(self, name: str) -> Any:
        """A plain client of a node's database, to look at it afterwards."""
        self._apply(self.nodes[name])
        return self._clients[self.nodes[name].database]
