"""Proxies on batching devices: each rule uses the same facts as in the published system."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.problem import (
    Cluster,
    Device,
    Failures,
    Options,
    Outage,
    Problem,
    Stage,
    Workflow,
)
from fate_gym.sim import Assignment, Policy, Simulator
from fate_gym.validator import assert_valid
from policies import make_policy, policy_specs
from policies.proxies.autellix import Autellix
from policies.proxies.halo import Halo
from policies.proxies.helix import Helix
from policies.proxies.hexagent import Hexagent
from policies.proxies.kvflow import Kvflow
from policies.proxies.mooncake import Mooncake
from policies.proxies.murakkab import Murakkab
from policies.proxies.nalar import Nalar
from policies.proxies.parrot import Parrot
from policies.proxies.pythia import Pythia
from policies.proxies.sglang import Sglang
from tests.policies.proxies.cases import call, fixed, problem

QWEN = "Qwen2.5-7B"
either = pytest.mark.parametrize("sequences", [None, 256], ids=["exclusive", "batching"])


def placed(policy: Policy, simulator: Simulator) -> list[tuple[int, int]]:
    """Reset a policy; return and place what it starts at this instant, call by call."""
    policy.reset(simulator.view(), 0)
    return started(policy, simulator)


def started(policy: Policy, simulator: Simulator) -> list[tuple[int, int]]:
    """Do as `placed`, without the reset."""
    view = simulator.view()
    decided = []
    while simulator.ready:
        assignments = [a for a in policy.decide(view) if isinstance(a, Assignment)]
        if not assignments:
            break
        for assignment in assignments:
            simulator.place(assignment.stage, assignment.devices, None, assignment.migrate_from)
            decided.append((assignment.stage, assignment.devices[0]))
    return decided


def until_ready(simulator: Simulator, stage: int) -> None:
    while stage not in simulator.ready:
        simulator.wait()


def beside_a_long_one(sequences: int | None) -> Simulator:
    """Return two devices: d0 is in a long decode when another stage of its model becomes ready."""
    stages = [call("a", output=3000)], [call("b")]
    simulator = Simulator(problem(*stages, arrivals=(0.0, 12.0), devices=2, sequences=sequences))
    simulator.place(0, (0,))
    until_ready(simulator, 1)
    return simulator


# --- what the view offers ---------------------------------------------------------------------


def test_outstanding_queries_are_those_that_have_not_ended() -> None:
    """Five queries in two waves: four, then one. The stages are one and one."""
    stages = [call("a", queries=5), call("b", queries=2)]
    simulator = Simulator(problem(stages, devices=2, sequences=4))
    simulator.place(0, (0,))
    simulator.place(1, (0,))
    view = simulator.view()
    assert view.outstanding_queries().tolist() == [7, 0]
    assert view.outstanding().tolist() == [2, 0]
    seen = set()
    while not simulator.done:
        seen.add(int(view.outstanding_queries()[0]))
        simulator.wait()
    assert view.outstanding_queries().tolist() == [0, 0]
    assert 7 in seen and 4 not in seen  # b runs beside none of a's waves


def test_queries_of_exclusive_devices() -> None:
    simulator = Simulator(problem([call("a", queries=5), call("b", queries=2)], devices=2))
    simulator.place(0, (0,))
    simulator.place(1, (0,))
    assert simulator.view().outstanding_queries().tolist() == [7, 0]


@either
def test_headroom(sequences: int | None) -> None:
    """A cached prefix that nobody uses is room on a batching device only; a running one is not."""
    stages = [call("a", group="g", prefix=5000), call("b", group="h", prefix=700), call("c")]
    simulator = Simulator(problem(stages, edges={0: [("a", "b"), ("b", "c")]}, sequences=sequences))
    view = simulator.view()
    empty = view.headroom_bytes(1)
    assert np.array_equal(empty, view.free_bytes() - view.missing_bytes(1))
    simulator.place(0, (0,))
    assert view.headroom_bytes(1)[0] < empty[0]
    until_ready(simulator, 1)
    if sequences is None:
        assert view.headroom_bytes(1)[0] == view.free_bytes()[0] < empty[0]
    else:
        assert view.headroom_bytes(1)[0] == empty[0] > view.free_bytes()[0]


@either
def test_turns(sequences: int | None) -> None:
    """Who has the model joins at the next border; another model waits for the end."""
    stages = [call("a", output=500), call("b"), call("c", QWEN), fixed("d", d1=1.0)]
    simulator = Simulator(problem(stages, devices=2, sequences=sequences))
    simulator.place(0, (0,))
    view = simulator.view()
    drains = view.drain_estimates()
    assert drains[0] > 1.0
    same, other = view.turn_estimates(1), view.turn_estimates(2)
    assert same[0] == (drains[0] if sequences is None else 0.0)
    assert other[0] == pytest.approx(drains[0])
    assert same[1] == other[1] == 0.0
    for turns in (view.turn_estimates(3), view.prompt_estimates(3)):
        assert turns.tolist() == [np.inf, 0.0]


def test_prompts_wait_for_prompts_only() -> None:
    """Behind 40,000 prompt tokens, whose decoding takes far longer."""
    stages = [call("warm"), call("a", own=40_000, output=3000), call("b")]
    edges = [("warm", "a"), ("warm", "b")]
    simulator = Simulator(problem(stages, devices=2, edges={0: edges}, sequences=256))
    simulator.place(0, (0,))
    until_ready(simulator, 1)
    view = simulator.view()
    prompt = view.estimate(1, 0).prefill
    simulator.place(1, (0,))
    assert view.turn_estimates(2)[0] == view.now
    waits = view.prompt_estimates(2)[0] - view.now
    assert waits == pytest.approx(prompt, rel=0.15)
    assert waits < 0.5 * (view.drain_estimates()[0] - view.now)
    assert view.prompt_estimates(2)[1] == pytest.approx(view.now, abs=0.01)


@pytest.mark.parametrize("queries", [1, 16])
def test_full_batches(queries: int) -> None:
    """A stage that fills the batch takes its own seconds; one of a few queries far less."""
    stages = [call("a", queries=queries, output=400), call("b", queries=16, output=400)]
    view = Simulator(problem(stages, sequences=16)).view()
    assert view.full_batch_seconds(1) == pytest.approx(view.clean_seconds(1))
    if queries == 1:
        assert (view.full_batch_seconds(0) < 0.2 * view.clean_seconds(0)).all()


# --- requests are queries ---------------------------------------------------------------------


def test_sglang_is_out_of_balance_at_64_requests() -> None:
    """Nine stages of eight queries follow the prefix; at 72 : 0 the tenth does not."""
    stages = [call(f"s{i}", group="g", prefix=900, queries=8) for i in range(10)]
    simulator = Simulator(problem(stages, sequences=256))
    devices = [device for _, device in placed(Sglang(balance_abs=2), simulator)]
    assert devices == [0] * 9 + [1]


@pytest.mark.parametrize("policy", [Autellix(), Kvflow()], ids=["autellix", "kvflow"])
@pytest.mark.parametrize(("sequences", "device"), [(None, 0), (256, 1)])
def test_the_engine_with_fewest_calls(
    policy: Autellix | Kvflow, sequences: int | None, device: int
) -> None:
    """One stage of ten queries against two of one."""
    stages = [call("a", queries=10), call("b"), call("c"), call("d")]
    simulator = Simulator(problem(stages, devices=2, sequences=sequences))
    for stage, on in enumerate((0, 1, 1)):
        simulator.place(stage, (on,))
    view = simulator.view()
    policy.reset(view, 0)
    policy.decide(view)
    # On the exclusive device d waits, on the batching one it has just started.
    assert policy.load().tolist() == ([2, 2] if sequences is None else [10, 2])
    assert policy.route(view, 3) == device


def test_calls_of_a_queue_start_together() -> None:
    """On a batching device the first of the queue starts, then the next, at one instant."""
    stages = [call(f"s{i}") for i in range(4)]
    simulator = Simulator(problem(stages, devices=1, sequences=3))
    assert placed(Autellix(), simulator) == [(0, 0), (1, 0), (2, 0)]


# --- waits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sequences", "device"), [(None, 1), (256, 0)])
def test_mooncake_waits_for_prompts(sequences: int | None, device: int) -> None:
    """d0 has the model and decodes for long: a queue only where one is served after the other."""
    simulator = beside_a_long_one(sequences)
    assert placed(Mooncake(), simulator) == [(1, device)]


@pytest.mark.parametrize(("arrival", "tokens"), [(0.01, 0), (12.0, 8000)])
def test_what_is_being_computed_cannot_be_fetched(arrival: float, tokens: int) -> None:
    first = [call("a", group="g", prefix=8000, output=3000)]
    second = [call("b", group="g", prefix=8000)]
    simulator = Simulator(problem(first, second, arrivals=(0.0, arrival), devices=2, sequences=256))
    simulator.place(0, (0,))
    until_ready(simulator, 1)
    view, policy = simulator.view(), Mooncake()
    own = view.cached_prefix_tokens(1)
    assert own.tolist() == [8000, 0]
    assert policy.fetchable(view, 1, own).tolist() == [tokens, 0]


@pytest.mark.parametrize(
    ("sequences", "expected"), [(8, [0, 0, 0, 0]), (2, [0, 0, 1, 1])], ids=["room", "full"]
)
def test_sessions_stay_while_the_batch_has_room(sequences: int, expected: list[int]) -> None:
    simulator = Simulator(problem([call(f"s{i}") for i in range(4)], sequences=sequences))
    assert [device for _, device in placed(Nalar(limit=1), simulator)] == expected


def test_a_full_batch_counts_as_one_in_front() -> None:
    """With a limit of 2 one stage waits behind the batch; the next leaves."""
    simulator = Simulator(problem([call(f"s{i}") for i in range(4)], sequences=2))
    policy = Nalar(limit=2)
    assert placed(policy, simulator) == [(0, 0), (1, 0), (3, 1)]
    assert policy._place == {2: 0}


def test_models_in_the_queue_wait_for_one_another() -> None:
    """Stages of one model run together: each other model counts with its longest stage."""
    stages = [call("a", output=100), call("b", output=300), call("c"), call("d", QWEN)]
    view = Simulator(problem(stages, devices=2, sequences=256)).view()
    policy = Nalar()
    policy.reset(view, 0)
    policy.observe(view, view.ready)
    for stage in (0, 1):
        policy.send(view, stage, 0)
    assert policy.queued(view, 2).tolist() == [0.0, 0.0]
    assert policy.queued(view, 3).tolist() == [view.clean_seconds(1)[0], 0.0]
    policy.send(view, 1, 1)
    assert policy.queued(view, 3).tolist() == [
        view.clean_seconds(0)[0],
        view.clean_seconds(1)[1],
    ]


def test_stages_move_to_the_device_that_admits_them() -> None:
    """b waits for a's batch on d0, of another model; d1 is free from the start: at 5 it moves."""
    first = [call("a", output=4000), call("b", QWEN)]
    simulator = Simulator(
        problem(first, [call("late", QWEN)], arrivals=(0.0, 5.0), devices=2, sequences=256)
    )
    simulator.place(0, (0,))
    view, policy = simulator.view(), Nalar(period=5.0)
    policy.reset(view, 0)
    policy.observe(view, view.ready)
    policy._turn[1] = 0
    policy.send(view, 1, 0)
    assert policy.decide(view) == []
    until_ready(simulator, 2)
    assert started(policy, simulator) == [(2, 1), (1, 1)]


