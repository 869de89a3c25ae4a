"""Weights & Biases: copies of finished jobs and trainings. The result files are authoritative."""
