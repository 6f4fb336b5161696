"""A run's report in a real browser: it shows its verdict, and the first anomaly opens its task.

Needs Chromium and its driver: on Debian, ``apt install chromium chromium-driver``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.cli.app import main
from chaos.history.synthetic import SyntheticHistory, write_run
from models.promises import PROMISES
from tests.chaos.test_promises import cancelled, g4_delivered, once

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The name that the WebDriver standard gives to a reference to an element."""
TIMEOUT_S = 60
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


class Browser:
    """As much of the WebDriver protocol as is needed."""

    def __init__(self, address: str, program: str) -> None:
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._address = address
        wanted = {
            "goog:chromeOptions": {"binary": program, "args": OPTIONS},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self._call("", {"capabilities": {"alwaysMatch": wanted}})
        self._address = f"{address}/{answer['sessionId']}"

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data)  # noqa: S310 - our own driver
        with self._open(request, timeout=TIMEOUT_S) as reply:
            return json.load(reply)["value"]

    def open(self, page: Path) -> None:
        """Returns when it has loaded."""
        self._call("/url", {"url": page.as_uri()})

    def find(self, selector: str) -> list[str]:
        """Elements, as references."""
        found = self._call("/elements", {"using": "css selector", "value": selector})
        return [element[ELEMENT] for element in found]

    def texts(self, selector: str) -> list[str]:
        """What people see in them."""
        return [str(self._call(f"/element/{one}/text")) for one in self.find(selector)]

    def click(self, element: str) -> None:
        """As a mouse does it: fails if something covers the element."""
        self._call(f"/element/{element}/click", {})

    def errors(self) -> list[str]:
        """What the page complained of, and whatever it asked the network for in vain."""
        return [entry["message"] for entry in self._call("/se/log", {"type": "browser"})]

    def resources(self) -> list[str]:
        """What it loaded beside itself."""
        script = "return performance.getEntriesByType('resource').map((one) => one.name)"
        return list(self._call("/execute/sync", {"script": script, "args": []}))


def program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.fail(f"{names[0]} is not there; on Debian: apt install chromium chromium-driver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    driver = program("chromedriver")
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "successfully on port" in line)
            port = line.rstrip(".\n").rsplit(" ", 1)[1]
            session = Browser(f"http://127.0.0.1:{port}/session", chromium)
            yield session
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                urllib.request.Request(session._address, method="DELETE"),  # noqa: S310 - as above
                timeout=TIMEOUT_S,
            )
        finally:
            process.terminate()


def report(folder: Path, history: SyntheticHistory) -> tuple[Path, int]:
    run = write_run(folder, history)
    status = main(["check", str(folder)])
    return run.report, status


def test_a_valid_run(browser: Browser, tmp_path: Path) -> None:
    page, status = report(tmp_path, once())
    assert status == 0
    browser.open(page)
    assert browser.texts("h1") == ["VALID\nEvery promise was kept"]
    assert len(browser.texts("#promises tbody tr")) == len(PROMISES)
    assert browser.find("#charts svg polygon")
    assert browser.texts(".anomaly") == []
    assert browser.errors() == []
    assert browser.resources() == []


def test_the_first_anomaly_opens_its_task(browser: Browser, tmp_path: Path) -> None:
    history = cancelled()
    g4_delivered(history)
    for event in history.events:
        for part in (event.get("request", {}), *event.get("reply", {}).get("leases", [])):
            if "id" in part:
                part["id"] = "</script><b>a"
    for entry in history.journal:
        entry["id"] = "</script><b>a"
    page, status = report(tmp_path, history)
    assert status == 1
    browser.open(page)
    (verdict,) = browser.texts("h1")
    assert verdict.startswith("INVALID\nBroken: ")
    assert "G4 cancel is final" in verdict
    assert browser.texts("#timeline li") == []
    browser.click(browser.find(".anomaly")[0])
    assert browser.texts("#timeline h3") == ["Task work/</script><b>a"]
    steps = browser.texts("#timeline li")
    assert any("enqueue" in step for step in steps)
    witnesses = browser.texts("#timeline li.witness")
    assert [word for step in witnesses for word in ("cancel", "retrieve") if word in step] == [
        "cancel", "retrieve",
    ]  # fmt: skip
    browser.click(browser.find("#timeline li.witness summary")[0])
    assert "revision" in browser.texts("#timeline li.witness pre")[0]
    assert browser.errors() == []
