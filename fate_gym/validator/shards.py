"""Loads, times and token counts of one shard.

Re-implements a commit as described in the section "Time" of docs/execution-model.md.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from fate_gym.validator import memory
from fate_gym.validator.costs import Costs
from fate_gym.validator.network import Inflow, inflow_of_shard, inflow_of_tool
from fate_gym.validator.state import Row, Shard, State
from fate_gym.validator.world import TOLERANCE, Node

_CLOCK = 8 * sys.float_info.epsilon / TOLERANCE
"""Rounding error of a time, relative to it, in units of the tolerance."""


@dataclass(frozen=True)
class Work:
    """Estimated seconds of a shard without its transfers, and its waves."""

    load: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    waves: int = 1


def run_tool(state: State, node: Node, row: Row) -> Shard:
    """Check a tool run."""
    inflow = inflow_of_tool(state, node, row)
    state.faults.differ(state.at(row), "source", -1, row["source"])
    seconds = node.stage.tool_seconds or 0.0
    noise, _ = drawn(state, node, row)
    _compare(state, node, row, inflow, Work(decode=seconds))
    return Shard(row, inflow.turn, inflow.turn + inflow.transfer + seconds * noise)


def run_shard(state: State, node: Node, row: Row) -> Shard:
    """Check one shard on a device and update the device's memory."""
    device = row["device"]
    noise, length = drawn(state, node, row)
    inflow = inflow_of_shard(state, node, row)
    work = _work(state, node, row, inflow)
    moved = max(work.load, inflow.transfer)
    busy = moved + work.prefill + work.decode
    end = inflow.turn + (moved + work.prefill + work.decode * length) * noise
    _compare(state, node, row, inflow, work)
    if node.model is not None:
        memory.commit(state, node, row, inflow.hits, end)
    state.memories[device].drains = end
    shard = Shard(row, inflow.turn, end, busy, inflow.fetch)
    state.placed[device].append(shard)
    return shard


def _work(state: State, node: Node, row: Row, inflow: Inflow) -> Work:
    machine = state.world.machines[row["device"]]
    if node.stage.seconds_on is not None:
        return Work(decode=node.stage.seconds_on[machine.name])
    assert node.model is not None
    load = 0.0
    if state.world.models.index(node.model.name) not in state.memories[row["device"]].weights:
        load = state.world.load_seconds(node.model, machine)
    costs = Costs(state.world, node, machine)
    waves, decode = costs.decode(row["queries"])
    return Work(load, costs.prefill(row["queries"], inflow.hits), decode, waves)


def _compare(state: State, node: Node, row: Row, inflow: Inflow, work: Work) -> None:
    """Compare everything but start and end, which a loss may change.

    A shard without a model meets no cache.
    """
    where, differ = state.at(row), state.faults.differ
    options = state.world.problem.options
    # Eager transfers and those that wait for the network are differences of times, so their
    # rounding errors are those of the turn.
    scale = inflow.turn if options.eager_transfers or options.contention else 0.0
    differ(where, "load_s", work.load, row["load_s"])
    differ(where, "transfer_s", inflow.transfer, row["transfer_s"], scale)
    # The log's prefill is a difference of times, and only as exact as these.
    moment = inflow.turn + work.load + inflow.transfer + work.prefill + work.decode
    differ(where, "prefill_s", work.prefill, row["prefill_s"], _CLOCK * moment)
    differ(where, "decode_s", work.decode, row["decode_s"])
    differ(where, "waves", work.waves, row["waves"])
    differ(where, "bytes_moved", inflow.bytes_moved, row["bytes_moved"])
    if node.model is None:
        for name in ("prefix_hit", "prefix_new", "context_hit", "context_new", "copied"):
            differ(where, name, 0.0, row[name])
        return
    hits, n = inflow.hits, row["queries"]
    whole = n * float(node.inherited)
    new = float(node.stage.prefix_tokens - hits.prefix)
    differ(where, "copied", hits.copied, row["copied"])
    differ(where, "prefix_hit", hits.prefix, row["prefix_hit"])
    differ(where, "prefix_new", new, row["prefix_new"])
    differ(where, "context_hit", n * hits.cached, row["context_hit"], whole)
    rest = whole - n * (hits.cached + hits.gone)
    differ(where, "context_new", rest, row["context_new"], whole)


def drawn(state: State, node: Node, row: Row) -> tuple[float, float]:
    """Return noise and actual / estimated tokens from the trace; 1 where nothing is uncertain."""
    options = state.world.problem.options
    sigmas = {
        "noise": options.uncertainty,
        "length": options.length_uncertainty if node.model is not None else 0.0,
    }
    for name, sigma in sigmas.items():
        got = row[name]
        if sigma == 0:
            if got != 1.0:
                state.faults.append(f"{state.at(row)}: {name}: expected 1.0, got {got!r}")
        elif not (got > 0 and math.isfinite(got)):
            state.faults.stop(f"{state.at(row)}: {name}: expected a positive number, got {got!r}")
    noise, length = (row[name] if sigma else 1.0 for name, sigma in sigmas.items())
    return noise, length
