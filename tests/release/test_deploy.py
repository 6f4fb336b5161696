"""What is deployed by hand: the images and the cluster to look at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.repo import ROOT


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    loaded = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    found: dict[str, dict[str, Any]] = loaded["services"]
    return found


def test_the_cluster_to_look_at_has_all_its_parts(services: dict[str, dict[str, Any]]) -> None:
    kinds = [re.sub(r"\d", "", name) for name in services]
    parts = {kind: kinds.count(kind) for kind in kinds}
    assert parts == {"host": 3, "data": 3, "sentinel": 3, "api": 2, "scheduler": 3}
    for n in (1, 2, 3):
        for name in (f"data{n}", f"sentinel{n}"):
            assert services[name]["network_mode"] == f"service:host{n}"
        address = services[f"host{n}"]["networks"]["store"]["ipv4_address"]
        assert services[f"data{n}"]["environment"]["DDQ_NODE_ANNOUNCE"] == f"{address}:7000"
        for name in ("api1", "scheduler1"):
            assert f"{address}:26379" in services[name]["environment"]["DDQ_STORE"]
            assert f"{address}:7000" in services[name]["environment"]["DDQ_DATA_NODES"]


def test_only_the_node_that_the_sentinels_name_may_be_the_first_master(
    services: dict[str, dict[str, Any]],
) -> None:
    bootstrap = [
        name for name, one in services.items() if "DDQ_NODE_BOOTSTRAP" in one.get("environment", {})
    ]
    assert bootstrap == ["data1"]
    first = services["host1"]["networks"]["store"]["ipv4_address"]
    for n in (1, 2, 3):
        assert f"monitor mymaster {first} 7000 2" in services[f"sentinel{n}"]["command"][0]


def test_ddq_knows_every_variable_that_it_is_given(services: dict[str, dict[str, Any]]) -> None:
    for name in ("data1", "api1", "scheduler1"):
        service = services[name]
        shown = subprocess.run(
            [str(Path(sys.executable).parent / "ddq"), *service["command"], "--help"],
            env={**os.environ, "COLUMNS": "300"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert [each for each in service["environment"] if each not in shown] == []
