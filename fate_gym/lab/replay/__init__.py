"""Executes the simulated schedule of one device on real hardware (docs/cost-model.md)."""
