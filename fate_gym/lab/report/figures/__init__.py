"""Figures with matplotlib: each function returns a figure and changes no global state."""
