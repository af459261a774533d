"""How long fuzzing goes on: the same few examples in `make test`, new ones in `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large)

# Within `make test` every machine tries the same examples.
settings.register_profile(
    "fixed", derandomize=True, max_examples=150, deadline=None, suppress_health_check=SLOW
)
# `make fuzz` runs this again and again, each time from another seed.
settings.register_profile("long", max_examples=1500, deadline=None, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("FUZZ_PROFILE", "fixed"))
