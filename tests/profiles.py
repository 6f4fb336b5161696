"""How hard Hypothesis tries: dev while writing, ci in `make test`, nightly for hours.

`ci` is derandomized: the same commit runs the same examples, so a red run is red again. Each
profile says so itself: what is left out comes from Hypothesis' own default, which is another one
where the environment variable CI is set.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "dev",
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=_SLOW,
    derandomize=False,
)
settings.register_profile(
    "ci",
    max_examples=250,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=_SLOW,
    derandomize=True,
    print_blob=True,
)
settings.register_profile(
    "nightly",
    max_examples=20_000,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=_SLOW,
    derandomize=False,
    print_blob=True,
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
settings.load_profile(PROFILE)

LONG = pytest.mark.timeout(0 if PROFILE == "nightly" else 900)
"""The time-out of tests that run as many simulations as the profile says; nightly, for hours."""
