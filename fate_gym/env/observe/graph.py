"""The observed stages and edges of the workflows that have arrived."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.features import NODE, NODE_WIDTH, STAGE_WIDTH, STATIC_FROM, STATIC_TO
from fate_gym.env.observe.stages import life
from fate_gym.env.schema import FeatureRows, Run
from fate_gym.jit import kernel
from fate_gym.kernel.schema import ProblemArrays, StateArrays

Pairs = Annotated[NDArray[np.int32], 2]


@kernel
def write_nodes(run: Run, nodes: FeatureRows) -> None:
    """Fill ``nodes`` (max_stages, F)."""
    p, st, f, ep = run.problem, run.state, run.facts, run.episode
    for s in range(nodes.shape[0]):
        for c in range(nodes.shape[1]):
            nodes[s, c] = 0.0
    for i in range(st.arrived_count):
        workflow = p.workflows[st.arrived[i]]
        for s in range(workflow.stages_from, workflow.stages_to):
            nodes[s, NODE.present] = 1.0
            for c in range(STATIC_FROM, STATIC_TO):
                nodes[s, c] = f.stage_rows[s, c]
            for c in range(nodes.shape[1] - NODE_WIDTH):
                nodes[s, NODE_WIDTH + c] = f.stage_rows[s, STAGE_WIDTH + c]
            nodes[s, NODE.waiting + st.stages[s].status] = 1.0
            nodes[s, NODE.lives] = life(p, st, s)
    for i in range(ep.shown):
        nodes[ep.window[i], NODE.slot] = (i + 1) / ep.window.size


@kernel
def write_edges(p: ProblemArrays, st: StateArrays, edges: Pairs) -> None:
    """Fill ``edges`` (max_edges, 2) with parent and child; -1 for edges that have not arrived."""
    for e in range(edges.shape[0]):
        edges[e, 0] = -1
        edges[e, 1] = -1
    for i in range(st.arrived_count):
        workflow = p.workflows[st.arrived[i]]
        for s in range(workflow.stages_from, workflow.stages_to):
            for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
                edges[e, 0] = p.edges[e].parent
                edges[e, 1] = s
