"""The tree of errors is what its module says it is."""

from __future__ import annotations

import inspect
import re

import grpc
import pytest

from ddq import errors
from ddq.errors import DdqError

DEFINED = [cls for cls in errors.all_errors() if cls.__module__ == errors.__name__]


def test_all_is_what_is_defined() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if not name.startswith("_")
        and getattr(value, "__module__", errors.__name__) == errors.__name__
        and not inspect.ismodule(value)
        and name not in {"annotations", "Mapping", "ClassVar"}
    }
    assert sorted(errors.__all__) == sorted(defined)


def drawn_tree() -> dict[str, tuple[str | None, str]]:
    """Class -> (its parent, what stands beside it), as drawn at the top of the module."""
    tree: dict[str, tuple[str | None, str]] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(
            r"    (?P<indent>(?:[│ ] {3})*)(?:[├└]── )?(?P<name>\w+) *(?P<note>.*)", line
        )
        if found is None:
            continue
        depth = 0 if not parents else len(found["indent"]) // 4 + 1
        del parents[depth:]
        tree[found["name"]] = (parents[-1] if parents else None, found["note"])
        parents.append(found["name"])
    return tree


def test_the_drawn_tree_is_that_of_the_classes() -> None:
    drawn = {name: parent for name, (parent, _) in drawn_tree().items()}
    real = {cls.__name__: None if cls is DdqError else cls.__bases__[0].__name__ for cls in DEFINED}
    assert drawn == real


@pytest.mark.parametrize(
    ("name", "note"), [(name, note) for name, (_, note) in drawn_tree().items() if note.isupper()]
)
def test_the_codes_beside_the_tree_are_those_of_the_classes(name: str, note: str) -> None:
    assert getattr(errors, name).code is grpc.StatusCode[note]


@pytest.mark.parametrize("cls", DEFINED[1:], ids=lambda cls: cls.__name__)
def test_each_error_has_a_reason_of_its_own(cls: type[DdqError]) -> None:
    assert errors.BY_REASON[cls.reason] is cls
    assert re.fullmatch(r"[A-Z][A-Z_]+", cls.reason)
    # A program reads the reason, a person the class: they are the same words.
    assert cls.reason == re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()


@pytest.mark.parametrize("cls", DEFINED[1:], ids=lambda cls: cls.__name__)
def test_a_wait_is_asked_for_where_a_repeat_may_succeed(cls: type[DdqError]) -> None:
    assert cls.repeatable or cls.retry_delay_s is None
    assert cls.__doc__, f"{cls.__name__} needs a sentence for the table"


def test_an_error_after_a_possible_effect_is_never_definite() -> None:
    indefinite = {cls.__name__ for cls in DEFINED if not cls.definite}
    assert indefinite == {
        "DdqError", "Unavailable", "WriteOutcomeUnknown", "OutcomeUnknown", "TransportError",
        "StoreMalformed",
    }  # fmt: skip
