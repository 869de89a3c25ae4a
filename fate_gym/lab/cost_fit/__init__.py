"""Fits the constants of the cost model on measured times, and tests them on held-out models."""
