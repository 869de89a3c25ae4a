"""What runs compiled: the execution model on arrays (docs/kernel.md)."""
