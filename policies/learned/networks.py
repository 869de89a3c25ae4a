"""Networks that score the candidates of an observation (torch).

All of them take a batch of B observations as tensors by key. They return scores of the actions
``(B, S P + 1)`` (S slots, P positions, waiting last) and a summary ``(B, H)`` that a value head can
use. Only features that every problem has are read: columns about individual models mean something
else in the next problem.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fate_gym.env.features import (
    CANDIDATE_WIDTH,
    DEVICE_WIDTH,
    GLOBAL_WIDTH,
    NODE,
    NODE_WIDTH,
    STAGE_WIDTH,
)
from fate_gym.env.spec import MASK
from policies.learned.fused import Combine, Pool
from policies.learned.pointer import CANDIDATE_INPUTS, CLOSE, FINE

Batch = dict[str, Tensor]
Kind = Literal["pointer", "graph", "mlp"]

_WIDTHS = {
    "stages": STAGE_WIDTH,
    "devices": DEVICE_WIDTH,
    "candidates": CANDIDATE_WIDTH,
    "globals": GLOBAL_WIDTH,
}
combine: Any = Combine.apply
pool: Any = Pool.apply


class PointerNetwork(nn.Module):
    """Scores each legal candidate; equivariant to the order of slots and of devices.

    The encoding of a candidate combines its own row with those of its stage and its device (none
    for a split placement) and with a summary of the whole observation. Each round then adds the
    maximum over the candidates of its slot, the maximum over those of its position (competitors for
    the device), and the mean over all. The parameters do not depend on the number of rows.

    Args:
        hidden: H, units of every layer.
        rounds: R, rounds of exchange between candidates.
    """

    def __init__(self, hidden: int = 32, rounds: int = 2) -> None:
        super().__init__()
        self.hidden, self.rounds = hidden, rounds
        self.stage_in = nn.Linear(STAGE_WIDTH, hidden)
        self.device_in = nn.Linear(DEVICE_WIDTH, hidden)
        self.context_in = nn.Linear(GLOBAL_WIDTH + 2 * hidden, hidden)
        self.candidate_in = nn.Linear(CANDIDATE_INPUTS, hidden)
        self.from_stage = nn.Linear(hidden, hidden, bias=False)
        self.from_device = nn.Linear(hidden, hidden, bias=False)
        self.from_context = nn.Linear(hidden, hidden, bias=False)
        self.own = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(rounds))
        self.from_slot, self.from_place, self.from_all = (
            nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(rounds))
            for _ in range(3)
        )
        self.score = nn.Linear(hidden, 1)
        self.wait_in = nn.Linear(3 * hidden, hidden)
        self.wait_out = nn.Linear(hidden, 1)
        self.value_in = nn.Linear(3 * hidden, hidden)
        for last in (self.score, self.wait_out):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)

    def encode_stages(self, batch: Batch) -> Tensor:
        """Return (B, S, H) encodings of the stages in the slots."""
        return self.stage_in(batch["stages"][..., :STAGE_WIDTH]).relu()

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return scores (0 where the mask is 0, except for waiting) and the summary."""
        mask = batch[MASK] > 0.5
        stages, devices = batch["stages"], batch["devices"]
        size, slots = stages.shape[:2]
        number = devices.shape[1]
        actions = mask.shape[1] - 1
        positions = actions // slots
        lane, action = mask[:, :-1].nonzero(as_tuple=True)
        row = lane * slots + action // positions
        place = lane * positions + action % positions

        stage = self.encode_stages(batch)
        device = self.device_in(devices[..., :DEVICE_WIDTH]).relu()
        known = [
            batch["globals"][..., :GLOBAL_WIDTH],
            _mean_of_present(stages, stage),
            _mean_of_present(devices, device),
        ]
        around = self.context_in(torch.cat(known, dim=1)).relu()

        inputs = _candidate_inputs(batch["candidates"][lane, action])
        of_device = nn.functional.pad(self.from_device(device), (0, 0, 0, positions - number))
        where = torch.stack([lane, row, place])
        z = combine(
            self.candidate_in(inputs),
            self.from_stage(stage).flatten(0, 1),
            of_device.flatten(0, 1),
            self.from_context(around),
            where,
        )
        count = mask[:, :-1].sum(1, keepdim=True).clamp(min=1)
        sizes = (size, size * slots, size * positions)
        for own, from_slot, from_place, from_all in zip(
            self.own, self.from_slot, self.from_place, self.from_all, strict=True
        ):
            of_slot, of_place, total = pool(z, where, sizes)
            z = combine(
                z + own(z),
                from_slot(of_slot),
                from_place(of_place),
                from_all(total / count),
                where,
            )
        by_lane = torch.stack([lane, lane, place])
        maximum, _, total = pool(z, by_lane, (size, size, size * positions))
        pooled = torch.cat([total / count, maximum, around], dim=1)
        scores = z.new_zeros(size, actions + 1)
        scores[lane, action] = self.score(z).squeeze(1)
        scores[:, -1] = self.wait_out(self.wait_in(pooled).relu()).squeeze(1)
        return scores, self.value_in(pooled).relu()


