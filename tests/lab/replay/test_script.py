"""The operations of a schedule take, by the cost model, the simulated time."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fate_gym import catalog
from fate_gym.catalog import Gpu, Own
from fate_gym.errors import InputError
from fate_gym.lab.decoder.shape import shape_of
from fate_gym.lab.replay.compare import compare, median_error, summary
from fate_gym.lab.replay.predict import predicted_seconds
from fate_gym.lab.replay.script import Close, Evict, Load, Open, Pass, Script, script_of
from fate_gym.lab.replay.study import (
    EXECUTIONS,
    POLICIES,
    SEEDS,
    agreement,
    figure,
    problem_of,
    table,
)
from fate_gym.lab.replay.timeline import timeline
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator, Trace
from policies import make_policy

GPU = Gpu(
    name="cpu", memory_gb=24, bandwidth_gb_s=64, tflops=0.5, pcie=4, watts=1, usd_per_hour=0,
    mfu=0.97, mbu=0.69, attention_mfu=0.44, attention_mbu=0.18,
    own=Own(
        mfu_ramp_tokens=32, linear_passes=328, attention_passes=30, linear_layer_s=3.5e-4,
        attention_layer_s=3.5e-5, prefill_launch_s=0, load_init_s=0, pcie_gb_s=2.5,
    ),
)  # fmt: skip


def trace_of(seed: int, execution: str, policy: str) -> Trace:
    problem = problem_of(seed, execution, GPU, 8.0)
    return Simulator(problem).run(make_policy(policy), seed=0)


def script(seed: int, execution: str, policy: str = "heft") -> Script:
    return script_of(trace_of(seed, execution, policy), None, "here")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_operations_take_what_was_simulated(seed: int, execution: str, policy: str) -> None:
    """To the last bit but rounding where devices batch; the formula of decoding takes the mean
    context of all steps where they do not.
    """
    one = script(seed, execution, policy)
    times = timeline(one, predicted_seconds(one, None, {}))
    within = 1e-9 if execution == "batching" else 1e-3
    assert times.makespan == pytest.approx(one.trace.makespan, rel=within)
    for stage, end in times.end.items():
        assert end == pytest.approx(one.trace.stage_end[stage], rel=within)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_every_token_is_computed_once(execution: str) -> None:
    one = script(3, execution, "round_robin")
    prompts: Counter[int] = Counter()
    steps: Counter[int] = Counter()
    resident: set[str] = set()
    opened: set[int] = set()
    for operation in one.operations:
        if isinstance(operation, Open):
            opened.add(operation.part)
        elif isinstance(operation, Close):
            opened.remove(operation.part)
        elif isinstance(operation, Load):
            assert operation.model not in resident
            resident.add(operation.model)
        elif isinstance(operation, Evict):
            if operation.kind == 2:
                resident.remove(one.world.models[operation.key])
        else:
            assert operation.model in resident
            assert {number for number, _ in operation.chunks} | set(operation.steps) <= opened
            prompts.update(dict(operation.chunks))
            steps.update(operation.steps)
    assert not opened
    rows = one.trace.shards
    assert len(one.parts) == rows["waves"].sum()
    for part in one.parts:
        assert prompts[part.number] == part.tokens
        assert steps[part.number] == part.output - part.first_comes_with_prompt
    new = sum(part.prefix - part.known for part in one.parts)
    assert new == rows["prefix_new"].sum()
    assert sum(isinstance(o, Load) for o in one.operations) == (rows["load_s"] > 0).sum()


def test_another_gpu_and_smaller_models_have_their_own_times() -> None:
    one = script(1, "batching")
    slow = GPU.model_copy(update={"tflops": GPU.tflops / 2, "bandwidth_gb_s": 32.0, "name": "slow"})
    own, others = (np.array(predicted_seconds(one, gpu, {})) for gpu in (None, slow))
    assert (others >= own).all()
    assert others.sum() > 1.2 * own.sum()
    facts = one.trace.problem.model_facts
    small = {name: shape_of(facts[name], 2).facts(name) for name in one.models}
    assert sum(predicted_seconds(one, None, small)) < 0.6 * own.sum()


def test_errors_are_of_simulated_over_measured() -> None:
    one = script(2, "exclusive")
    predicted = predicted_seconds(one, None, {})
    runs = [[factor * second for second in predicted] for factor in (2.0, 1.9, 7.0)]
    rows = compare(one, predicted, runs)
    phases = rows[rows.what == "phase"]
    assert phases.error.to_numpy() == pytest.approx(-0.5)
    assert phases.low_s.to_numpy() == pytest.approx(1.9 * phases.simulated_s.to_numpy())
    assert phases.high_s.to_numpy() == pytest.approx(7.0 * phases.simulated_s.to_numpy())
    assert median_error(rows, "stage") == pytest.approx(0.5, abs=0.02)
    assert len(rows[rows.what == "stage"]) == one.trace.problem.stage_count
    assert summary(rows)[-1][0] == "makespan"


def test_ranks_agree_or_are_turned_round() -> None:
    parts = []
    for execution in EXECUTIONS:
        for policy in POLICIES:
            one = script(1, execution, policy)
            seconds = predicted_seconds(one, None, {})
            rows = compare(one, seconds, [seconds])
            parts.append(rows.assign(workload=1, execution=execution, policy=policy))
    rows = pd.concat(parts, ignore_index=True)
    assert agreement(rows).to_numpy() == pytest.approx(1.0)
    assert len(figure(rows).axes) == 2
    rows["measured_s"] = 1 / rows.measured_s
    assert agreement(rows).to_numpy() == pytest.approx(-1.0)
    assert "-1.00 on batching devices" in table(rows)


def test_a_device_waits_for_tools_and_others() -> None:
    """A tool between two stages, and a stage on another device before the last."""
    stage = {"model": "Llama-3.1-8B", "prompt_tokens": 100, "output_tokens": 5}
    here = {"allowed_devices": ("d0",)}
    stages = (
        Stage(id="a", **stage, **here),
        Stage(id="tool", tool_seconds=40.0),
        Stage(id="b", **stage, **here),
        Stage(id="there", **stage, allowed_devices=("d1",)),
        Stage(id="c", **stage, **here),
    )
    order = [stage.id for stage in stages]
    edges = tuple(Edge(parent=p, child=c) for p, c in itertools.pairwise(order))
    cluster = Cluster(id="c", devices=tuple(Device(id=f"d{i}", gpu="L40S") for i in range(2)))
    problem = Problem.build(cluster, [Workflow(id="w", stages=stages, edges=edges, arrival=3.0)])
    trace = Simulator(problem).run(make_policy("eft"), seed=0)
    one = script_of(trace, "d0", "here")
    assert {part.stage for part in one.parts} == {0, 2, 4}
    times = timeline(one, predicted_seconds(one, None, {}))
    assert times.makespan == pytest.approx(trace.makespan, rel=1e-3)
    instant = timeline(one, [0.0] * len(one.operations))
    assert (instant.begin[0], instant.begin[2]) == (3.0, 43.0)
    assert instant.begin[4] == trace.stage_end[3]
    with pytest.raises(InputError, match="choose one with --of: d0, d1"):
        script_of(trace, None, "here")
    with pytest.raises(InputError, match="unknown device 'd2'"):
        script_of(trace, "d2", "here")


def test_what_cannot_be_executed_is_refused() -> None:
    trace = trace_of(1, "exclusive", "heft")
    uncertain = trace.problem.model_copy(update={"options": Options(length_uncertainty=0.3)})
    lengths = Simulator(uncertain).run(make_policy("heft"), seed=0)
    with pytest.raises(InputError, match="without failures and length_uncertainty"):
        script_of(lengths, None, "here")
    classical = Simulator(Problem.classical({"t": {"p": 4.0}}, {})).run(make_policy("eft"), seed=0)
    with pytest.raises(InputError, match="'p' is no GPU"):
        script_of(classical, None, "here")
    shards = trace.shards.copy()
    shards["prefill_s"] *= 2
    with pytest.raises(InputError, match="not a schedule of this release"):
        script_of(replace(trace, shards=shards), None, "here")


def test_a_catalogue_gpu_launches_prompts() -> None:
    model = catalog.model("Phi-3-mini").name
    stage = Stage(id="s", model=model, prompt_tokens=10, output_tokens=2)
    cluster = Cluster(id="c", devices=(Device(id="d", gpu="L4"),))
    problem = Problem.build(cluster, [Workflow(id="w", stages=(stage,))])
    one = script_of(Simulator(problem).run(make_policy("eft"), seed=0), None, "here")
    kinds = [type(operation) for operation in one.operations]
    assert kinds == [Open, Load, Pass, Pass, Pass, Close]
    launch = catalog.execution().prefill_launch_s
    assert predicted_seconds(one, None, {})[0] == launch
