"""The lab: one job of a sweep, its result files, tracking, reports and the command line.

Nothing imports this room. Heavy and optional packages are imported inside the functions that need
them, so that a job starts fast.
"""
