"""The FATE planner, one module for each of its parts."""
