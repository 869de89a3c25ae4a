"""FATE, as published (`paper`) and ours (`rollout`); `plan` is the planner as a library call."""

from policies.fate.snapshot import PlannedStage, plan

__all__ = ["PlannedStage", "plan"]
