"""Limits of both kinds of devices: what they approach, and what no device can beat."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fate_gym import catalog
from fate_gym.catalog import GB, Model
from fate_gym.kernel.schema import HOST
from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.sim import Simulator, Trace
from fate_gym.validator import validate
from fate_gym.validator.batching.engine import Engine
from policies import make_policy
from tests.strategies import certain, problems

Execution = Literal["exclusive", "batching"]
EXECUTIONS: tuple[Execution, ...] = ("exclusive", "batching")
POLICIES = ["eft", "round_robin", "heft_boosted", "mooncake", "random"]
MODEL = "Llama-3.1-8B"
_MOST_TOKENS = 6000
"""The validator simulates each of these tokens."""

executions = pytest.mark.parametrize("execution", EXECUTIONS)
slow_draws = settings(
    max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def executed(problem: Problem, execution: Execution, **serving: Any) -> Problem:
    """Return the problem on devices of one execution."""
    cluster = problem.cluster.model_copy(update={"execution": execution, **serving})
    return problem.model_copy(update={"cluster": cluster})


def one_stage(queries: int, prompt: int, output: int) -> Problem:
    """Return a problem of one stage on an H100 with enough memory for everything."""
    roomy = catalog.gpu("H100-SXM").model_copy(update={"memory_gb": 1e6})
    stage = Stage(id="s", model=MODEL, queries=queries, prompt_tokens=prompt, output_tokens=output)
    cluster = Cluster(id="one", devices=(Device(id="d", gpu=roomy.name),))
    return Problem.build(cluster, [Workflow(id="w", stages=(stage,))], gpus=[roomy])


def row_of(problem: Problem) -> Any:
    """Run the problem; return the only row of its trace."""
    (row,) = Simulator(problem).run(make_policy("eft")).shards
    return row


@pytest.mark.parametrize("prefill", ["chunked", "first"])
@pytest.mark.parametrize(("prompt", "output"), [(700, 30), (8000, 200), (3, 1), (50, 0)])
def test_a_query_alone_takes_as_long_on_both(prompt: int, output: int, prefill: str) -> None:
    """But for the step that the prompt's first token saves, if the prompt is one chunk."""
    problem = one_stage(1, prompt, output)
    alone = row_of(problem)
    batched = row_of(executed(problem, "batching", prefill=prefill))
    step = alone["decode_s"] / max(1, output)
    assert batched["first"] == pytest.approx(alone["first"], rel=1e-9)
    assert batched["end"] == pytest.approx(alone["end"] - step, rel=1e-9)


def test_each_further_chunk_of_a_prompt_costs_a_pass() -> None:
    """A query alone takes longer than on an exclusive device only if its prompt is cut."""
    problem = one_stage(1, 8000, 1)
    alone = row_of(problem)
    seconds = [
        row_of(executed(problem, "batching", token_budget=budget))["end"] - alone["first"]
        for budget in (8192, 4000, 2000, 1000)
    ]
    assert seconds[0] == pytest.approx(0.0, abs=1e-9)
    # Of the chunks of a prompt that computes, each but one has ramp and fixed times on top.
    facts, gpu, model = catalog.execution(), catalog.gpu("H100-SXM"), catalog.model(MODEL)
    ramp = 2.0 * model.layer_params * facts.mfu_ramp_tokens / (gpu.mfu * gpu.tflops * 1e12)
    # The output projection meets one token either way; (T + ramp) / T of it differs.
    least = [(chunks - 1) * (ramp + facts.layer_seconds(model)) for chunks in (1, 2, 4, 8)]
    assert seconds == pytest.approx(least, rel=0.01, abs=1e-6)


def least_query_seconds(prompt: int, output: int) -> float:
    """Return an H100's seconds per query in an endless batch, by the cost model."""
    facts, gpu, model = catalog.execution(), catalog.gpu("H100-SXM"), catalog.model(MODEL)
    peak, bandwidth = gpu.tflops * 1e12, gpu.bandwidth_gb_s * GB
    tokens = prompt + max(0, output - 1)
    work = 2.0 * (model.layer_params * tokens + model.head_params * max(1, output))
    seconds = work / (gpu.mfu * peak)
    pairs = 4.0 * model.layers * model.attention_width * prompt * prompt / 2
    seconds += pairs / (facts.attention_mfu(gpu) * peak)
    contexts = max(0, output - 1) * (prompt + output / 2) * model.kv_bytes_per_token
    seconds += contexts / (facts.attention_mbu(gpu) * bandwidth)
    return seconds + tokens * facts.traffic_bytes(model) / bandwidth


