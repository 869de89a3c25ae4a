"""The lab: jobs, sweeps, reports, tracking, trainings and the command line.

No other package of the project imports this one. Heavy or optional packages are imported inside the
functions that need them if jobs or other commands would otherwise start more slowly.
"""
