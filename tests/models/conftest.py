"""The uncertain form is held against the same real store as the stateful tests."""

from __future__ import annotations

from tests.stateful.conftest import quiet, stateful_socket

__all__ = ["quiet", "stateful_socket"]