def query_seconds(
    execution: Execution, queries: int, prompt: int, output: int, **serving: Any
) -> float:
    """Return the device's seconds per query, loading aside, when so many come at once."""
    row = row_of(executed(one_stage(queries, prompt, output), execution, **serving))
    return float(row["end"] - row["start"] - row["load_s"]) / queries


LARGE = {"token_budget": 10**5, "max_sequences": 5000}


@executions
def test_many_prompts_reach_the_roofline(execution: Execution) -> None:
    serving = LARGE if execution == "batching" else {}
    seconds = [query_seconds(execution, n, 500, 0, **serving) for n in (1, 8, 64, 4096)]
    assert (np.diff(seconds) < 0).all()
    assert 1.0 <= seconds[-1] / least_query_seconds(500, 0) < 1.01


@executions
def test_many_queries_reach_the_roofline(execution: Execution) -> None:
    serving = LARGE if execution == "batching" else {}
    seconds = [query_seconds(execution, n, 300, 100, **serving) for n in (1, 8, 64, 256, 4096)]
    assert (np.diff(seconds) < 0).all()
    # An exclusive device decodes 256 queries at a time: a ramp of 51 tokens still counts.
    most = {"batching": 1.01, "exclusive": 1.1}[execution]
    assert 1.0 < seconds[-1] / least_query_seconds(300, 100) < most


def test_queries_that_come_one_by_one_reach_it_too() -> None:
    """Stages of one query each, twenty waiting for every one that runs."""
    stages = tuple(
        Stage(id=f"s{i}", model=MODEL, prompt_tokens=300, output_tokens=100) for i in range(10_000)
    )
    problem = executed(one_stage(1, 300, 100), "batching", **LARGE | {"max_sequences": 500})
    many = problem.model_copy(update={"workflows": (Workflow(id="w", stages=stages),)})
    trace = Simulator(many).run(make_policy("round_robin"))
    seconds = (trace.makespan - trace.shards["load_s"].max()) / len(stages)
    assert 1.0 < seconds / least_query_seconds(300, 100) < 1.15


# --- conservation and bounds on random problems ---------------------------------------------------


def model_rows(trace: Trace) -> list[tuple[Any, Stage, Model, int]]:
    """Return rows of model stages, with stage, model and inherited tokens of a query."""
    problem = trace.problem
    stages = [(w, s) for w in problem.workflows for s in w.stages]
    found = []
    for row in trace.shards:
        workflow, stage = stages[row["stage"]]
        if row["device"] != HOST and stage.model is not None:
            inherited = sum(edge.inherited_tokens for edge in workflow.parents[stage.id])
            found.append((row, stage, problem.model_facts[stage.model], inherited))
    return found


def new_tokens(row: Any, stage: Stage) -> float:
    """Return the number of prompt tokens that a shard computes."""
    own = stage.prompt_tokens * row["queries"]
    return float(row["prefix_new"] + own + row["context_new"])


@executions
@slow_draws
@given(problem=problems("mixed"), policy=st.sampled_from(POLICIES))
def test_queries_and_prompt_tokens_are_conserved(
    execution: Execution, problem: Problem, policy: str
) -> None:
    """Each query runs once, and each of its prompt tokens is computed or was cached."""
    trace = Simulator(executed(certain(problem), execution)).run(make_policy(policy))
    queries = Counter[int]()
    for row, stage, _, inherited in model_rows(trace):
        queries[int(row["stage"])] += int(row["queries"])
        assert min(row["prefix_hit"], row["prefix_new"], row["context_hit"]) >= 0.0
        assert row["prefix_hit"] + row["prefix_new"] == stage.prefix_tokens
        context = row["context_hit"] + row["context_new"]
        assert context == pytest.approx(row["queries"] * inherited, rel=1e-12)
    stages = [stage for workflow in problem.workflows for stage in workflow.stages]
    assert queries == {
        i: stage.queries for i, stage in enumerate(stages) if stage.model is not None
    }


