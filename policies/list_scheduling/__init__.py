"""Compiled list scheduling: one parametric core behind EFT, Min-Min, HEFT, PEFT and the planners.

A list scheduler combines an *order* of the ready stages, a *rule* that picks the device, and
*when* it commits: `rules` names the choices, `orders` decides which stage chooses next, `devices`
where it goes, and `play` decides one instant or plays a whole run. `tables` precomputes what
orders and rules look up for each stage. `policy` wraps all this as policies; `offline` plans whole
workflows, with *insertion*.
"""
