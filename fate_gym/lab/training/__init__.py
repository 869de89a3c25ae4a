"""Trains agents in the environment (docs/learned.md). Needs the extra ``rl``."""
