"""Many jobs: how a command line becomes jobs, how they run, and how their results are read."""
