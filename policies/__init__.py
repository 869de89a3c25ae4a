"""The policies: heuristics, list scheduling, FATE. `make_policy` makes one by name."""

from policies.base import Assignment, DecisionView, Policy
from policies.registry import build_policy, make_policy, policy_names, policy_specs

__all__ = [
    "Assignment",
    "DecisionView",
    "Policy",
    "build_policy",
    "make_policy",
    "policy_names",
    "policy_specs",
]
