"""These tests need a container engine; without one they fail, and say what to install."""

from __future__ import annotations

import pytest

from chaos.clusters.docker import why_unavailable


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    if why := why_unavailable():
        pytest.fail(why, pytrace=False)
