"""Agents trained in the environment, as policies (docs/learned.md).

Playing needs numpy and numba only; torch and its kin (the extra ``rl``) are for training, and for
checkpoints of networks without a compiled forward pass.
"""
