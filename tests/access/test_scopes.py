"""Scopes and tokens as values."""

from __future__ import annotations

import pytest

from ddq.access.scopes import Action, Scope, ScopeError, Scopes
from ddq.access.tokens import Sealed, split_token


@pytest.mark.parametrize(
    ("text", "topic", "allowed"),
    [
        ("orders:read", "orders", True),
        ("orders:read", "orders2", False),
        ("orders:read", "xorders", False),
        ("orders.*:read", "orders.new", True),
        ("orders.*:read", "orders", False),
        ("orders.*:read", "ordersXnew", False),
        ("*.new:read", "orders.new", True),
        ("*:read", "", True),
        ("*:read", "a\nb", True),
        ("a*c:read", "a\nc", True),
        ("orders:admin,produce,consume", "orders", False),
        ("orders:all", "orders", True),
    ],
)
def test_a_scope_is_for_the_topics_of_its_pattern(text: str, topic: str, allowed: bool) -> None:
    scopes = Scopes([Scope.parse(text)])
    assert scopes.allow(Action.READ, [topic]) is allowed
    assert Scope.parse(str(Scope.parse(text))) == Scope.parse(text)


def test_without_a_scope_nothing_is_allowed() -> None:
    scopes = Scopes([])
    for action in Action:
        assert not scopes.allow(action, [""])
        assert not scopes.allow(action, ["a"])
        assert not scopes.allow_everywhere(action)


def test_only_a_lone_star_is_every_topic() -> None:
    for text, everywhere in (("*:read", True), ("**:read", True), ("a*:read", False)):
        assert Scopes([Scope.parse(text)]).allow_everywhere(Action.READ) is everywhere


def test_a_name_that_is_too_long_is_not_compared() -> None:
    assert not Scopes([Scope.parse("a*b*c*d:read")]).allow(Action.READ, ["a" * 1_000_000])
    assert Scopes([Scope.parse("*:read")]).allow(Action.READ, ["a" * 1_000_000])


@pytest.mark.parametrize(
    "text", ["", "orders", ":read", "orders:", "orders:reed", "or ders:read", "a*b*c*d*e:read"]
)
def test_a_scope_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ScopeError, match="invalid scope"):
        Scope.parse(text)


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    one, other = Sealed.of("s"), Sealed.of("s")
    assert one.digest != other.digest
    assert one.fits("s")
    assert not one.fits("S")
    assert split_token("ddq_a_b_c") == ("a", "b_c")