@slow_draws
@given(
    problem=problems("llm"),
    policy=st.sampled_from(POLICIES),
    prefill=st.sampled_from(["chunked", "first"]),
    budget=st.sampled_from([300, 8192]),
)
def test_a_batching_device_computes_each_token_once(
    problem: Problem, policy: str, prefill: str, budget: int
) -> None:
    """Counted in the validator, whose times are those of the engine."""
    tokens = sum(stage.output_tokens for w in problem.workflows for stage in w.stages)
    assume(tokens <= _MOST_TOKENS)
    serving = {"prefill": prefill, "token_budget": budget}
    batching = executed(certain(problem), "batching", **serving, max_sequences=200)
    trace = Simulator(batching).run(make_policy(policy))
    made: Counter[str] = Counter()
    finish = Engine.finish

    def counted(engine: Engine) -> None:
        prompts = sum(engine.chunks.values())
        steps = sum(wave.queries for wave in engine.steps)
        if engine.fixed is None:
            made.update(prompts=prompts, steps=steps)
            if prefill == "chunked":
                assert prompts + steps <= budget
            else:
                assert not (prompts and steps)
                assert prompts <= budget or len(engine.chunks) == 1
        finish(engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "finish", counted)
        assert validate(trace) == []
    rows = model_rows(trace)
    assert made["steps"] == sum(
        int(row["queries"]) * max(0, stage.output_tokens - 1) for row, stage, _, _ in rows
    )
    new = sum(new_tokens(row, stage) for row, stage, _, _ in rows)
    # Fractions of a token are rounded up, once a wave, and each query computes one token at least.
    above = sum(int(row["waves"]) + int(row["queries"]) for row, _, _, _ in rows)
    # Between two waves the prefix may have been evicted; without KV it is not kept.
    above += sum((int(row["waves"]) - 1) * stage.prefix_tokens for row, stage, _, _ in rows)
    assert new - 1e-6 <= made["prompts"] <= new + above


def row_flops(row: Any, stage: Stage, model: Model) -> float:
    """Return the FLOPs of the matrix products with weights."""
    outputs = row["queries"] * max(0, stage.output_tokens - 1)
    work = model.layer_params * (new_tokens(row, stage) + outputs)
    return float(2.0 * (work + model.head_params * row["queries"] * stage.output_tokens))


def row_kv_bytes(row: Any, stage: Stage, model: Model, inherited: int) -> float:
    """Return the bytes of KV that decoding reads."""
    context = stage.prefix_tokens + stage.prompt_tokens + inherited + stage.output_tokens / 2
    steps = row["queries"] * max(0, stage.output_tokens - 1)
    return float(steps * context * model.kv_bytes_per_token)


def weight_bytes(model: Model) -> float:
    """Return the bytes of weights that a pass over one token reads."""
    idle = 1.0 - model.experts_per_token / model.experts if model.experts else 0.0
    return model.read_bytes - idle * model.expert_weight_share * model.weight_bytes


@executions
@slow_draws
@given(problem=problems("mixed"), policy=st.sampled_from(POLICIES))
def test_no_shard_beats_the_data_sheet(execution: Execution, problem: Problem, policy: str) -> None:
    """Neither FLOPs / peak nor bytes / bandwidth."""
    trace = Simulator(executed(certain(problem), execution)).run(make_policy(policy))
    for row, stage, model, inherited in model_rows(trace):
        gpu = trace.problem.device_facts[trace.device_ids[row["device"]]]
        seconds = row["end"] - row["start"]
        passes = int(row["waves"]) * stage.output_tokens or 1
        read = passes * weight_bytes(model) + row_kv_bytes(row, stage, model, inherited)
        assert seconds > row_flops(row, stage, model) / (gpu.tflops * 1e12)
        assert seconds > read / (gpu.bandwidth_gb_s * GB)


@executions
@slow_draws
@given(problem=problems("mixed"), policy=st.sampled_from(POLICIES))
def test_no_device_beats_its_data_sheet(
    execution: Execution, problem: Problem, policy: str
) -> None:
    """All that runs on it together; of the weights, that each model is read once."""
    trace = Simulator(executed(certain(problem), execution)).run(make_policy(policy))
    for number, name in enumerate(trace.device_ids):
        rows = [found for found in model_rows(trace) if found[0]["device"] == number]
        if not rows:
            continue
        gpu = trace.problem.device_facts[name]
        begin, end = min(one[0]["start"] for one in rows), max(one[0]["end"] for one in rows)
        work = sum(row_flops(row, stage, model) for row, stage, model, _ in rows)
        kv = sum(row_kv_bytes(*one) for one in rows)
        read = sum({model.name: weight_bytes(model) for _, _, model, _ in rows}.values())
        least = max(work / (gpu.tflops * 1e12), (read + kv) / (gpu.bandwidth_gb_s * GB))
        assert end - begin > least
