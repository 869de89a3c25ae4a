"""The compiled execution model: the simulator's kernels and arrays (docs/kernel.md)."""
