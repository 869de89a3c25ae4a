"""The replay of a trace, placement by placement.

Re-implements the order of events of the section "Time" of docs/execution-model.md.
"""

from __future__ import annotations

import math
from bisect import insort
from typing import TYPE_CHECKING

from fate_gym.validator.batching import replay_batching
from fate_gym.validator.choices import check_draws
from fate_gym.validator.failures import check_outages, check_survivors, pass_time
from fate_gym.validator.placements import check_all_ran, check_placement, node_of, placements
from fate_gym.validator.shards import run_shard, run_tool
from fate_gym.validator.state import Placement, Row, State, StopError
from fate_gym.validator.totals import check_evictions, check_numbering, check_totals, check_turns
from fate_gym.validator.world import Node

if TYPE_CHECKING:
    from fate_gym.sim.trace import Trace


def validate(trace: Trace) -> list[str]:
    """Return every way in which a trace breaks the execution model; empty for a valid trace.

    The shards are replayed in commit order; those of batching devices, iteration by iteration in
    the order of time. Commit times, placements, sources of copied prefixes, retentions, draws of
    choosers, random outages and (with uncertainty) noise and lengths are taken from the trace;
    everything else is recomputed and compared. A fault that makes the rest meaningless (wrong
    numbering, a stage before its parents, a device that cannot host the stage) is reported and ends
    the replay.
    """
    state = State(trace)
    check_numbering(state)
    if state.faults:
        return state.faults
    names = trace.shards.dtype.names or ()
    rows: list[Row] = [
        {"index": index} | dict(zip(names, values, strict=True))
        for index, values in enumerate(trace.shards.tolist())
    ]
    try:
        check_outages(state)
        check_draws(state)
        if trace.problem.cluster.serving.batching:
            replay_batching(state, rows)
        else:
            _replay(state, rows)
            check_evictions(state)
            check_turns(state, rows)
        check_totals(state)
    except StopError:
        state.faults.append("the replay stopped at the fault above")
    return state.faults


def assert_valid(trace: Trace) -> None:
    """Raise `AssertionError` with the violations of a trace, if it has any."""
    faults = validate(trace)
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:20])
        raise AssertionError(f"invalid trace, {len(faults)} violations:\n{shown}")


def _replay(state: State, rows: list[Row]) -> None:
    for placed in placements(rows):
        node = node_of(state, placed)
        # Failures come last in their instant, after a tool starts but before a policy's choice.
        pass_time(state, placed[0]["committed"], failures_too=node.stage.kind != "tool")
        if node.number in state.done:
            state.faults.stop(f"{node.name}: committed twice")
        check_placement(state, node, placed)
        _place(state, node, placed)
    pass_time(state, math.inf, failures_too=True)
    check_all_ran(state)
    check_survivors(state)


def _place(state: State, node: Node, rows: list[Row]) -> None:
    """Run the shards of a placement and note the end of the stage."""
    run = run_tool if node.stage.kind == "tool" else run_shard
    shards = {row["device"]: run(state, node, row) for row in rows}
    ends = [shard.end for shard in shards.values()]
    end = max(ends) + (len(rows) - 1) * state.world.facts.gather_s
    for moment in ends:
        insort(state.events, moment)
    state.end(Placement(node, shards, end))
