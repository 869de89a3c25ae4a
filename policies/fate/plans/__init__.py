"""Plans: how they are kept, changed and played.

A plan says for every stage where it runs and in what order. It is *played* (`play`): whenever
something can start on a device, the ready stage that comes first in the order and is planned there
does. A stage without devices in the plan chooses its own, as a list scheduler does. So a list
schedule is a plan in which no stage has devices, and a candidate is one in which a single stage
has. A play leaves the plan as it is; `schema.Context.played` is what the play made of it: a plan in
which every stage that was placed has its devices, which can be played again, changed, and compared.
"""
