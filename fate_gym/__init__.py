"""A Gymnasium environment and policy lab for scheduling heterogeneous LLM workflows on GPUs."""

from fate_gym.registration import ENV_ID, make_vec, register_envs

__version__ = "0.1.0"
__all__ = ["ENV_ID", "make_vec"]

register_envs()
