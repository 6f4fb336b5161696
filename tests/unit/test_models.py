"""The specification knows nothing of what it specifies."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from models.promises import BY_ID, PROMISES, Promise, Scope
from tools.docs import names_in
from tools.repo import ROOT

PAGES = sorted((ROOT / "models").glob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_it_imports_the_standard_library_and_itself_only(page: Path) -> None:
    for node in ast.walk(ast.parse(page.read_text())):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides where it goes"
            modules = [node.module or ""]
        elif isinstance(node, ast.Name):
            assert node.id not in {"__import__", "exec", "eval"}
        for module in modules:
            top = module.split(".")[0]
            assert top == "models" or top in sys.stdlib_module_names, module
            # Time and chance come in with the request.
            assert top not in {"time", "random", "secrets", "os", "socket", "asyncio", "importlib"}


def test_the_promises_are_fourteen_in_order() -> None:
    assert [promise.id for promise in PROMISES] == [f"G{n}" for n in range(1, 15)]
    assert BY_ID["G4"].name == "cancel is final"


def test_only_these_survive_a_failover_in_fast() -> None:
    kept = [promise.id for promise in PROMISES if promise.in_fast is Scope.ALWAYS]
    assert kept == ["G1", "G11"]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.id)
def test_each_promise_is_documented_where_it_says(promise: Promise) -> None:
    page, _, heading = promise.documented.partition("#")
    text = (ROOT / page).read_text()
    assert f"\n## {heading.capitalize()}\n" in text
    assert "promises" in names_in(text)
