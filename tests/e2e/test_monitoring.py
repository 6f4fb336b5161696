"""The rules and the dashboard, by Prometheus itself."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import TIMEOUT_S, Dev, ddq
from tools.alerts import ALERTS
from tools.dashboard import ROWS, queries
from tools.repo import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
SCRAPE_S = 1
RANGE = "2m"
"""Longer than the test: what happened once remains visible."""
# What a healthy embedded store never has.
EMPTY = {
    "What items were refused for", "Store errors per second", "Failed RPCs per second",
    "Barrier time", "Held replies",
}  # fmt: skip


def program(name: str) -> str:
    """The path of a program of Prometheus."""
    found = shutil.which(name)
    assert found is not None, f"{name} is needed: install prometheus, then run this again"
    return found


def promtool(*arguments: str | Path) -> str:
    ran = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=FOLDER,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_promtool_accepts_the_rules_and_the_example_configuration() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "ddq.rules.yaml")
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", "ddq.rules.test.yaml")


@contextlib.contextmanager
def prometheus(folder: Path, *targets: str) -> Iterator[str]:
    """Prometheus with the rules of ddq; its URL."""
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(FOLDER / "ddq.rules.yaml")]
    configuration["scrape_configs"][0]["static_configs"] = [{"targets": list(targets)}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    process = subprocess.Popen(
        [
            program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={folder / 'db'}",
            "--web.listen-address=127.0.0.1:0", "--log.format=json",
        ],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log = process.stderr
    assert log is not None
    try:
        address = ""
        for line in log:
            said = json.loads(line)
            if said.get("msg") == "Listening on":
                address = said["address"]
            if said.get("msg") == "Server is ready to receive web requests.":
                break
        assert address, "Prometheus did not start"
        # It continues to write.
        with subprocess.Popen(["cat"], stdin=log, stdout=subprocess.DEVNULL):
            yield f"http://{address}"
            process.terminate()
            process.wait(TIMEOUT_S)
    finally:
        process.kill()
        process.wait(TIMEOUT_S)
        log.close()


def asked(url: str, path: str, **query: str) -> Any:
    """The data of a reply of Prometheus."""
    where = f"{url}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(where, timeout=TIMEOUT_S) as reply:  # noqa: S310 - always http
        document = json.load(reply)
    assert document["status"] == "success", document
    return document["data"]


def results(url: str, query: str) -> list[Any]:
    """What a query of the dashboard gives now."""
    query = query.replace("$__rate_interval", RANGE).replace("$instance", ".*")
    found = asked(url, "/api/v1/query", query=query)["result"]
    return [each for each in found if each["value"][1] != "NaN"]


@pytest.mark.timeout(180)
def test_a_running_ddq_fills_the_dashboard_and_fires_no_alert(dev: Dev, tmp_path: Path) -> None:
    dev.stop()
    dev.start("--metrics-listen", "127.0.0.1:0", "--sweep-interval-ms", "500")
    wanted = {
        query: chart.title
        for row in ROWS.values()
        for chart in row
        for query in chart.queries.values()
        if chart.title not in EMPTY
    }
    with prometheus(tmp_path, dev.metrics) as url:
        left = set(wanted)
        deadline_s = time.monotonic() + TIMEOUT_S
        while left and time.monotonic() < deadline_s:
            # With a delay: only then does it become ready later, by a scheduler.
            ddq(dev, "enqueue", "mail", "x", "--delay", "10ms")
            ddq(dev, "work", "mail", "--count", "1", "--raw")
            left = {query for query in left if not results(url, query)}
        assert not left, {wanted[query]: query for query in left}
        for query in queries():
            results(url, query)
        alerts = asked(url, "/api/v1/alerts")["alerts"]
        # One that is only pending may be the load of the machine.
        firing = [each["labels"]["alertname"] for each in alerts if each["state"] == "firing"]
        assert firing == []
