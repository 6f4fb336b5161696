"""Where the store is: one URL says it, and this finds the node that serves a key.

``parse_store_url`` reads the URL, ``open_topology`` makes of it one of ``single``, ``sentinel`` and
``cluster``; ``base`` has what they share.
"""

from __future__ import annotations

from ddq.store.topology.base import (
    Listener,
    Redirect,
    Replica,
    SentinelSettings,
    Topology,
    info_fields,
    is_lost_role,
)
from ddq.store.topology.cluster import ClusterTopology
from ddq.store.topology.cluster_report import importing_slots
from ddq.store.topology.node import AddressMap, Node, parse_address_map
from ddq.store.topology.sentinel import SentinelTopology
from ddq.store.topology.single import SingleTopology
from ddq.store.topology.url import FORMS, Access, StoreUrl, StoreUrlError, parse_store_url


def open_topology(url: StoreUrl) -> Topology:
    """The topology behind a URL; nothing is connected before it is used.

    An embedded store is a process of its own first: give the URL of its socket.
    """
    if url.kind == "sentinel":
        return SentinelTopology(url)
    if url.kind == "cluster":
        return ClusterTopology(url)
    return SingleTopology(url.node, url.connector())


__all__ = [
    "FORMS",
    "Access",
    "AddressMap",
    "ClusterTopology",
    "Listener",
    "Node",
    "Redirect",
    "Replica",
    "SentinelSettings",
    "SentinelTopology",
    "SingleTopology",
    "StoreUrl",
    "StoreUrlError",
    "Topology",
    "importing_slots",
    "info_fields",
    "is_lost_role",
    "open_topology",
    "parse_address_map",
    "parse_store_url",
]
