"""List scheduling, compiled: one parametric core under EFT, Min-Min, HEFT, PEFT and the planners.

A list scheduler is an *order* over ready stages x a *rule* for the device x *when* it commits:
`rules` names the choices, `orders` says who chooses next, `devices` where it goes, and `play`
decides one instant or plays a whole run. What an order or a rule looks up for each stage is made
in `tables`. `policy` wraps it all up; with *insertion*, whole workflows are planned: `offline`.
"""
