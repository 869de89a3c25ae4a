"""Weights & Biases: mirrors of finished jobs and of trainings. Result files are the record."""
