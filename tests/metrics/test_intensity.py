from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fate_gym.catalog import GB
from fate_gym.metrics.intensity import problem_state_intensity
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow
from fate_gym.sim import compile_problem

INF = np.inf


def of_tables(*, host_bandwidth: np.ndarray, **tables: np.ndarray) -> float:
    """Compute the state intensity of tables that stand in for a compiled problem."""
    view = SimpleNamespace(devices={"host_bandwidth": host_bandwidth})
    return problem_state_intensity(SimpleNamespace(arrays=view, **tables))


def test_known_answer() -> None:
    # Stage 0 on devices 0 and 1, 1 on device 1 alone, 2 is a tool, 3 a stage without a model.
    value = of_tables(
        clean_seconds=np.array([[10.0, 20.0], [INF, 5.0], [INF, INF], [4.0, 6.0]]),
        prefix_seconds=np.array([[1.0, 3.0], [0.0, 0.5], [0.0, 0.0], [0.0, 0.0]]),
        load_seconds=np.array([[2.0, 4.0], [100.0, 7.0]]),
        model_of=np.array([0, 1, -1, -1]),
        edge_parent=np.array([0, 1, 1, 2, 0]),
        edge_child=np.array([1, 1, 2, 3, 3]),
        edge_bytes=np.array([8.0, 1000.0, 10.0, 6.0, 8.0]),
        bandwidth=np.array([[0.0, 4.0], [2.0, 0.0]]),
        host_bandwidth=np.array([1.0, 5.0]),
    )
    load = 3.0 + 7.0
    prefix = 2.0 + 0.5
    # 0 to 1 over d0 -> d1; 1 to 1 stays; 1 to the host from d1; the host to 3; 0 to 3 both ways.
    transfer = 8 / 4 + 0 + 10 / 5 + 6 * (1 / 1 + 1 / 5) / 2 + 8 * (1 / 4 + 1 / 2) / 2
    execution = 15.0 + 5.0 + 5.0
    assert value == pytest.approx((load + prefix + transfer) / execution)


def test_nothing_that_executes_has_no_intensity() -> None:
    only_a_tool = of_tables(
        clean_seconds=np.full((1, 2), INF),
        prefix_seconds=np.zeros((1, 2)),
        load_seconds=np.zeros((0, 2)),
        model_of=np.array([-1]),
        edge_parent=np.zeros(0, dtype=int),
        edge_child=np.zeros(0, dtype=int),
        edge_bytes=np.zeros(0),
        bandwidth=np.ones((2, 2)),
        host_bandwidth=np.ones(2),
    )
    assert np.isnan(only_a_tool)


def test_slower_links_and_loads_make_a_problem_more_state_intensive() -> None:
    def intensity(*, network: float, load: float, size: float) -> float:
        devices = tuple(Device(id=f"d{i}", gpu="A100-80", node=f"n{i}") for i in range(2))
        stages = tuple(
            Stage(id=name, model="Qwen2.5-7B", prompt_tokens=500, output_tokens=100)
            for name in ("a", "b")
        )
        cluster = Cluster(id="c", devices=devices, network_gb_s=network, load_gb_s=load)
        workflow = Workflow(
            id="w", stages=stages, edges=(Edge(parent="a", child="b", bytes=size * GB),)
        )
        return problem_state_intensity(compile_problem(Problem.build(cluster, [workflow])))

    base = intensity(network=10, load=25, size=1)
    assert intensity(network=1, load=25, size=1) > base
    assert intensity(network=10, load=5, size=1) > base
    assert intensity(network=1, load=25, size=0) == intensity(network=10, load=25, size=0) < base