class GraphNetwork(PointerNetwork):
    """The pointer network with a graph encoder: stages see the unfinished work after them.

    Messages travel from children to parents, over up to ``depth`` edges; the result at a stage in
    the window is added to its encoding. Needs the observation's ``dag`` keys.

    Args:
        hidden: H, units of every layer.
        rounds: R, rounds of exchange between candidates.
        depth: number of edges that a message travels.
    """

    def __init__(self, hidden: int = 32, rounds: int = 2, depth: int = 3) -> None:
        super().__init__(hidden, rounds)
        self.depth = depth
        self.node_in = nn.Linear(NODE_WIDTH, hidden)
        self.from_node = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth))
        self.from_children = nn.ModuleList(
            nn.Linear(2 * hidden, hidden, bias=False) for _ in range(depth)
        )
        self.node_to_stage = nn.Linear(hidden, hidden)

    def encode_stages(self, batch: Batch) -> Tensor:
        nodes = batch["dag_nodes"][..., :NODE_WIDTH]
        size, rows = nodes.shape[:2]
        slots = batch["stages"].shape[1]
        wanted = (nodes[..., 0] > 0.5) & (nodes[..., NODE.ended] < 0.5)
        number = torch.cumsum(wanted.view(-1), 0) - 1  # place of each wanted node in a compact list
        lane, node = wanted.nonzero(as_tuple=True)
        features = nodes[lane, node]
        h = self.node_in(features).relu()
        parent, child = batch["dag_edges"].long().unbind(-1)
        base = torch.arange(size, device=nodes.device).unsqueeze(1) * rows
        seen = parent >= 0
        parent, child = (parent + base)[seen], (child + base)[seen]
        alive = wanted.view(-1)[parent] & wanted.view(-1)[child]
        parent, child = number[parent[alive]], number[child[alive]]
        children = _total(h.new_ones(parent.shape[0], 1), parent, h.shape[0]).clamp(min=1)
        for own, from_children in zip(self.from_node, self.from_children, strict=True):
            below = h.index_select(0, child)
            message = torch.cat(
                [_total(below, parent, h.shape[0]) / children, _maximum(below, parent, h.shape[0])],
                dim=1,
            )
            h = (h + own(h) + from_children(message)).relu()
        slot = (features[:, NODE.slot] * slots).round().long() - 1
        shown = slot >= 0
        at = lane[shown] * slots + slot[shown]
        found = h.new_zeros(size * slots, self.hidden).index_copy(
            0, at, self.node_to_stage(h[shown])
        )
        return super().encode_stages(batch) + found.view(size, slots, self.hidden).relu()


class FlatNetwork(nn.Module):
    """The naive reference: a plain MLP over all rows, concatenated; sizes are fixed.

    Args:
        slots: S.
        devices: D.
        actions: S P + 1.
        hidden: units of its two layers.
    """

    def __init__(self, slots: int, devices: int, actions: int, hidden: int = 128) -> None:
        super().__init__()
        self.hidden = hidden
        rows = {"stages": slots, "devices": devices, "candidates": actions - 1, "globals": 1}
        width = sum(count * _WIDTHS[key] for key, count in rows.items())
        self.body = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.score = nn.Linear(hidden, actions)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return scores and the summary."""
        rows = [batch[key][..., :width].flatten(1) for key, width in _WIDTHS.items()]
        summary = self.body(torch.cat(rows, dim=1))
        return self.score(summary), summary


def make_network(
    kind: Kind, *, slots: int, devices: int, actions: int, **params: Any
) -> PointerNetwork | FlatNetwork:
    """Make a network by kind; only the plain MLP uses the sizes."""
    if kind == "mlp":
        return FlatNetwork(slots, devices, actions, **params)
    return GraphNetwork(**params) if kind == "graph" else PointerNetwork(**params)


def _candidate_inputs(rows: Tensor) -> Tensor:
    """Return the candidates' rows, with `CLOSE` also at finer scales and as flags (not above 0)."""
    parts = [rows[:, :CANDIDATE_WIDTH]]
    for column in CLOSE:
        later = rows[:, column : column + 1]
        unscaled = later / (1.0 - later.abs()).clamp(min=1e-6)
        parts += [unscaled / (unscaled.abs() + scale) for scale in FINE]
        parts.append((later <= 0.0).float())
    return torch.cat(parts, dim=1)


def _mean_of_present(rows: Tensor, encoded: Tensor) -> Tensor:
    """Return (B, H) the mean over the rows that are present (first feature above 0)."""
    present = (rows[..., :1] > 0.0).float()
    return (encoded * present).sum(1) / present.sum(1).clamp(min=1.0)


def _total(rows: Tensor, group: Tensor, groups: int) -> Tensor:
    return rows.new_zeros(groups, rows.shape[1]).index_add(0, group, rows)


def _maximum(rows: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the maximum of each group of non-negative rows; 0 for an empty group."""
    start = rows.new_zeros(groups, rows.shape[1])
    return start.scatter_reduce(0, group.unsqueeze(1).expand_as(rows), rows, "amax")
