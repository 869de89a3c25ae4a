"""The FATE planner, one module for each of its parts; `plan` is the planner as a library call."""

from policies.fate.snapshot import Placement, plan

__all__ = ["Placement", "plan"]
