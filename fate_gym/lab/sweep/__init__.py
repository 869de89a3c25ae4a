"""Sweeps of jobs: from the command line to jobs, running them, and reading their results."""
