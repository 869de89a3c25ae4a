"""Excerpts: what is in flight of a run as a small problem of its own, with numbers of its own.

What a planner does with a run costs what the run holds: copies of the state, loops over all stages.
An excerpt holds what is under way and what may soon be, whatever has been before and whatever else
the problem has. `selection` says what belongs to it, `problem` and `state` fill it.
"""
