"""A serving engine that batches continuously, and what a benchmark would measure of it."""
