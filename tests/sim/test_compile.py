"""Compiled problems against docs/execution-model.md and plain recursion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym import catalog
from fate_gym.catalog import GB
from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.problem.sessions import ancestry
from fate_gym.sim import CompiledProblem, Simulator, compile_problem
from policies import make_policy
from tests.strategies import problems


def pcie(problem: Problem, device: Device) -> float:
    """Return the GB/s between a device and the host."""
    if device.gpu is None:
        return device.network_gb_s or problem.cluster.network_gb_s
    return catalog.execution().pcie_gb_s(problem.gpu_facts[device.gpu])


def peer(problem: Problem, device: Device) -> float:
    """Return the GB/s to devices of the same node."""
    if device.peer_gb_s is not None:
        return device.peer_gb_s
    constants = catalog.execution()
    if device.gpu is None:
        return pcie(problem, device)
    nvlink = problem.gpu_facts[device.gpu].nvlink_gb_s
    if nvlink is not None:
        return constants.nvlink_efficiency * nvlink
    return constants.pcie_peer_efficiency * pcie(problem, device)


def link(problem: Problem, a: Device, b: Device) -> tuple[float, float]:
    """Return (GB/s, latency) between two devices."""
    cluster = problem.cluster
    for override in cluster.links:
        if {override.a, override.b} == {a.id, b.id}:
            return override.gb_s, override.latency_s
    if a.node == b.node:
        rate = min(peer(problem, a), peer(problem, b))
        return rate, catalog.execution().peer_latency_s
    network = [device.network_gb_s or cluster.network_gb_s for device in (a, b)]
    return min(network), cluster.network_latency_s


@given(problems())
def test_links(problem: Problem) -> None:
    view = compile_problem(problem).arrays
    devices = problem.cluster.devices
    for i, a in enumerate(devices):
        assert view.devices["host_bandwidth"][i] == pytest.approx(pcie(problem, a) * GB)
        for j, b in enumerate(devices):
            if i != j:
                rate, latency = link(problem, a, b)
                assert view.link_bandwidth[i, j] == pytest.approx(rate * GB)
                assert view.link_latency[i, j] == pytest.approx(latency)


@given(problems())
def test_who_shares_a_link(problem: Problem) -> None:
    """Into a device: one link from each device of its node, one from each other node."""
    view = compile_problem(problem).arrays
    devices = problem.cluster.devices
    own = {frozenset((link.a, link.b)) for link in problem.cluster.links}
    for j, into in enumerate(devices):
        for i, a in enumerate(devices):
            for k, b in enumerate(devices):
                if len({i, j, k}) < 3:
                    continue
                alone = into.node in (a.node, b.node) or any(
                    frozenset((x.id, into.id)) in own for x in (a, b)
                )
                shared = a.node == b.node and not alone
                assert (view.link[i, j] == view.link[k, j]) == shared


@given(problems())
def test_load_seconds(problem: Problem) -> None:
    compiled = compile_problem(problem)
    cluster = problem.cluster
    init = cluster.load_init_s
    if init is None:
        init = catalog.execution().load_init_s
    for m, name in enumerate(compiled.model_names):
        for d, device in enumerate(cluster.devices):
            rate = device.load_gb_s or cluster.load_gb_s
            if rate is None:
                rate = device.tensor_parallel * pcie(problem, device)
            seconds = init + problem.model_facts[name].weight_bytes / (rate * GB)
            assert compiled.load_seconds[m, d] == pytest.approx(seconds)


@given(problems())
def test_numbers_are_in_the_order_of_the_file(problem: Problem) -> None:
    compiled = compile_problem(problem)
    stages = [(w, s) for w in problem.workflows for s in w.stages]
    assert compiled.stage_ids == [(w.id, s.id) for w, s in stages]
    assert compiled.device_ids == [device.id for device in problem.cluster.devices]
    assert [problem.workflows[w].id for w in compiled.workflow_of] == [w.id for w, _ in stages]
    for number, (_, stage) in enumerate(stages):
        model = compiled.model_of[number]
        assert (compiled.model_names[model] if model >= 0 else None) == stage.model
        assert compiled.tool_seconds[number] == (stage.tool_seconds or 0.0)
        key = compiled.arrays.stages["prefix"][number]
        if stage.model is None or stage.prefix_group is None:
            assert key == -1
        else:
            model, group = compiled.prefix_keys[key]
            path = list(ancestry(compiled.branches, stage.prefix_group))
            starts = [compiled.branches[g].shared_tokens for g in path if g in compiled.branches]
            assert model == stage.model
            # The path ends with the last key that starts before its last token.
            assert group == path[sum(start >= stage.prefix_tokens for start in starts)]
    edges = {
        (compiled.stage_ids[a], compiled.stage_ids[b], size)
        for a, b, size in zip(
            compiled.edge_parent, compiled.edge_child, compiled.edge_bytes, strict=True
        )
    }
    assert edges == {
        ((w.id, e.parent), (w.id, e.child), e.bytes) for w in problem.workflows for e in w.edges
    }


@given(problems())
def test_finite_costs_mean_eligible(problem: Problem) -> None:
    compiled = compile_problem(problem)
    rows = iter(range(len(compiled.stage_ids)))
    for workflow in problem.workflows:
        for stage, row in zip(workflow.stages, rows, strict=False):
            finite = np.isfinite(compiled.clean_seconds[row])
            hosts = [compiled.device_ids[d] for d in np.flatnonzero(finite)]
            assert hosts == problem.eligible_devices(workflow, stage)
            for d in np.flatnonzero(finite):
                if stage.seconds_on is not None:
                    assert (
                        compiled.clean_seconds[row, d] == (stage.seconds_on[compiled.device_ids[d]])
                    )


def _mean_transfer(compiled: CompiledProblem, size: float) -> float:
    """Compute the mean over ordered pairs of devices; 0 if there is nothing to transfer."""
    devices = compiled.problem.cluster.devices
    pairs = [link(compiled.problem, a, b) for a in devices for b in devices if a is not b]
    if size == 0.0 or not pairs:
        return 0.0
    return float(np.mean([latency + size / (rate * GB) for rate, latency in pairs]))


class PlainRanks:
    """Topcuoglu et al. 2002, equations 8 and 9, by recursion on one workflow."""

    def __init__(self, compiled: CompiledProblem, workflow: Workflow) -> None:
        self._edges = [
            (e.parent, e.child, _mean_transfer(compiled, e.bytes)) for e in workflow.edges
        ]
        self._mean: dict[str, float] = {}
        for stage in workflow.stages:
            row = compiled.clean_seconds[compiled.stage_ids.index((workflow.id, stage.id))]
            hosts = row[np.isfinite(row)]
            self._mean[stage.id] = float(hosts.mean()) if hosts.size else stage.tool_seconds or 0.0

    def upward(self, stage: str) -> float:
        tails = [moved + self.upward(b) for a, b, moved in self._edges if a == stage]
        return self._mean[stage] + max(tails, default=0.0)

    def downward(self, stage: str) -> float:
        heads = [
            self.downward(a) + self._mean[a] + moved for a, b, moved in self._edges if b == stage
        ]
        return max(heads, default=0.0)


@given(problems())
def test_ranks(problem: Problem) -> None:
    compiled = compile_problem(problem)
    for workflow in problem.workflows:
        plain = PlainRanks(compiled, workflow)
        for stage in workflow.stages:
            number = compiled.stage_ids.index((workflow.id, stage.id))
            record = compiled.arrays.stages[number]
            assert record["upward_rank"] == pytest.approx(plain.upward(stage.id), rel=1e-9)
            assert record["downward_rank"] == pytest.approx(plain.downward(stage.id), rel=1e-9)


@given(problems())
def test_orders_of_stages(problem: Problem) -> None:
    view = compile_problem(problem).arrays
    position = np.empty(view.topological.size, np.int64)
    position[view.topological] = np.arange(view.topological.size)
    assert (position[view.edges["parent"]] < position[view.edges["child"]]).all()
    ranks = view.stages["upward_rank"][view.by_rank]
    assert (np.diff(ranks) <= 0).all()
    assert sorted(view.by_rank.tolist()) == list(range(view.stages.size))
    arrivals = view.workflows["arrival"][view.arrivals]
    assert (np.diff(arrivals) >= 0).all()


@given(problems(), st.integers(0, 2**32))
def test_floors_are_below_what_happens(problem: Problem, seed: int) -> None:
    """No shard is faster for a query than the floor of the whole stage for one of its queries."""
    compiled = compile_problem(problem)
    floor = compiled.floor_seconds
    assert (floor <= compiled.clean_seconds * (1 + 1e-12)).all()
    saved = compiled.prefix_seconds
    assert (saved >= 0).all()
    trace = Simulator(compiled).run(make_policy("prefix_affinity"), seed=seed)
    for row in trace.shards:
        if row["device"] >= 0:
            spent = row["prefill_s"] + row["decode_s"]
            whole = compiled.arrays.stages["queries"][row["stage"]]
            bound = floor[row["stage"], row["device"]] * row["queries"] / whole
            assert spent >= bound * (1 - 1e-9)


# --- devices of several GPUs, and batching ones -------------------------------------------------


@given(problems())
def test_rates_of_gpus_that_work_as_one(problem: Problem) -> None:
    p, constants = compile_problem(problem).arrays, catalog.execution()
    for row, device in zip(p.devices, problem.cluster.devices, strict=True):
        k = device.tensor_parallel
        if device.gpu is None:
            continue
        gpu = problem.gpu_facts[device.gpu]
        assert row["memory"] == pytest.approx(problem.memory_limits[device.id])
        assert row["flops"] == pytest.approx(k * gpu.mfu * gpu.tflops * 1e12)
        assert row["bandwidth"] == pytest.approx(k * gpu.mbu * gpu.bandwidth_gb_s * GB)
        assert row["memory_rate"] == pytest.approx(k * gpu.bandwidth_gb_s * GB)
        attention = k * constants.attention_mfu(gpu) * gpu.tflops * 1e12
        assert row["attention_flops"] == pytest.approx(attention)
        reading = k * constants.attention_mbu(gpu) * gpu.bandwidth_gb_s * GB
        assert row["attention_bandwidth"] == pytest.approx(reading)
        # A ring sends 2 (k - 1) / k bytes over each link for a byte that is reduced.
        rate = 0.0 if k == 1 else peer(problem, device) * GB / (2 * (k - 1) / k)
        assert row["reduce_bandwidth"] == pytest.approx(rate)


def alone(gpus: int, **stage: int) -> CompiledProblem:
    """Return a problem: a stage of Llama-3.1-70B-AWQ on a device of H200s."""
    device = Device(id="d", gpu="H200-SXM", tensor_parallel=gpus)
    given = Stage(id="s", model="Llama-3.1-70B-AWQ", **stage)
    cluster = Cluster(id="c", devices=(device,))
    return compile_problem(Problem.build(cluster, [Workflow(id="w", stages=(given,))]))


def test_seconds_of_a_stage_on_two_gpus() -> None:
    """A prompt of 4,000 tokens is bound by compute, a step of one query by bandwidth."""
    compiled = alone(2, prompt_tokens=4000, output_tokens=100)
    gpu, model, facts = (
        catalog.gpu("H200-SXM"), catalog.model("Llama-3.1-70B-AWQ"), catalog.execution()
    )  # fmt: skip
    flops, rate = 2 * gpu.tflops * 1e12, 2 * gpu.bandwidth_gb_s * GB
    ramp = facts.mfu_ramp_tokens

    def reduced(tokens: int) -> float:
        """Compute all-reduce seconds: 2 x 80 of 8,192 numbers per token, at half of 900 GB/s."""
        ring = tokens * 8192 * 2 * 2 * (2 - 1) / 2 / (0.8 * 450e9)
        return 2 * 80 * (ring + 0.00002)

    def between(tokens: int) -> float:
        return tokens * facts.traffic_bytes(model) / rate + facts.layer_seconds(model)

    pairs = 4000 * 4000 / 2
    prefill = 2 * (model.layer_params + model.head_params / 4000) * (4000 + ramp)
    prefill /= gpu.mfu * flops
    prefill += 4 * 80 * 8192 * pairs / (facts.attention_mfu(gpu) * flops)
    prefill += between(4000) + reduced(4000) + facts.prefill_launch_s
    step = model.read_bytes / (gpu.mbu * rate)
    step += 4050 * model.kv_bytes_per_token / (facts.attention_mbu(gpu) * rate)
    step += between(1) + reduced(1)
    assert compiled.clean_seconds[0, 0] == pytest.approx(prefill + 100 * step)
    # Weights come over both GPUs' PCIe.
    load = facts.load_init_s + model.weight_bytes / (2 * 50 * GB)
    assert compiled.load_seconds[0, 0] == pytest.approx(load)


def test_more_gpus_are_faster_until_all_reduces_are_what_is_left() -> None:
    seconds = [alone(k, prompt_tokens=1, output_tokens=100).clean_seconds[0, 0] for k in (1, 2, 4)]
    assert seconds[0] > seconds[1] > seconds[2] > seconds[0] / 4
    floor = 101 * 2 * 80 * catalog.execution().all_reduce_s
    assert alone(64, prompt_tokens=1, output_tokens=100).clean_seconds[0, 0] > floor


def test_a_device_with_load_bandwidth_of_its_own_keeps_it() -> None:
    compiled = alone(2, prompt_tokens=1)
    (device,) = compiled.problem.cluster.devices
    own = device.model_copy(update={"load_gb_s": 5.0})
    cluster = compiled.problem.cluster.model_copy(update={"devices": (own,)})
    given = compile_problem(compiled.problem.model_copy(update={"cluster": cluster}))
    weights = catalog.model("Llama-3.1-70B-AWQ").weight_bytes
    assert given.load_seconds[0, 0] == pytest.approx(
        catalog.execution().load_init_s + weights / 5e9
    )


def test_prices_of_gpus_that_work_as_one() -> None:
    view = Simulator(alone(4, prompt_tokens=1)).view()
    assert view.usd_per_hour() == pytest.approx(4 * catalog.gpu("H200-SXM").usd_per_hour)


def test_options_of_batching_devices() -> None:
    plain = alone(1, prompt_tokens=1).problem
    for changes, expected in (
        ({}, (0, 0, 0, 256)),
        ({"execution": "batching"}, (1, 0, 8192, 256)),
        ({"execution": "batching", "prefill": "first"}, (1, 1, 8192, 256)),
        ({"execution": "batching", "token_budget": 99, "max_sequences": 7}, (1, 0, 99, 7)),
    ):
        cluster = plain.cluster.model_copy(update=changes)
        p = compile_problem(plain.model_copy(update={"cluster": cluster})).arrays
        assert (p.batching, p.prefill_first, p.token_budget, p.max_batch) == expected


def test_what_a_device_does_not_have_leaves_no_trace_in_the_arrays() -> None:
    """Digests of the arrays, such as those of best known makespans, stay valid."""
    p = alone(1, prompt_tokens=1).arrays
    assert not p.token_budget
    for table, field in (
        (p.devices, "reduce_s"), (p.devices, "reduce_bandwidth"),
        (p.models, "reduces"), (p.models, "reduce_bytes"),
    ):  # fmt: skip
        assert not table[field].any()
