"""Metrics of a run: outcomes, mechanism, lower bounds, state intensity, statistics."""
