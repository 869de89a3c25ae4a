"""A simulated schedule of one device, executed in earnest and timed (docs/cost-model.md)."""
