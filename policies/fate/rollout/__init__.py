"""`fate_rollout` (ours), and what it shares with `fate`: the best plan so far, and list schedules.

`policy` is the planner. `incumbent` keeps the best plan from event to event; `bases` and `orders`
are the list schedules that offer plans; `candidates`, `joint_choice`, `tuning` and `search` look
for better ones. Everything is valued by playing it (`valuing`).
"""
