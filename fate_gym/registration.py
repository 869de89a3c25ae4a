"""Register the environment with Gymnasium.

``import fate_gym`` does this, which Gymnasium itself does when asked for
``fate_gym:fate_gym/WorkflowScheduling-v0``. The environment is imported only when it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register, registry

if TYPE_CHECKING:
    from fate_gym.env.vector import WorkflowSchedulingVectorEnv

ENV_ID = "fate_gym/WorkflowScheduling-v0"
MAX_EPISODE_STEPS = 100_000
"""A safeguard: legal actions always reach an end, and repeated illegal ones truncate earlier."""


def register_envs() -> None:
    """Register `ENV_ID`, once."""
    if ENV_ID not in registry:
        register(
            ENV_ID,
            entry_point="fate_gym.env.env:WorkflowSchedulingEnv",
            vector_entry_point="fate_gym.env.vector:WorkflowSchedulingVectorEnv",
            max_episode_steps=MAX_EPISODE_STEPS,
        )


def make_vec(num_envs: int, **arguments: Any) -> WorkflowSchedulingVectorEnv:
    """Make ``num_envs`` environments that step in one compiled call.

    Takes the arguments of `fate_gym.env.vector.WorkflowSchedulingVectorEnv`; the same as
    ``gymnasium.make_vec(ENV_ID, num_envs, ...)``.

    Raises:
        InputError: bad values.
        TypeError: unknown arguments.
    """
    from fate_gym.env.vector import WorkflowSchedulingVectorEnv

    limit = {"max_episode_steps": MAX_EPISODE_STEPS}
    return WorkflowSchedulingVectorEnv(num_envs, **(limit | arguments))
