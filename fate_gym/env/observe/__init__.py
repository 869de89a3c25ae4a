"""The observation, written in one compiled pass (features: `fate_gym.env.features`)."""

from __future__ import annotations

from fate_gym.env.observe.ahead import plan_ahead
from fate_gym.env.observe.candidates import update_candidates, write_candidates
from fate_gym.env.observe.devices import update_devices, write_devices
from fate_gym.env.observe.graph import write_edges, write_nodes
from fate_gym.env.observe.run import write_globals
from fate_gym.env.observe.stages import write_stages
from fate_gym.env.observe.window import open_window, select_window
from fate_gym.env.schema import ObservationArrays, Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.advance import can_wait


@kernel
def observe(run: Run, out: ObservationArrays) -> None:
    """Update window and placements, and write the observation."""
    p, st, f, ep = run.problem, run.state, run.facts, run.episode
    select_window(run)
    update_devices(run)
    for slot in range(ep.shown):
        update_candidates(run, slot)
    plan_ahead(run)
    ep.can_wait = ep.ended == 0 and (can_wait(p, st) or st.ready_count == 0)
    _write_mask(run, out)
    out.invalid_streak[0] = min(1.0, ep.invalid_streak / f.most_invalid)
    if out.candidates.size > 0:
        write_candidates(f, ep, out.candidates)
    if out.stages.size > 0:
        write_stages(run, out.stages)
    if out.devices.size > 0:
        write_devices(run, out.devices)
    if out.globals.size > 0:
        write_globals(run, out.globals)
    if out.dag_nodes.size > 0:
        write_nodes(run, out.dag_nodes)
        write_edges(p, st, out.dag_edges)


@inlined
def _write_mask(run: Run, out: ObservationArrays) -> None:
    ep, mask, positions = run.episode, out.action_mask, run.facts.positions
    for slot in range(ep.shown):
        at, base = slot * positions, ep.lines[slot] * positions
        for i in range(positions):
            mask[at + i] = run.placements.rows[base + i].width > 0
    for i in range(ep.shown * positions, mask.size - 1):
        mask[i] = False
    # Learners also take an action in the last observation, where nothing is left to place:
    # one has to be legal there.
    mask[mask.size - 1] = ep.can_wait != 0 or ep.ended != 0


__all__ = ["observe", "open_window"]
