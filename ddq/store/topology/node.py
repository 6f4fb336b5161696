"""One node of the store, and the map from the addresses that a store names to those one reaches."""

from __future__ import annotations

from dataclasses import dataclass

PORT_MAX = 65_535


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A node as the store itself names it, before the address map.

    Attributes:
        host: a name or address; of a Unix socket its path, and then ``port`` is 0.
        port: of TCP.
    """

    host: str
    port: int = 0

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_node(text: str, default_port: int) -> Node:
    """Reads HOST, HOST:PORT or [IPV6]:PORT.

    Raises:
        ValueError: with what is wrong, to follow on "HOST:PORT ".
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"invalid address {text!r}; expected [IPV6]:PORT")
        port_text = rest[1:] if rest else str(default_port)
    else:
        host, colon, port_text = text.partition(":")
        port_text = port_text if colon else str(default_port)
    if not host:
        raise ValueError(f"{text!r} lacks its host")
    if not port_text.isdecimal() or not 1 <= int(port_text) <= PORT_MAX:
        raise ValueError(f"{text!r} has {port_text!r} where a port belongs")
    return Node(host, int(port_text))


@dataclass(frozen=True, slots=True)
class AddressMap:
    """Where a node that Sentinel or Cluster names is reached: behind NAT, forwards or a proxy.

    Attributes:
        entries: (named, reached) pairs; port 0 in both stands for any port, which is kept.
    """

    entries: tuple[tuple[Node, Node], ...] = ()

    def reach(self, node: Node) -> Node:
        """The address to connect to; the node itself if the map does not have it."""
        for named, reached in self.entries:
            if named == node:
                return reached
        for named, reached in self.entries:
            if not named.port and named.host == node.host:
                return Node(reached.host, node.port)
        return node

    def __str__(self) -> str:
        return ",".join(f"{named}={reached}" for named, reached in self.entries)


def parse_address_map(text: str) -> AddressMap:
    """Reads NAMED:PORT=REACHED:PORT or NAMED=REACHED, several with commas between.

    Raises:
        ValueError: with one line that says which entry is wrong, and the form.
    """
    entries: list[tuple[Node, Node]] = []
    for entry in filter(None, text.split(",")):
        named, equals, reached = entry.partition("=")
        try:
            if not equals:
                raise ValueError("it lacks its '='")
            pair = (_parse_end(named), _parse_end(reached))
        except ValueError as error:
            raise ValueError(f"address map entry {entry!r}: {error}; give {FORM}") from None
        if bool(pair[0].port) != bool(pair[1].port):
            raise ValueError(f"address map entry {entry!r} has one port; give {FORM}")
        if pair[0] in [seen for seen, _ in entries]:
            raise ValueError(f"address map has two entries for {pair[0]}; leave one out")
        entries.append(pair)
    return AddressMap(tuple(entries))


FORM = "HOST:PORT=HOST:PORT, or HOST=HOST to keep the port"


def _parse_end(text: str) -> Node:
    has_port = "]:" in text if text.startswith("[") else ":" in text
    node = parse_node(text, 1)
    return node if has_port else Node(node.host)
