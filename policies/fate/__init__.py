"""FATE as published (`paper`) and our variant (`rollout`); `plan` is the library call."""

from policies.fate.snapshot import PlannedStage, plan

__all__ = ["PlannedStage", "plan"]
