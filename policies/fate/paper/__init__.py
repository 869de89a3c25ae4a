"""`fate`, a reconstruction of the published planner (Huang et al., arXiv 2605.07238).

`policy` is the planner. `candidates` lists the placements of the frontier, `score` prices what they
cost now and later, and `solver` picks one for every stage, by CP-SAT.
"""
