"""`fate_rollout` (ours), and the parts it shares with `fate`: the incumbent and list schedules.

`policy` is the planner. `incumbent` keeps the best plan from event to event; `bases` are the list
schedules that propose plans; `candidates`, `joint_choice`, `tuning` and `search` look for better
ones; `uncertainty` and `race` decide under uncertainty. Every plan is valued by playing it
(`policies.fate.plans.play`).
"""
