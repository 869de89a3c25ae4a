"""What is revealed during a run: choices, fan-outs, lengths, failures. Computed by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.errors import IllegalActionError
from fate_gym.metrics.bounds import problem_bounds
from fate_gym.metrics.mechanism import mechanism_metrics
from fate_gym.problem import (
    Branch,
    Choice,
    Cluster,
    Device,
    Edge,
    Failures,
    FanOut,
    Options,
    Outage,
    Problem,
    Stage,
    Workflow,
)
from fate_gym.sim import Simulator, Trace, compile_problem
from fate_gym.validator import assert_valid
from policies import make_policy
from tests.kernel.test_engine import Anything
from tests.strategies import problems

TWO = Cluster(id="two", devices=(Device(id="p"), Device(id="q")), network_latency_s=0.0)


def fixed(name: str, seconds: float = 1.0, queries: int = 1) -> Stage:
    return Stage(id=name, seconds_on={"p": seconds, "q": seconds}, queries=queries)


def build(
    stages: list[Stage], edges: list[tuple[str, str]], cluster: Cluster = TWO, **fields: Any
) -> Problem:
    options = fields.pop("options", Options())
    workflow = Workflow(
        id="w",
        stages=stages,
        edges=[Edge(parent=a, child=b) for a, b in edges],
        **fields,
    )
    return Problem.build(cluster, [workflow], options=options)


def finish(simulator: Simulator, device: int = 0) -> Trace:
    """Run to the end, placing everything on one device."""
    while not simulator.done:
        if simulator.ready:
            simulator.place(simulator.ready[0], (device,))
        else:
            simulator.wait()
    trace = simulator.trace()
    assert_valid(trace)
    return trace


# --- choices -----------------------------------------------------------------------------------


def branching(**fields: Any) -> Problem:
    """Return the workflow: a, then b or (c, then d), then e."""
    return build(
        [fixed(name) for name in "abcde"],
        [("a", "b"), ("a", "c"), ("c", "d"), ("b", "e"), ("d", "e")],
        choices=[
            Choice(
                after="a",
                options=[
                    Branch(probability=0.3, stages=["b"]),
                    Branch(probability=0.7, stages=["c", "d"]),
                ],
            )
        ],
        **fields,
    )


def test_one_branch_lives_and_the_other_takes_no_time() -> None:
    compiled = compile_problem(branching())
    lengths = {(False, True, False, False, False): 4.0, (False, False, True, True, False): 3.0}
    seen = set()
    for seed in range(12):
        trace = finish(Simulator(compiled, seed=seed))
        vanished = tuple(trace.stage_vanished.tolist())
        assert trace.makespan == lengths[vanished]
        assert (trace.draws[0] < 0.3) == vanished[2]
        assert np.isnan(trace.draws[1:]).all()
        assert trace.stage_end[trace.stage_vanished].tolist() == [1.0] * sum(vanished)
        bounds = problem_bounds(compiled, trace.stage_vanished)
        assert bounds.critical_path == trace.makespan
        assert bounds.makespan >= problem_bounds(compiled).makespan
        assert mechanism_metrics(trace, compiled)["stages_vanished"] == sum(vanished)
        seen.add(vanished)
    assert seen == set(lengths)


def test_draws_are_the_same_for_every_policy_and_uniform() -> None:
    compiled = compile_problem(branching())
    draws = []
    for seed in range(400):
        simulator = Simulator(compiled, seed=seed)
        simulator.place(0, (seed % 2,))
        simulator.wait()
        draws.append(float(simulator.trace().draws[0]))
    again = finish(Simulator(compiled, seed=7), device=1)
    assert again.draws[0] == draws[7]
    # Kolmogorov and Smirnov: 1.63 / sqrt(n) is exceeded once in a hundred.
    steps = np.arange(400) / 400
    assert np.abs(np.sort(draws) - steps).max() < 1.63 / 20


def test_a_fan_out_has_the_first_replicas_with_its_probabilities() -> None:
    problem = build(
        [fixed("a"), *(fixed(f"r{i}") for i in range(4)), fixed("z")],
        [("a", f"r{i}") for i in range(4)] + [(f"r{i}", "z") for i in range(4)],
        fan_outs=[
            FanOut(
                after="a", replicas=[[f"r{i}"] for i in range(4)], weights=[0.0, 0.5, 0.25, 0.25]
            )
        ],
    )
    compiled = compile_problem(problem)
    counts = []
    for seed in range(300):
        simulator = Simulator(compiled, seed=seed)
        simulator.place(0, (0,))
        simulator.wait()
        living = len(simulator.ready)
        assert simulator.ready == list(range(1, 1 + living))
        counts.append(living)
    share = np.bincount(counts, minlength=5) / 300
    assert share == pytest.approx([0, 0, 0.5, 0.25, 0.25], abs=4 * 0.5 / np.sqrt(300))
    finish(simulator)


def test_with_a_chooser_vanishes_what_depends_on_it() -> None:
    """Two rounds of reflection: without the first there is no second, whatever it would draw."""

    def maybe(after: str, *stages: str) -> Choice:
        rest = Branch(probability=0.5)
        return Choice(after=after, options=[Branch(probability=0.5, stages=stages), rest])

    problem = build(
        [fixed(name) for name in ("a", "b", "c", "z")],
        [("a", "b"), ("b", "c"), ("c", "z")],
        choices=[maybe("a", "b"), maybe("b", "c")],
    )
    compiled = compile_problem(problem)
    runs = [finish(Simulator(compiled, seed=seed)) for seed in range(30)]
    assert {run.makespan for run in runs} == {2.0, 3.0, 4.0}
    for run in runs:
        assert not run.stage_vanished[1] or run.stage_vanished[2]
        assert np.isnan(run.draws[1]) == run.stage_vanished[1]


def test_no_stage_is_ready_before_it_is_decided_whether_it_lives() -> None:
    """Its only parent vanishes early, by another choice; its own is open until `late` ends."""
    stages = [fixed("early"), fixed("late", 5.0), fixed("between"), fixed("last")]
    edges = [("early", "between"), ("late", "between"), ("between", "last")]
    choices = [
        Choice(
            after="early",
            options=[Branch(probability=1 - 1e-9), Branch(probability=1e-9, stages=["between"])],
        ),
        Choice(after="late", options=[Branch(probability=1.0, stages=["last"])]),
    ]
    simulator = Simulator(build(stages, edges, choices=choices))
    simulator.place(0, (0,))
    simulator.place(1, (1,))
    simulator.wait()
    assert simulator.ready == [3]
    simulator.place(3, (0,))
    trace = simulator.trace()
    assert trace.stage_ready[3] == 5.0
    finish(simulator)
    assert_valid(simulator.trace())


def test_a_vanished_parent_passes_nothing_on() -> None:
    """No bytes, no prefill of inherited tokens; the tokens are no cache hit either."""
    shape: dict[str, Any] = {"model": "Phi-3-mini", "prompt_tokens": 100, "output_tokens": 5}
    stages = [Stage(id="a", **shape), Stage(id="b", **shape), Stage(id="t", tool_seconds=1.0)]
    stages.append(Stage(id="z", **shape))
    edges = [
        Edge(parent="a", child="b"),
        Edge(parent="a", child="t"),
        Edge(parent="a", child="z", inherited_tokens=50, bytes=1e6),
        Edge(parent="b", child="z", inherited_tokens=1000, bytes=1e9),
        Edge(parent="t", child="z", inherited_tokens=300, bytes=1e9),
    ]
    cluster = Cluster(id="two", devices=[Device(id=f"d{i}", gpu="A10G") for i in range(2)])
    options = [Branch(probability=0.5, stages=["b", "t"]), Branch(probability=0.5)]
    workflow = Workflow(
        id="w", stages=stages, edges=edges, choices=[Choice(after="a", options=options)]
    )
    compiled = compile_problem(Problem.build(cluster, [workflow]))
    for seed in range(20):
        simulator = Simulator(compiled, seed=seed)
        simulator.place(0, (0,))
        simulator.wait()
        if simulator.ready == [3]:
            break
    simulator.place(3, (1,))
    row = simulator.trace().shards[-1]
    assert row["bytes_moved"] == 1e6
    assert (row["context_hit"], row["context_new"]) == (0, 50)
    finish(simulator)


def test_a_fork_takes_the_likely_branch_or_samples() -> None:
    compiled = compile_problem(branching())
    for seed in range(6):
        simulator = Simulator(compiled, seed=seed)
        ends = []
        for sample in (None, *range(8)):
            other = Simulator(compiled)
            other.restore(simulator.view().fork(seed=sample))
            while not other.done:
                if other.ready:
                    other.place(other.ready[0], (0,))
                else:
                    other.wait()
            ends.append(other.trace().makespan)
        assert ends[0] == 4.0
        assert set(ends[1:]) == {3.0, 4.0}


# --- lengths -----------------------------------------------------------------------------------


def test_actual_lengths_scale_decoding_alone() -> None:
    stage = Stage(id="a", model="Phi-3-mini", queries=4, prompt_tokens=100, output_tokens=50)
    cluster = Cluster(id="two", devices=[Device(id=f"d{i}", gpu="A10G") for i in range(2)])
    problem = Problem.build(
        cluster, [Workflow(id="w", stages=[stage])], options=Options(length_uncertainty=0.5)
    )
    compiled = compile_problem(problem)
    lengths = []
    for seed in range(300):
        simulator = Simulator(compiled, seed=seed)
        expected = simulator.view().estimate(0, 0)
        simulator.place(0, (0, 1))
        rows = simulator.trace().shards
        # One length a stage, whatever the device.
        assert rows["length"][0] == rows["length"][1]
        busy = rows["load_s"] + rows["prefill_s"] + rows["decode_s"] * rows["length"]
        assert rows["end"] == pytest.approx(busy)
        assert expected.load == rows["load_s"][0]
        lengths.append(float(rows["length"][0]))
    assert np.log(lengths).std() == pytest.approx(0.5, rel=0.15)
    assert np.mean(lengths) == pytest.approx(1.0, abs=4 * 0.55 / np.sqrt(300))
    finish(simulator)


# --- failures ----------------------------------------------------------------------------------


def down(device: str, at: float, seconds: float) -> Options:
    return Options(failures=Failures(outages=[Outage(device=device, at=at, seconds=seconds)]))


def test_a_lost_shard_runs_again() -> None:
    problem = build([fixed("a", 4.0), fixed("b", 2.0)], [], options=down("p", 3.0, 5.0))
    simulator = Simulator(problem)
    simulator.place(0, (0,))
    simulator.place(1, (0,))
    simulator.wait()
    # a was running, b was waiting behind it: both are ready again, and p cannot take them.
    assert (simulator.now, simulator.ready) == (3.0, [0, 1])
    assert simulator.view().eligible(0).tolist() == [1]
    assert simulator.view().up.tolist() == [False, True]
    assert simulator.view().drain_estimates().tolist() == [8.0, 3.0]
    with pytest.raises(IllegalActionError, match="device 0 is down"):
        simulator.place(0, (0,))
    simulator.place(0, (1,))
    simulator.wait()
    assert simulator.now == 7.0
    simulator.wait()
    assert simulator.now == 8.0
    simulator.place(1, (0,))
    while not simulator.done:
        simulator.wait()
    trace = simulator.trace()
    assert_valid(trace)
    rows = trace.shards[["stage", "device", "start", "end", "lost"]].tolist()
    assert rows == [(0, 0, 0, 3, 1), (1, 0, 3, 3, 1), (0, 1, 3, 7, 0), (1, 0, 8, 10, 0)]
    assert trace.stage_ready.tolist() == [3.0, 3.0]
    assert trace.outages.tolist() == [(0, 3.0, 8.0)]
    metrics = mechanism_metrics(trace, simulator.compiled)
    assert (metrics["lost_shards"], metrics["lost_seconds"]) == (2, 3.0)
    slices = [e for e in trace.to_chrome()["traceEvents"] if e["ph"] == "X"]
    assert [e["dur"] for e in slices if e.get("args", {}).get("lost")] == [3e6]
    assert [(e["ts"], e["dur"]) for e in slices if e["name"] == "down"] == [(3e6, 5e6)]


def test_a_shard_that_ends_as_its_device_fails_has_ended() -> None:
    simulator = Simulator(build([fixed("a", 3.0)], [], options=down("p", 3.0, 1.0)))
    assert finish(simulator).makespan == 3.0


def test_a_stage_whose_hosts_are_down_waits_unseen() -> None:
    stages = [Stage(id="a", seconds_on={"p": 1.0}), Stage(id="b", tool_seconds=2.0)]
    problem = build(stages, [("b", "a")], options=down("p", 1.0, 9.0))
    simulator = Simulator(problem)
    # It became ready at 2; it can be decided on at 10.
    assert (simulator.now, simulator.ready) == (10.0, [0])
    trace = finish(simulator)
    assert (trace.stage_ready[0], trace.makespan) == (2.0, 11.0)


def test_policies_wait_for_repairs_never_for_failures() -> None:
    simulator = Simulator(build([fixed("a")], [], options=down("p", 5.0, 1.0)))
    assert not simulator.view().can_wait
    with pytest.raises(IllegalActionError, match="no event lies ahead"):
        simulator.wait()
    broken = Simulator(build([fixed("a")], [], options=down("p", 0.0, 4.0)))
    assert broken.ready == [0]
    assert broken.view().can_wait
    broken.wait()
    assert broken.now == 4.0


def test_a_split_stage_is_ready_again_once_its_survivors_have_ended() -> None:
    cluster = Cluster(id="two", devices=[Device(id=f"d{i}", gpu="A10G") for i in range(2)])
    stage = Stage(
        id="a", model="Phi-3-mini", queries=8, prompt_tokens=100, output_tokens=50,
        prefix_group="g", prefix_tokens=100,
    )  # fmt: skip
    probe = Simulator(Problem.build(cluster, [Workflow(id="w", stages=[stage])]))
    probe.place(0, (0, 1))
    first, second = probe.trace().shards["end"]
    problem = Problem.build(
        cluster, [Workflow(id="w", stages=[stage])], options=down("d0", first / 2, 1000.0)
    )
    simulator = Simulator(problem)
    simulator.place(0, (0, 1))
    simulator.wait()
    assert (simulator.now, simulator.ready) == (second, [0])
    # The survivor has left weights and prefix; the failed device has lost everything.
    assert simulator.view().resident(0).tolist() == [False, True]
    assert simulator.view().cached_prefix_tokens(0).tolist() == [0, 100]
    trace = finish(simulator, device=1)
    assert trace.shards["lost"].tolist() == [1, 0, 0]
    assert trace.stage_ready[0] == second


def test_outputs_outlive_their_device_on_its_host() -> None:
    cluster = Cluster(id="two", devices=[Device(id=f"d{i}", gpu="A10G") for i in range(2)])
    shape: dict[str, Any] = {"model": "Phi-3-mini", "prompt_tokens": 100, "output_tokens": 5}
    stages = [Stage(id=name, **shape) for name in "abc"]
    edges = [Edge(parent="a", child=child, bytes=1e9, inherited_tokens=50) for child in ("b", "c")]
    workflow = Workflow(id="w", stages=stages, edges=edges)
    probe = Simulator(Problem.build(cluster, [workflow]))
    probe.place(0, (0,))
    probe.wait()
    assert probe.view().local_bytes(1).tolist() == [2e9 / 2, 0.0]
    end = probe.now
    problem = Problem.build(cluster, [workflow], options=down("d0", end, 1e-3))
    simulator = Simulator(problem)
    simulator.place(0, (0,))
    simulator.wait()
    assert simulator.view().local_bytes(1).tolist() == [0.0, 0.0]
    simulator.wait()
    estimate = simulator.view().estimate(1, 0)
    view = simulator.compiled.arrays
    host = view.link_latency[0, 0] + 1e9 / view.devices["host_bandwidth"][0]
    assert estimate.transfer == pytest.approx(host)
    simulator.place(1, (0,))
    simulator.place(2, (1,))
    rows = simulator.trace().shards
    # The context is gone with the device's memory.
    assert rows["context_hit"].tolist() == [0, 0, 0]
    assert rows["bytes_moved"].tolist() == [0, 1e9, 1e9]
    finish(simulator)


def test_a_fork_expects_a_repair_after_the_mean_time_and_no_failure() -> None:
    outages = [Outage(device="p", at=0.0, seconds=2.0), Outage(device="q", at=3.0, seconds=6.0)]
    stage = Stage(id="a", seconds_on={"p": 1.0})
    problem = build(
        [stage, fixed("b", 9.0)], [], options=Options(failures=Failures(outages=outages))
    )
    simulator = Simulator(problem)
    assert simulator.ready == [1]
    other = Simulator(simulator.compiled)
    other.restore(simulator.view().fork())
    other.place(1, (1,))
    other.wait()
    assert (other.now, other.ready) == (4.0, [0])
    other.place(0, (0,))
    while not other.done:
        other.wait()
    assert other.now == 9.0


def test_random_failures_have_their_means() -> None:
    problem = build(
        [fixed("a", 20_000.0)],
        [],
        options=Options(failures=Failures(mtbf_s=100.0, mttr_s=10.0, most=1000)),
    )
    simulator = Simulator(problem, seed=1)
    while len(simulator.trace().outages) < 300:
        if simulator.ready:
            simulator.place(0, (int(simulator.view().eligible(0)[0]),))
        else:
            simulator.wait()
    outages = simulator.trace().outages
    lengths = outages["up"] - outages["down"]
    assert lengths.mean() == pytest.approx(10.0, abs=4 * 10 / np.sqrt(300))
    mine = outages[outages["device"] == 0]
    between = mine["down"][1:] - mine["up"][:-1]
    assert between.mean() == pytest.approx(100.0, abs=4 * 100 / np.sqrt(len(between)))


# --- everything at once ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["round_robin", "least_loaded", "heft_boosted", "min_min"])
@settings(max_examples=15)
@given(problem=problems(), seed=st.integers(0, 2**32))
def test_policies_keep_the_rules(name: str, problem: Problem, seed: int) -> None:
    trace = Simulator(problem).run(make_policy(name), seed=seed)
    assert_valid(trace)
    if problem.options.uncertainty == problem.options.length_uncertainty == 0.0:
        compiled = compile_problem(problem)
        bound = problem_bounds(compiled, trace.stage_vanished).makespan
        assert trace.makespan >= bound * (1 - 1e-9)
        assert trace.makespan >= problem_bounds(compiled).makespan * (1 - 1e-9)


@given(problems(), st.integers(0, 2**32))
def test_what_is_drawn_does_not_depend_on_the_policy(problem: Problem, seed: int) -> None:
    simulator = Simulator(problem)
    one = simulator.run(Anything(), seed=seed)
    two = simulator.run(make_policy("round_robin"), seed=seed)
    assert np.array_equal(one.stage_vanished, two.stage_vanished)
    assert np.array_equal(one.draws, two.draws, equal_nan=True)
    common = min(len(one.outages), len(two.outages))
    if common:
        until = min(one.outages["down"][-1], two.outages["down"][-1])
        first, second = (t.outages[t.outages["down"] <= until] for t in (one, two))
        assert first.tolist() == second.tolist()


def test_two_processes_draw_the_same() -> None:
    code = (
        "from fate_gym.workloads import build_suite, load_cluster, load_suite\n"
        "from fate_gym.sim import Simulator\n"
        "from policies import make_policy\n"
        "suite = load_suite('uncertain_test')\n"
        "problems = build_suite(suite, load_cluster(suite.cluster), 3)\n"
        "problem = next(p for p in problems if p.id.startswith('peer'))\n"
        "trace = Simulator(problem).run(make_policy('round_robin'), seed=3)\n"
        "print(trace.shards.tolist(), trace.draws.tolist(), trace.outages.tolist())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
