"""The batching device, iteration by iteration and token by token.

Re-implements the section "The batching device" of docs/execution-model.md. Nothing uses a closed
form: every iteration is carried out.
"""

from fate_gym.validator.batching.replay import replay_batching
from fate_gym.validator.batching.run import Run
from fate_gym.validator.batching.waves import Job

__all__ = ["Job", "Run", "replay_batching"]
