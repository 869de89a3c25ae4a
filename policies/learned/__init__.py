"""Agents trained in the environment, as policies (docs/learned.md).

Playing needs only NumPy and numba. Training needs the packages of the extra ``rl`` (torch and
others), as do checkpoints of networks without a compiled forward pass.
"""
