from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from policies.learned.agent import PointerAgent, TorchAgent  # noqa: E402
from policies.learned.fused import Combine, Pool  # noqa: E402
from policies.learned.networks import GraphNetwork, PointerNetwork, make_network  # noqa: E402
from tests.policies.learned.problems import OPTIONS, observations, smoke, stream  # noqa: E402


def test_compiled_scores_are_those_of_torch() -> None:
    torch.manual_seed(0)
    network = PointerNetwork(hidden=16, rounds=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    ours, theirs = PointerAgent(OPTIONS, weights), TorchAgent(OPTIONS, network, None)
    for problem in (smoke()[0], stream(0.2)):
        for seen in observations(problem):
            np.testing.assert_allclose(ours.scores(seen), theirs.scores(seen), rtol=2e-4, atol=2e-4)


def test_a_batch_does_not_mix_its_observations() -> None:
    torch.manual_seed(0)
    seen = observations(stream(), dag=True)
    for network in (PointerNetwork(8), GraphNetwork(8)):
        agent = TorchAgent(OPTIONS, network, None)
        batch = {key: np.stack([one[key] for one in seen]) for key in seen[0]}
        alone = np.stack([agent.scores(one) for one in seen])
        np.testing.assert_allclose(agent.scores(batch), alone, rtol=1e-4, atol=1e-5)


def test_the_graph_reaches_the_scores() -> None:
    torch.manual_seed(0)
    network = GraphNetwork(8, depth=2)
    torch.nn.init.normal_(network.score.weight)
    agent = TorchAgent(OPTIONS, network, None)
    changed = 0
    for seen in observations(smoke()[0], dag=True):
        cut = seen | {"dag_edges": np.full_like(seen["dag_edges"], -1)}
        before, after = agent.scores(seen), agent.scores(cut)
        legal = np.isfinite(before)
        legal[-1] = False
        changed += legal.any() and not np.allclose(before[legal], after[legal])
    assert changed > 3


def test_the_order_of_the_nodes_of_the_graph_does_not_matter() -> None:
    torch.manual_seed(0)
    agent = TorchAgent(OPTIONS, GraphNetwork(8), None)
    rng = np.random.default_rng(0)
    for seen in observations(smoke()[0], dag=True):
        order = rng.permutation(seen["dag_nodes"].shape[0])
        place = np.argsort(order)
        edges = np.where(seen["dag_edges"] >= 0, place[seen["dag_edges"]], -1).astype(np.int32)
        moved = seen | {"dag_nodes": seen["dag_nodes"][order], "dag_edges": edges[::-1].copy()}
        np.testing.assert_allclose(agent.scores(moved), agent.scores(seen), rtol=1e-4, atol=1e-5)


def test_fused_steps_and_their_derivatives_are_those_of_torch() -> None:
    torch.manual_seed(0)
    n, hidden, lanes, rows, places = 40, 5, 3, 7, 9
    lane, row, place = (torch.randint(0, size, (n,)) for size in (lanes, rows, places))
    leaves = [torch.randn(size, hidden, requires_grad=True) for size in (n, rows, places, lanes)]
    own, of_slot, of_place, of_all = leaves
    targets = [torch.randn(size, hidden) for size in (rows, places, lanes)]

    def loss(z: torch.Tensor, pooled: tuple[torch.Tensor, ...]) -> torch.Tensor:
        parts = zip(pooled, targets, strict=True)
        return z.square().sum() + sum((a * b).sum() for a, b in parts)

    where = torch.stack([lane, row, place])
    z = Combine.apply(own, of_slot, of_place, of_all, where)
    loss(z, Pool.apply(z, where, (lanes, rows, places))).backward()
    ours = [leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None

    z = (own + of_slot[row] + of_place[place] + of_all[lane]).relu()

    def largest(group: torch.Tensor, groups: int) -> torch.Tensor:
        empty = z.new_zeros(groups, hidden)
        return empty.scatter_reduce(0, group[:, None].expand(n, hidden), z, "amax")

    pooled = (
        largest(row, rows),
        largest(place, places),
        z.new_zeros(lanes, hidden).index_add(0, lane, z),
    )
    loss(z, pooled).backward()
    for mine, leaf in zip(ours, leaves, strict=True):
        torch.testing.assert_close(mine, leaf.grad)


def test_the_plain_network_is_bound_to_its_sizes() -> None:
    (seen,) = observations(smoke()[0], count=1)
    actions, devices = seen["action_mask"].size, seen["devices"].shape[0]
    network = make_network("mlp", slots=4, devices=devices, actions=actions, hidden=16)
    scores = TorchAgent(OPTIONS, network, None).scores(seen)
    assert np.isfinite(scores).sum() == seen["action_mask"].sum()
