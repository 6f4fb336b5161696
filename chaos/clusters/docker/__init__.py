"""The Sentinel cluster in containers: each host a network of its own, with two programs in it."""

from __future__ import annotations

from chaos.clusters.docker.cluster import DockerCluster
from chaos.clusters.docker.engine import why_unavailable

__all__ = ["DockerCluster", "why_unavailable"]
