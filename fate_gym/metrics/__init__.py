"""What a run was worth: outcomes, mechanism, lower bounds, state intensity, statistics."""
