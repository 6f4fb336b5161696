"""Settings: each is described, bounded, and refused in one line."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from ddq.config import DAY_MS, DEFAULTS, LIMITS, Settings, check_settings, retention_min_ms
from ddq.task import RetryPolicy, TopicSettings


@pytest.mark.parametrize("values", [LIMITS, DEFAULTS, Settings()], ids=lambda v: type(v).__name__)
def test_each_has_a_sentence_and_its_unit_last(values: Any) -> None:
    units = ("_ms", "_bytes", "_chars", "_count", "_tasks", "_items", "_entries")
    without_unit = {
        "auto_create_topics", "multiplier", "multiplier_max", "jitter", "max_attempts",
        "durability", "fsync", "data_nodes", "store_checks",
        "store_address_map", "tls_server_cert", "tls_server_key", "tls_client_ca",
    }  # fmt: skip
    for spec in fields(values):
        assert spec.metadata["doc"], spec.name
        assert spec.name.endswith(units) or spec.name in without_unit, spec.name


def test_the_defaults_are_fine() -> None:
    check_settings(Settings())
    assert retention_min_ms(Settings()) == 602_000
    assert TopicSettings().tombstone_retention_ms >= retention_min_ms(Settings())
    assert RetryPolicy().initial_backoff_ms <= RetryPolicy().max_backoff_ms


@pytest.mark.parametrize(
    "name", [spec.name for spec in fields(Settings) if not isinstance(spec.default, bool | str)]
)
def test_a_setting_that_makes_no_sense_is_named(name: str) -> None:
    least = 0 if name in {"down_after_ms", "barrier_keep_ms"} else 1
    changed: dict[str, Any] = {name: least - 1}
    with pytest.raises(ValueError, match=f"^{name} is {least - 1}; it has to be at least {least}$"):
        check_settings(replace(Settings(), **changed))


def test_a_durability_that_is_none_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"^durability is 'majority'; give one of fast, quorum, all"
    ):
        check_settings(Settings(durability="majority"))


def test_a_request_must_not_outlive_the_memory_of_it() -> None:
    with pytest.raises(ValueError, match="exceeds the longest tombstone retention"):
        check_settings(Settings(max_request_age_ms=30 * DAY_MS))
    check_settings(Settings(max_request_age_ms=30 * DAY_MS - 2_000))
