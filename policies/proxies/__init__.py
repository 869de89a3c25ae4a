"""Proxies: rules of published serving systems, adapted to stages on devices. One file each.

A proxy takes the published scheduling rule and its published parameters. What the system leaves
open, or what has no counterpart here, is inferred; its docstring says what. None of them is the
system itself: engines, kernels and continuous batching are not modelled.
"""
