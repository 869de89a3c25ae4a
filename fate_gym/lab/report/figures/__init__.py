"""Figures with matplotlib: each function returns one and touches no global state."""
