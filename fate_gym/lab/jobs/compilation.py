"""Compilation ahead of jobs, so that it does not happen within one."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from fate_gym.errors import InputError


def compile_policies(names: Iterable[str]) -> None:
    """Compile everything that these registered policies will call."""
    import fate_gym.sim  # noqa: F401
    from fate_gym.jit.build import REGISTRY, build
    from policies.registry import policy_class, policy_specs

    specs = policy_specs()
    with suppress(InputError):  # raised again when the policy is made
        for name in names:
            policy_class(specs[name])
    build(REGISTRY)
