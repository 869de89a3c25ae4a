"""The lab: jobs, sweeps, reports, tracking, trainings and the command line.

Nothing imports this package. Packages that are heavy or optional are imported inside the functions
that need them where a job, or a command that does without them, would start slower otherwise.
"""
