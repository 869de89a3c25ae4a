"""References, not contestants: what could be reached with all of the problem known at the start."""
