"""The judge on edits of a real history: each anomaly is found, and named; nothing else is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.edits import clients, contents, delivery, harmless, schedulers, store
from tests.chaos.edits.base import Edited
from tests.chaos.edits.registry import EDITS, Edit
from tests.chaos.test_promises import broken, explanation

WRONG = [edit for edit in EDITS.values() if edit.promise]
RIGHT = [edit for edit in EDITS.values() if not edit.promise]
MODULES = (clients, contents, delivery, harmless, schedulers, store)
"""They fill the registry when they are imported."""


@pytest.mark.parametrize("edit", WRONG, ids=lambda edit: edit.name)
def test_an_anomaly_is_found_and_named(edit: Edit, tmp_path: Path) -> None:
    run = Edited()
    edit.change(run)
    results = run.judged(tmp_path)
    assert results.verdict == "INVALID", edit.because
    assert edit.promise in broken(results), f"{edit.because}\n{explanation(results)}"


@pytest.mark.parametrize("edit", RIGHT, ids=lambda edit: edit.name)
def test_a_legal_change_is_valid(edit: Edit, tmp_path: Path) -> None:
    run = Edited()
    edit.change(run)
    results = run.judged(tmp_path)
    assert results.verdict == "VALID", f"{edit.because}\n{explanation(results)}"


def test_the_corpus_covers_every_promise() -> None:
    count = Counter(edit.promise for edit in WRONG)
    assert set(count) == {f"G{n}" for n in range(1, 15)}
    assert min(count.values()) >= 8, count
    assert len(WRONG) >= 140
    assert len(RIGHT) >= 50
