"""Reference schedules, not competitors: what is reachable if the whole problem is known upfront."""
