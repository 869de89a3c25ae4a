"""A Gymnasium environment and policy lab for scheduling heterogeneous LLM workflows on GPUs."""

__version__ = "0.1.0"
