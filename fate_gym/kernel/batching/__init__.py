"""Devices with continuous batching (docs/execution-model.md, "The batching device").

`pace` computes how long iterations take, `waves` keeps a device's waves in lists, `admission`
decides what is admitted and updates memory, `border` handles what happens between two iterations,
and `foresight` plays a device forward for estimates.
"""
