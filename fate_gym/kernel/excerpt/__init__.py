"""Excerpts: the part of a run in flight, as a small problem with its own numbering.

A planner's work grows with the size of the run: it copies the state and loops over all stages. An
excerpt holds only what is under way or may soon be, however much has happened before and whatever
else the problem has. `selection` decides what belongs to it, `problem` and `state` fill it.
"""
