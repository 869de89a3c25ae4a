"""Settings shared by all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# Examples are drawn from a fixed seed, so that a run says the same thing twice; the "explore"
# profile (HYPOTHESIS_PROFILE=explore) looks for new ones, "unshrunk" reports the first it finds.
settings.register_profile(
    "default",
    derandomize=True,
    max_examples=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "explore", settings.get_profile("default"), derandomize=False, max_examples=1000
)
settings.register_profile(
    "unshrunk",
    settings.get_profile("default"),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
# `make fuzz`: as many of each kind as it says.
settings.register_profile(
    "fuzz",
    settings.get_profile("default"),
    derandomize=False,
    max_examples=int(os.environ.get("FUZZ_MUTANTS", "1000")),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
