"""An independent check of a trace: a second implementation of the execution model.

Everything here is written from ``docs/execution-model.md`` alone, in plain Python, and shares no
code with the simulator: a fault goes unnoticed only if both implementations make it. Speed does
not matter.
"""

from fate_gym.validator.replay import assert_valid, validate

__all__ = ["assert_valid", "validate"]