# --- profiles ---------------------------------------------------------------------------------


def unequal(stages: list[Stage]) -> Problem:
    gpus = tuple(Device(id=name, gpu=name) for name in ("A10G", "A100-80"))
    cluster = Cluster(id="unequal", devices=gpus, execution="batching")
    options = Options(max_shards=1)
    return Problem.build(cluster, [Workflow(id="w", stages=tuple(stages))], options=options)


def test_helix_takes_the_throughput_of_full_batches() -> None:
    """An A100 has room for more sequences, and is worth more than a single query shows."""
    simulator = Simulator(unequal([call("a", own=1500, output=300)]))
    view, policy = simulator.view(), Helix()
    policy.reset(view, 0)
    policy.choose(view, 0)
    slow, fast = policy._speed[view.request(0).model]
    full, alone = view.full_batch_seconds(0), view.clean_seconds(0)
    assert fast / slow == pytest.approx(full[0] / full[1])
    assert fast / slow > 1.2 * alone[0] / alone[1]


@pytest.mark.parametrize(("sequences", "used"), [(None, 3), (256, 1)])
def test_murakkab_buys_what_batches_cannot_carry(sequences: int | None, used: int) -> None:
    """Forty queries of 200 tokens in 30 seconds: three devices, or a part of one batch."""
    stages = [call(f"s{i}", output=200) for i in range(40)]
    trace = Simulator(problem(stages, sequences=sequences)).run(Murakkab(epoch=30.0))
    assert len(set(trace.shards["device"].tolist())) == used


