"""The serving engine: stepped against closed form, its limits, and what it counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym import catalog
from fate_gym.errors import InputError
from fate_gym.lab.cost_fit import measured
from fate_gym.lab.cost_fit.constants import catalogue_constants
from fate_gym.lab.cost_fit.serving import stepping
from fate_gym.lab.cost_fit.serving.benchmark import means
from fate_gym.lab.cost_fit.serving.closed_form import serve
from fate_gym.lab.cost_fit.serving.costs import IterationCost, iteration_cost
from fate_gym.lab.cost_fit.serving.queries import Engine, Query, Request, Run, chunks
from fate_gym.lab.cost_fit.serving.stepping import serve_stepping
from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.sim import compile_problem

SHAPE = measured.ENGINE_SHAPES["Llama-3.1-8B"]
COST = iteration_cost(SHAPE, "h100", catalogue_constants())
ROOM = Engine(kv_tokens=400_000)
Prefill = Literal["chunked", "first"]


@st.composite
def costs(draw: st.DrawFn) -> IterationCost:
    """Costs of some model on some GPU, bound by anything, dense or a mixture of experts."""
    experts = draw(st.sampled_from([0.0, 0.9]))
    read = draw(st.floats(1e8, 2e11))
    return IterationCost(
        params=draw(st.floats(1e8, 1e11)),
        head_params=draw(st.floats(1e7, 2e9)),
        read_bytes=read,
        kv_bytes=draw(st.sampled_from([0.0, 2e4, 3e5])),
        flops=draw(st.floats(1e13, 1e15)),
        weight_bytes_s=draw(st.floats(1e11, 5e12)),
        ramp_tokens=draw(st.floats(0.0, 200.0)),
        pair_s=draw(st.floats(0.0, 1e-8)),
        kv_byte_s=draw(st.floats(1e-13, 1e-11)),
        token_s=draw(st.floats(0.0, 1e-6)),
        fixed_s=draw(st.floats(1e-4, 1e-2)),
        expert_bytes=experts * read,
        expert_share=draw(st.floats(0.01, 0.5)),
    )


@st.composite
def engines(draw: st.DrawFn) -> Engine:
    return Engine(
        kv_tokens=draw(st.integers(400, 5000)),
        prefill=draw(st.sampled_from(["chunked", "first"])),
        token_budget=draw(st.integers(1, 600)),
        max_sequences=draw(st.integers(1, 20)),
        launch_s=draw(st.sampled_from([0.0, 0.0075, 0.3])),
    )


REQUESTS = st.lists(st.builds(Request, st.integers(1, 200), st.integers(1, 200)), max_size=30)


def assert_same(one: Run, other: Run) -> None:
    assert one.iterations == other.iterations
    for a, b in zip(one.queries, other.queries, strict=True):
        assert (a.request, a.order) == (b.request, b.order)
        for field in ("submitted", "first_token", "end"):
            assert getattr(a, field) == pytest.approx(getattr(b, field), rel=1e-9)


@given(costs(), engines(), REQUESTS, st.integers(1, 30))
def test_the_closed_form_takes_as_long_as_stepping(
    cost: IterationCost, engine: Engine, requests: list[Request], clients: int
) -> None:
    stepped = serve_stepping(cost, engine, requests, clients)
    assert_same(serve(cost, engine, requests, clients), stepped)
    assert len(stepped.queries) == len(requests)


@pytest.mark.parametrize("prefill", ["chunked", "first"])
def test_long_outputs_cost_a_hundredth_of_stepping(prefill: Prefill) -> None:
    engine = replace(ROOM, prefill=prefill, launch_s=0.0075)
    requests = [Request(1000, 8000)] * 120
    run = serve(COST, engine, requests, 40)
    assert run.rounds * 100 < run.iterations
    assert_same(run, serve_stepping(COST, engine, requests, 40))


@given(costs(), engines(), REQUESTS, st.integers(1, 30))
def test_tokens_are_conserved_and_no_limit_is_broken(
    cost: IterationCost, engine: Engine, requests: list[Request], clients: int
) -> None:
    computed, seconds = [], stepping._seconds

    def watched(cost: IterationCost, plan: list[tuple[Query, int]], steps: list[object]) -> float:
        tokens = sum(tokens for _, tokens in plan)
        assert len(steps) <= engine.max_sequences
        if engine.prefill == "chunked":
            assert tokens + len(steps) <= max(engine.token_budget, len(steps))
        else:
            assert not (plan and steps)
            assert tokens <= engine.token_budget or len(plan) == 1
        computed.append((tokens, len(steps)))
        return seconds(cost, plan, steps)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping, "_seconds", watched)
        run = serve_stepping(cost, engine, requests, clients)
    prompts, steps = np.sum(computed, axis=0).tolist() if computed else (0, 0)
    assert prompts == sum(request.prompt for request in requests)
    assert steps == sum(request.output - 1 for request in requests)
    times = sorted((q.first_token, q.end, q.request.kv_tokens) for q in run.queries)
    for now, _, _ in times:
        held = [tokens for first, end, tokens in times if first <= now < end]
        assert sum(held) <= engine.kv_tokens
        assert len(held) <= engine.max_sequences


@given(costs(), engines(), REQUESTS, st.integers(1, 30))
def test_first_come_first_served(
    cost: IterationCost, engine: Engine, requests: list[Request], clients: int
) -> None:
    queries = sorted(serve(cost, engine, requests, clients).queries, key=lambda query: query.order)
    assert [query.request for query in queries] == requests
    assert (np.diff([query.submitted for query in queries]) >= 0).all()
    assert (np.diff([query.first_token for query in queries]) >= 0).all()


@pytest.mark.parametrize("prefill", ["chunked", "first"])
@pytest.mark.parametrize(("prompt", "output"), [(700, 30), (8000, 200), (3, 1)])
def test_a_query_alone_takes_as_long_as_on_an_exclusive_device(
    prefill: Prefill, prompt: int, output: int
) -> None:
    stage = Stage(
        id="s", model="Llama-3.1-8B", queries=1, prompt_tokens=prompt, output_tokens=output
    )
    cluster = Cluster(id="one", devices=(Device(id="d", gpu="H100-SXM"),))
    compiled = compile_problem(Problem.build(cluster, [Workflow(id="w", stages=(stage,))]))
    launch = catalog.execution().prefill_launch_s
    engine = replace(ROOM, prefill=prefill, launch_s=launch)
    (query,) = serve(COST, engine, [Request(prompt, output)], 1).queries
    # The last prompt token yields the first output token: a step less than there.
    step = COST.seconds(1, 1, 0.0, prompt + output / 2)
    assert query.seconds + step == pytest.approx(compiled.clean_seconds[0, 0], rel=0.01)
    alone = launch + COST.seconds(prompt, 1, prompt * prompt / 2, 0.0) + (output - 1) * step
    assert query.seconds == pytest.approx(alone, rel=1e-9)


def test_a_prompt_in_chunks_costs_the_chunks_and_nothing_else() -> None:
    engine = replace(ROOM, token_budget=512)
    (query,) = serve(COST, engine, [Request(2000, 1)], 1).queries
    parts = [(512, 0, 0.0), (512, 0, 512.0), (512, 0, 1024.0), (464, 1, 1536.0)]
    chunked = sum(COST.seconds(t, y, t * (done + t / 2), 0.0) for t, y, done in parts)
    assert query.seconds == pytest.approx(chunked, rel=1e-12)
    assert query.seconds > COST.seconds(2000, 1, 2000 * 2000 / 2, 0.0)


def test_many_clients_reach_the_roofline() -> None:
    prompt, output, count = 300, 100, 9000
    engine = Engine(kv_tokens=10**9, token_budget=10**5, max_sequences=10**5)
    run = serve(COST, engine, [Request(prompt, output)] * count, 3000)
    tokens = prompt + output - 1
    work = 2.0 * (COST.params * tokens + COST.head_params * output) / COST.flops
    context = (output - 1) * (prompt + output / 2)
    least = work + prompt * prompt / 2 * COST.pair_s + tokens * COST.token_s
    least += context * COST.context_token_s
    taken = max(query.end for query in run.queries) / count
    assert least < taken < 1.06 * least


@pytest.mark.parametrize("tokens", [1, 100, 5000])
@pytest.mark.parametrize("decoding", [0, 1, 64])
def test_no_iteration_beats_the_data_sheet(tokens: int, decoding: int) -> None:
    gpu = catalog.gpu("H100-SXM")
    pairs, context = tokens * tokens / 2, decoding * 3000
    seconds = COST.seconds(tokens + decoding, 1 + decoding, pairs, context)
    flops = 2 * (COST.params * (tokens + decoding) + COST.head_params * (1 + decoding))
    flops += 4 * SHAPE.layers * SHAPE.width * (pairs + context)
    assert seconds > flops / (gpu.tflops * 1e12)
    assert seconds > (COST.read_bytes + context * COST.kv_bytes) / (gpu.bandwidth_gb_s * 1e9)


def test_a_mixture_reads_the_experts_that_some_token_uses() -> None:
    mixture = replace(COST, expert_bytes=0.9 * COST.read_bytes, expert_share=0.25)
    assert mixture.weight_bytes(1) == pytest.approx((1 - 0.9 * 0.75) * COST.read_bytes)
    assert mixture.weight_bytes(10_000) == pytest.approx(COST.read_bytes)


def test_the_queue_counts_as_time_to_first_token() -> None:
    engine = Engine(kv_tokens=2 * 600, max_sequences=8)
    run = serve(COST, engine, [Request(500, 100)] * 40, 8)
    all_at_once = serve(COST, ROOM, [Request(500, 100)] * 40, 8)
    assert means(run).ttft > 20 * means(all_at_once).ttft
    assert means(run).tpot < means(all_at_once).tpot
    assert means(run).request == pytest.approx(means(run).ttft + 99 * means(run).tpot)
    last = means(run, warm_up=39)
    assert last.request == pytest.approx(run.queries[-1].seconds)


def test_decoding_goes_on_beside_chunks_and_stops_for_whole_prompts() -> None:
    requests = [Request(100, 50), Request(9000, 2)]
    ends = {}
    modes: tuple[Prefill, ...] = ("chunked", "first")
    for prefill in modes:
        engine = replace(ROOM, prefill=prefill, token_budget=512)
        run = serve(COST, engine, requests, 2)
        ends[prefill] = {query.request.prompt: query for query in run.queries}
    assert ends["first"][100].ttft < ends["chunked"][100].ttft
    assert ends["first"][100].tpot > ends["chunked"][100].tpot
    whole = COST.seconds(9000, 1, 9000 * 9000 / 2, 0.0)
    assert ends["first"][9000].ttft == pytest.approx(ends["first"][100].ttft + whole)


def test_whole_prompts_share_an_iteration_as_long_as_the_budget_holds_them() -> None:
    engine = replace(ROOM, prefill="first", token_budget=1000)
    prompts = [Query(Request(tokens, 5), 0.0) for tokens in (400, 600, 1, 3000)]
    assert [tokens for _, tokens in chunks(prompts, engine, 50)] == [400, 600]
    assert [tokens for _, tokens in chunks(prompts[3:], engine, 50)] == [3000]
    chunked = replace(engine, prefill="chunked")
    assert [tokens for _, tokens in chunks(prompts, chunked, 300)] == [400, 300]
    assert chunks(prompts, chunked, 1000) == []


def test_bad_input_is_one_error() -> None:
    with pytest.raises(InputError, match="token_budget"):
        replace(ROOM, token_budget=0)
    with pytest.raises(InputError, match="max_sequences"):
        replace(ROOM, max_sequences=0)
    with pytest.raises(InputError, match="601 tokens of KV, room for 600"):
        serve(COST, Engine(kv_tokens=600), [Request(500, 101)], 1)
