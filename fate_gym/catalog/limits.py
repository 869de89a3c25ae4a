"""The largest and smallest numbers that problems, clusters, suites and catalogues may hold.

They are far beyond anything real, yet small enough that every time computed from accepted input is
finite and everything that has to be built fits in memory. Input beyond a limit is an error that
names the file, the field and the limit.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST_SECONDS = 1e9
"""31 years."""
LEAST_SECONDS = 1e-6
"""Shortest span that must take time: a clock at `MOST_SECONDS` can still resolve it."""
MOST_BYTES = 1e15
"""A petabyte in one edge or file."""
LEAST_RATE, MOST_RATE = 1e-12, 1e9
"""GB/s or TFLOP/s. Classical instances move one byte per second: 1e-9 GB/s."""
MOST_GB = 1e6
MOST_TOKENS = 10**8
"""Tokens of a query, all parts together."""
MOST_QUERIES = 10**6
MOST_DEVICES = 10_000
MOST_CHARACTERS = 512
"""Characters of a name or another text of a problem."""
MOST_STAGES = 100_000
"""Stages of one generated workflow."""
MOST_WORKFLOWS = 100_000
"""Workflows of one generated suite."""
MOST_FAILURES = 10_000
"""Failures of one device."""
MOST_SEED = 2**63 - 1
"""Seed of workloads and runs, which compiled code stores in 64 bits."""

Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS)]
PositiveSeconds = Annotated[float, Field(ge=LEAST_SECONDS, le=MOST_SECONDS)]
Limit = Annotated[float, Field(gt=0, le=MOST_SECONDS)]
"""Seconds that are only compared, never added up."""
Bytes = Annotated[float, Field(ge=0, le=MOST_BYTES)]
Rate = Annotated[float, Field(ge=LEAST_RATE, le=MOST_RATE)]
Gigabytes = Annotated[float, Field(ge=1e-9, le=MOST_GB)]
Share = Annotated[float, Field(ge=1e-6, le=1)]
Amount = Annotated[float, Field(ge=0, le=1e9)]
"""Watts, prices, ratios: anything that is not negative."""
PositiveAmount = Annotated[float, Field(ge=1e-9, le=1e9)]
Billions = Annotated[float, Field(ge=1e-9, le=1e6)]
"""Parameters of a model, in billions."""
Size = Annotated[int, Field(ge=0, le=10**6)]
"""Layers, heads, widths and experts of a model."""
Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Queries = Annotated[int, Field(ge=1, le=MOST_QUERIES)]
Devices = Annotated[int, Field(ge=1, le=MOST_DEVICES)]
Stages = Annotated[int, Field(ge=1, le=MOST_STAGES)]
Workflows = Annotated[int, Field(ge=1, le=MOST_WORKFLOWS)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
