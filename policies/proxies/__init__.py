"""Proxies: rules of published serving systems, adapted to stages on devices. One file each.

A proxy takes the published scheduling rule and its published parameters. What the system leaves
open, or what has no counterpart here, is inferred; its docstring says what. None of them is the
system itself: engines and kernels are not modelled.

Most of the systems were made for engines with continuous batching, and find them on clusters with
``execution: batching``. A rule that counts, waits or measures throughput reads there what it reads
in the published system; on exclusive devices it reads what comes nearest. Docstrings say both.
"""
