"""Proxies: scheduling rules of published serving systems, adapted to this model. One file each.

A proxy takes the published scheduling rule and its published parameters. What the publication
leaves open, or what has no counterpart here, is inferred. Each docstring lists what is taken, what
is inferred, what is left out, and what the rule cannot see. No proxy is the system itself: engines
and kernels are not modelled.

Most of the systems were made for engines with continuous batching, which clusters with
``execution: batching`` provide. There a rule that counts, waits or measures throughput uses the
same quantities as in the published system; on exclusive devices it uses the nearest equivalent.
Docstrings give both.
"""
