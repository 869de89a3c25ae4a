"""Plans: how they are stored, changed and played.

A plan gives every stage its devices and its place in an order. A plan is *played* (`play`):
whenever a device can start something, the first ready stage in the order that is planned there
starts. A stage without devices in the plan chooses its own, as in a list scheduler. So a list
schedule is a plan in which no stage has devices, and a candidate is one in which a single stage
has. A play does not change the plan; the outcome is `schema.Context.played`, a plan in which every
stage that was placed has its devices, and which can be played again, changed and compared.
"""
