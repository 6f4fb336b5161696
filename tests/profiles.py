"""How hard Hypothesis tries: dev while writing, ci in `make test`, nightly for hours.

`ci` is derandomized: the same commit runs the same examples, so a red run is red again.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "dev", max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=_SLOW
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
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
