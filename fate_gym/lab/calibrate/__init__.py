"""Calibrates the cost model on the user's own GPU: measure, fit, write (docs/cost-model.md)."""
