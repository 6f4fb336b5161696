"""The same store as for the stateful tests."""

from __future__ import annotations

from tests.stateful.conftest import stateful_socket

__all__ = ["stateful_socket"]
