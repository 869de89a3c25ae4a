"""Ranges of policies' parameters, wide of anything useful: annotations of constructors.

`policies.registry` checks them before anything runs. Inside them a policy plays every problem, in
the time and memory that its parameters ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

MaxShards = Annotated[int, Field(ge=1, le=16)]
"""As of a problem's options."""
Few = Annotated[int, Field(ge=0, le=64)]
Some = Annotated[int, Field(ge=1, le=64)]
"""Sizes that memory and time are multiplied by."""
Window = Annotated[int, Field(ge=1, le=1024)]
Count = Annotated[int, Field(ge=1, le=10**6)]
CountOrNone = Annotated[int, Field(ge=0, le=10**6)]
"""0: none."""
Tokens = Annotated[int, Field(ge=1, le=10**8)]
Work = Annotated[int, Field(ge=0, le=10**9)]
"""In units of `policies.fate.plans.schema.Workspace`."""
Seed = Annotated[int, Field(ge=0, le=10**9)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Weights, and ratios that are compared with."""
Shares = Annotated[Sequence[Weight], Field(min_length=1, max_length=16)]
PositiveWeight = Annotated[float, Field(ge=1e-6, le=1e6)]
Period = Annotated[float, Field(ge=1e-6, le=1e9)]
"""Seconds."""
Milliseconds = Annotated[float, Field(ge=0, le=1e6)]
Samples = Annotated[int, Field(ge=0, le=4096)]
"""Drawn futures: memory and time are multiplied by them."""
SolverTime = Annotated[float, Field(ge=0, le=3_600)]
"""CP-SAT's deterministic time."""
