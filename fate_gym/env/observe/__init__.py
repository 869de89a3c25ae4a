"""The observation, written in one compiled pass (features: `fate_gym.env.features`)."""

from __future__ import annotations

from fate_gym.env.observe.candidates import plan_ahead, update_candidates, write_candidates
from fate_gym.env.observe.devices import update_devices, write_devices
from fate_gym.env.observe.graph import write_edges, write_nodes
from fate_gym.env.observe.run import write_globals
from fate_gym.env.observe.stages import write_stages
from fate_gym.env.observe.window import open_window, select_window
from fate_gym.env.schema import EpisodeArrays, FactsArrays, ObservationArrays
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.advance import can_wait
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import ProblemArrays, StateArrays


@kernel
def observe(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    out: ObservationArrays,
) -> None:
    """Bring window and placements up to date, and write the observation."""
    select_window(st, f, ep)
    update_devices(p, st, f, ep)
    for slot in range(ep.shown):
        update_candidates(p, st, f, ep, c, slot)
    plan_ahead(p, f, ep, c)
    ep.can_wait = ep.ended == 0 and (can_wait(p, st) or st.ready_count == 0)
    _write_mask(f, ep, c, out)
    if out.candidates.size > 0:
        write_candidates(f, ep, out.candidates)
    if out.stages.size > 0:
        write_stages(p, st, f, ep, out.stages)
    if out.devices.size > 0:
        write_devices(p, st, f, ep, out.devices)
    if out.globals.size > 0:
        write_globals(p, st, f, ep, out.globals)
    if out.dag_nodes.size > 0:
        write_nodes(p, st, f, ep, out.dag_nodes)
        write_edges(p, st, out.dag_edges)


@inlined
def _write_mask(f: FactsArrays, ep: EpisodeArrays, c: Placements, out: ObservationArrays) -> None:
    mask = out.action_mask
    for slot in range(ep.shown):
        at, base = slot * f.positions, ep.lines[slot] * f.positions
        for i in range(f.positions):
            mask[at + i] = c.rows[base + i].width > 0
    for i in range(ep.shown * f.positions, mask.size - 1):
        mask[i] = 0
    mask[mask.size - 1] = ep.can_wait


__all__ = ["observe", "open_window"]
