"""Devices that batch continuously (docs/execution-model.md, "The batching device").

`pace` says how long iterations take, `waves` where the waves of a device are, `admission` who may
come in and what that does to memory, `border` what happens between two iterations, and `foresight`
plays a device forward for estimates.
"""
