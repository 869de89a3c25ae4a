"""Valid ranges of policy parameters, as annotations for constructors.

`policies.registry` checks them before anything runs. They are far wider than useful values: within
them a policy can play every problem, given the time and memory that its parameters ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

MaxShards = Annotated[int, Field(ge=1, le=16)]
"""The same range as in a problem's options."""
Few = Annotated[int, Field(ge=0, le=64)]
Some = Annotated[int, Field(ge=1, le=64)]
"""Sizes in which memory and time grow linearly."""
Window = Annotated[int, Field(ge=1, le=1024)]
Count = Annotated[int, Field(ge=1, le=10**6)]
CountOrNone = Annotated[int, Field(ge=0, le=10**6)]
"""0: none."""
Tokens = Annotated[int, Field(ge=1, le=10**8)]
Work = Annotated[int, Field(ge=0, le=10**9)]
"""In the units of `policies.fate.plans.schema.Workspace.work`."""
Seed = Annotated[int, Field(ge=0, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Weights, and ratios used as thresholds."""
Shares = Annotated[Sequence[Weight], Field(min_length=1, max_length=16)]
PositiveWeight = Annotated[float, Field(ge=1e-6, le=1e6)]
Period = Annotated[float, Field(ge=1e-6, le=1e9)]
"""Seconds."""
Milliseconds = Annotated[float, Field(ge=0, le=1e6)]
Samples = Annotated[int, Field(ge=0, le=4096)]
"""Number of drawn futures; memory and time grow linearly in it."""
SolverTime = Annotated[float, Field(ge=0, le=3_600)]
"""CP-SAT's deterministic time."""
