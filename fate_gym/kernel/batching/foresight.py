"""A batching device played forward, for estimates: nobody else comes, nothing surprising happens.

The waves are copied into small arrays, in which lists are ranges of positions; the state stays as
it is. Ends come in the order of stops, so that each change of the batch takes constant time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fate_gym.jit import Block, Row, column, inlined, kernel, scalar, table
from fate_gym.kernel.batching.admission import inflow_of, wave_of
from fate_gym.kernel.batching.border import prompt_of
from fate_gym.kernel.batching.pace import (
    GRAZE,
    Pace,
    chunk_of,
    iteration_seconds,
    iterations_until,
    pace_of,
    seconds_of,
)
from fate_gym.kernel.batching.waves import context_of, rests
from fate_gym.kernel.cost import context_hit_tokens, prefix_hit_tokens
from fate_gym.kernel.numbers import slot_of
from fate_gym.kernel.schema import FIXED_STAGE, ProblemArrays, StateArrays