def test_murakkab_counts_work_at_the_throughput_of_full_batches() -> None:
    stages = [call(f"s{i}", output=200) for i in range(3)]
    simulator = Simulator(problem(stages, devices=1, sequences=256))
    policy = Murakkab()
    placed(policy, simulator)
    seconds = simulator.view().full_batch_seconds(0)[0]
    assert policy._busy == pytest.approx([3 * seconds])


# --- room -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sequences", "expected"), [(None, [0, 1, 2]), (256, [0] * 5), (2, [0, 0, 1, 1, 2])]
)
def test_parrot_fills_the_kv_of_an_engine(sequences: int | None, expected: list[int]) -> None:
    """A group of 3000 tokens each: one an engine where 2048 count, else as many as it admits."""
    stages = [call(f"s{i}", group="g", prefix=900, own=2100) for i in range(5)]
    simulator = Simulator(problem(stages, sequences=sequences))
    assert [device for _, device in placed(Parrot(), simulator)] == expected


def test_parrot_counts_those_that_run_whoever_ended_first() -> None:
    """The first sent runs on; the one sent after it, of more queries, has ended."""
    stages = [call("long", output=2000), call("short", queries=20), call("next")]
    simulator = Simulator(problem(stages, edges={0: [("short", "next")]}, sequences=256))
    simulator.place(0, (0,))
    simulator.place(1, (0,))
    until_ready(simulator, 2)
    policy = Parrot()
    policy.reset(simulator.view(), 0)
    assert policy._used(simulator.view())[:, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize(("sequences", "device"), [(None, 0), (256, 1)])
def test_pythia_counts_cached_kv_as_free(sequences: int | None, device: int) -> None:
    """d0 caches 500 tokens of another group, d1 900 of the stage's own; nobody runs."""
    stages = [
        call("a", group="h", prefix=500),
        call("b", group="g", prefix=900),
        call("c", group="g", prefix=900),
    ]
    edges = [("a", "c"), ("b", "c")]
    simulator = Simulator(problem(stages, edges={0: edges}, devices=2, sequences=sequences))
    simulator.place(0, (0,))
    simulator.place(1, (1,))
    until_ready(simulator, 2)
    assert placed(Pythia(), simulator) == [(2, device)]


# --- rules that needed no change --------------------------------------------------------------


@either
def test_halo_fills_the_slots_of_an_open_device(sequences: int | None) -> None:
    """Another model keeps the device closed for this instant."""
    stages = [call("a"), call("b"), call("c", QWEN)]
    simulator = Simulator(problem(stages, devices=1, sequences=sequences))
    starting = [stage for stage, _ in placed(Halo(), simulator)]
    assert len({stages[stage].model for stage in starting}) == 1
    assert len(starting) == 1 or sequences is not None


@pytest.mark.parametrize(("sequences", "device"), [(None, 1), (256, 0)])
def test_hexagent_joins_who_has_the_model(sequences: int | None, device: int) -> None:
    """d0 decodes for long: behind it the finish is late, beside it there is nothing to load."""
    simulator = beside_a_long_one(sequences)
    assert placed(Hexagent(), simulator) == [(1, device)]


@either
def test_attained_service_is_from_the_admission(sequences: int | None) -> None:
    """The wait in the engine's queue does not count."""
    stages = [call("a", output=400), call("b", QWEN, output=400), call("c", QWEN)]
    simulator = Simulator(problem(stages, devices=1, edges={0: [("b", "c")]}, sequences=sequences))
    simulator.place(0, (0,))
    simulator.place(1, (0,))
    until_ready(simulator, 2)
    view, policy = simulator.view(), Autellix()
    policy.reset(view, 0)
    rows = simulator.trace().shards
    row = rows[rows["stage"] == 1][0]
    assert policy.attained(view, 2) == pytest.approx(row["end"] - row["start"])
    assert row["start"] > row["committed"]


def test_inputs_are_fetched_from_now() -> None:
    """A running batch hides none of an input's transfer that left when its parent ended."""
    stages = [call("in"), call("busy", output=2000), call("next")]
    built = problem(stages, devices=2, edges={0: [("in", "next"), ("in", "busy")]}, sequences=256)
    (flow,) = built.workflows
    edges = tuple(edge.model_copy(update={"bytes": 5e9}) for edge in flow.edges)
    eager = built.options.model_copy(update={"eager_transfers": True})
    simulator = Simulator(
        built.model_copy(
            update={"workflows": (flow.model_copy(update={"edges": edges}),), "options": eager}
        )
    )
    simulator.place(0, (1,))
    until_ready(simulator, 1)
    view = simulator.view()
    idle = view.transfer_seconds(2)[0]
    simulator.place(1, (0,))
    assert view.drain_estimates()[0] > view.now + idle
    assert view.transfer_seconds(2)[0] == idle > 0.0


@either
def test_turns_of_a_device_that_is_down(sequences: int | None) -> None:
    """d0 is down from 2 to 6; at 3 nobody knows more than that repairs take 4 seconds."""
    flows = [call("a", output=3000)], [call("b")]
    built = problem(*flows, devices=2, arrivals=(0.0, 3.0), sequences=sequences)
    outages = (Outage(device="d0", at=2.0, seconds=4.0),)
    options = built.options.model_copy(update={"failures": Failures(outages=outages)})
    simulator = Simulator(built.model_copy(update={"options": options}))
    simulator.place(0, (1,))
    until_ready(simulator, 1)
    view = simulator.view()
    assert view.up.tolist() == [False, True]
    assert view.turn_estimates(1)[0] == view.drain_estimates()[0] == 7.0
    assert np.array_equal(view.turn_estimates(1)[0], view.prompt_estimates(1)[0])


PROXIES = [name for name, spec in policy_specs().items() if spec.family == "proxy"]


@pytest.mark.parametrize("name", PROXIES)
def test_runs_are_valid_where_devices_fail_and_lengths_vary(name: str) -> None:
    models = ("Llama-3.1-8B", QWEN)
    flows = [
        [
            call(f"s{i}", models[i % 2], group="g", prefix=700, queries=1 + 3 * (i % 3), output=90)
            for i in range(8)
        ]
        for _ in range(3)
    ]
    edges = {w: [("s0", f"s{i}") for i in range(1, 7)] + [("s6", "s7")] for w in range(3)}
    built = problem(*flows, edges=edges, arrivals=(0.0, 0.0, 4.0), inherited=50, sequences=8)
    failures = Failures(mtbf_s=6.0, mttr_s=2.0, most=3)
    options = built.options.model_copy(
        update={"uncertainty": 0.3, "length_uncertainty": 0.5, "failures": failures}
    )
    for seed in range(2):
        simulator = Simulator(built.model_copy(update={"options": options}))
        assert_valid(simulator.run(make_policy(name), seed=seed))
