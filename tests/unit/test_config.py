"""Settings: each is described, and has its unit last."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from ddq.config import DEFAULTS, LIMITS, ProcessSettings, Settings, retention_min_ms
from ddq.configuration import check_settings
from ddq.task import RetryPolicy, TopicSettings


@pytest.mark.parametrize(
    "values", [LIMITS, DEFAULTS, Settings(), ProcessSettings()], ids=lambda v: type(v).__name__
)
def test_each_has_a_sentence_and_its_unit_last(values: Any) -> None:
    units = ("_ms", "_bytes", "_chars", "_count", "_tasks", "_items", "_entries")
    without_unit = {
        "auto_create_topics", "multiplier", "multiplier_max", "jitter", "max_attempts",
        "durability", "fsync", "traces", "data_nodes", "store_checks",
        "store_address_map", "tls_server_cert", "tls_server_key", "tls_client_ca",
        "access_file", "insecure", "metrics_insecure", "admin_api", "reflection", "health_api",
        "log_format", "address", "listen", "store", "data", "scheduler", "processes",
        "metrics_listen", "log_level", "tls", "tls_ca", "tls_cert", "tls_key", "token_file",
        "plain_token",
    }  # fmt: skip
    for spec in fields(values):
        assert spec.metadata["doc"], spec.name
        assert (
            spec.name.endswith(units) or spec.name in without_unit or spec.name.startswith("node_")
        ), spec.name


def test_the_defaults_are_fine() -> None:
    check_settings(Settings())
    assert retention_min_ms(Settings()) == 602_000
    assert TopicSettings().tombstone_retention_ms >= retention_min_ms(Settings())
    assert RetryPolicy().initial_backoff_ms <= RetryPolicy().max_backoff_ms
