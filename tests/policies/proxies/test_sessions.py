"""Continuum, SAGA, ThunderAgent, TOPAS: programs of calls with tools and turns in between."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from fate_gym.problem import Cluster, Device, Edge, Prefix, Problem, Stage, Workflow
from fate_gym.sim import Assignment, Retention, Simulator
from fate_gym.validator import assert_valid
from policies import make_policy
from policies.proxies.continuum import Continuum
from policies.proxies.programs import Programs, returned
from policies.proxies.saga_agents import SagaAgents
from policies.proxies.thunderagent import NOWHERE, Program, Thunderagent
from policies.proxies.topas import Topas
from tests.policies.proxies.cases import call, fixed, problem

EVERY = ["continuum", "saga_agents", "thunderagent", "topas"]
either = pytest.mark.parametrize("sequences", [None, 256], ids=["exclusive", "batching"])
one_by_one = pytest.mark.parametrize("sequences", [None, 1], ids=["exclusive", "batching"])


def tool(id: str, seconds: float) -> Stage:
    return Stage(id=id, tool_seconds=seconds)


def started(simulator: Simulator) -> list[str]:
    """Return the calls in the order in which they began."""
    trace = simulator.trace()
    rows = sorted((row["start"], row["stage"]) for row in trace.shards if row["device"] >= 0)
    return [trace.stage_ids[stage][-1] for _, stage in rows]


def ranked(simulator: Simulator, policy: Continuum | SagaAgents | Topas) -> Retention:
    """Apply a policy's decisions; return its ranking of cached items."""
    decisions = policy.decide(simulator.view())
    simulator.apply(decisions)
    (retention,) = (one for one in decisions if isinstance(one, Retention))
    return retention


def chat(turns: int = 3, sessions: int = 3, **cluster: object) -> Problem:
    """Return sessions with one growing prefix each; a turn is two calls with a tool in between."""
    flows = []
    for s in range(sessions):
        tokens = 6000
        for t in range(turns):
            calls = [
                Stage(
                    id=f"call{i}", model="Qwen2.5-7B", prefix_group=f"s{s}", extends_prefix=True,
                    prefix_tokens=tokens + 400 * i, prompt_tokens=300, output_tokens=100,
                )
                for i in range(2)
            ]  # fmt: skip
            tokens += 800
            flows.append(
                Workflow(
                    id=f"s{s}t{t}",
                    stages=(calls[0], tool("tool", 2.0 + s), calls[1]),
                    edges=(Edge(parent="call0", child="tool"), Edge(parent="tool", child="call1")),
                    arrival=float(s) if t == 0 else 0.0,
                    follows=f"s{s}t{t - 1}" if t else None,
                    think_seconds=3.0 if t else 0.0,
                    session=f"s{s}",
                    prefixes=(Prefix(group=f"s{s}", parent="system", shared_tokens=1000),),
                )
            )
    devices = tuple(Device(id=f"d{i}", gpu="A10G") for i in range(2))
    return Problem.build(Cluster.model_validate({"id": "two", "devices": devices} | cluster), flows)


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("boosted", [False, True])
def test_conversations_are_played(name: str, execution: str, boosted: bool) -> None:
    trace = Simulator(chat(execution=execution)).run(make_policy(name, boosted=boosted))
    assert_valid(trace)
    if not boosted and name in ("continuum", "thunderagent"):
        assert devices_of_sessions(trace.problem, trace.shards) == [1, 1, 1]


def devices_of_sessions(problem: Problem, shards: np.ndarray) -> list[int]:
    """Return the number of devices that the calls of each session ran on."""
    sessions = [w.session for w in problem.workflows for _ in w.stages]
    used: dict[str | None, set[int]] = {}
    for row in shards:
        if row["device"] >= 0:
            used.setdefault(sessions[row["stage"]], set()).add(int(row["device"]))
    return [len(devices) for devices in used.values()]


# --- programs -----------------------------------------------------------------------------------


def test_a_program_is_a_session_or_a_workflow_alone() -> None:
    flows = [
        Workflow(id="a", stages=(fixed("x", d0=1.0),), session="s"),
        Workflow(id="b", stages=(fixed("x", d0=1.0),)),
        Workflow(id="c", stages=(fixed("x", d0=1.0),), session="s", arrival=1.0),
    ]
    cluster = Cluster(id="one", devices=(Device(id="d0", gpu="A10G"),))
    simulator = Simulator(Problem.build(cluster, flows))
    view = simulator.view()
    programs = Programs(view)
    assert [programs.of(view, w) for w in range(3)] == [0, -2, 0]
    programs.meet(view)
    assert programs.arrived == {0: 0.0, -2: 0.0}
    assert programs.ended_workflows(view) == []
    simulator.place(0, (0,))
    simulator.wait()
    assert programs.ended_workflows(view) == [0]
    assert programs.ended_calls(view) == []  # a fixed stage is no call


def test_calls_are_found_through_tools() -> None:
    stages = [call("a"), tool("t", 1.0), tool("u", 1.0), call("b"), call("c")]
    edges = [("a", "t"), ("t", "u"), ("u", "b"), ("b", "c")]
    simulator = Simulator(problem(stages, edges={0: edges}))
    for stage in (0, 3):
        simulator.place(stage, (0,))
        simulator.wait()
        assert returned(simulator.view(), simulator.ready[0]) == ([0] if stage == 0 else [])


# --- Continuum ----------------------------------------------------------------------------------


def learned(times: Sequence[float] = (), **params: int) -> Continuum:
    policy = Continuum(**params)
    policy.reset(Simulator(problem([call("a")])).view(), 0)
    policy._tool_times = list(times)
    return policy


@pytest.mark.parametrize(
    ("recompute", "seconds"), [(0.5, 0.0), (1.0, 0.0), (3.0, math.log(3.0)), (9.0, math.log(9.0))]
)
def test_time_to_live_before_tools_are_known(recompute: float, seconds: float) -> None:
    """(1 - exp(-t)) B - t is largest at log B."""
    assert learned().time_to_live(recompute) == pytest.approx(seconds)
    assert learned([50.0] * 100).time_to_live(recompute) == pytest.approx(seconds)


@pytest.mark.parametrize(("recompute", "seconds"), [(1.0, 0.0), (5.0, 1.0), (50.0, 10.0)])
def test_time_to_live_by_the_tool_times(recompute: float, seconds: float) -> None:
    """Half of the tools took 1, half 10 seconds: F(t) B - t."""
    assert learned([1.0, 10.0] * 60).time_to_live(recompute) == seconds


def test_waits_of_those_that_lost_their_cache_count() -> None:
    policy = learned([1.0, 10.0] * 60)
    policy._waits.extend([40.0, 50.0])
    assert policy.time_to_live(5.0) == 1.0  # eta is not known yet
    policy._turns.extend([4, 4, 4])
    assert policy.eta() == pytest.approx(1.0)
    assert policy.time_to_live(5.0) == 10.0


@either
@pytest.mark.parametrize(("seconds", "first"), [(1e3, "g1"), (0.0, "g0")])
def test_what_a_call_left_stays_until_its_time_is_over(
    sequences: int | None, seconds: float, first: str
) -> None:
    """While its tool runs somebody needs room: the oldest prefix goes, unless it is kept."""
    shape = {"model": "Phi-3-mini", "prompt_tokens": 100, "prefix_tokens": 8000}
    calls = [Stage(id=f"c{i}", prefix_group=f"g{i}", output_tokens=1, **shape) for i in range(3)]
    back = Stage(id="back", prefix_group="g0", output_tokens=1, **shape)
    large = shape | {"prefix_tokens": 4000, "output_tokens": 16_000}
    flows = [
        Workflow(
            id="w0",
            stages=(calls[0], tool("tool", 60.0), back),
            edges=(Edge(parent="c0", child="tool"), Edge(parent="tool", child="back")),
        ),
        Workflow(id="w1", stages=(calls[1],), arrival=6.0),
        Workflow(id="w2", stages=(calls[2],), arrival=12.0),
        Workflow(id="w3", stages=(Stage(id="x", prefix_group="g3", **large),), arrival=18.0),
    ]
    gpu = (Device(id="d", gpu="A10G"),)
    cluster = Cluster(id="one", devices=gpu, execution="batching" if sequences else "exclusive")
    policy = Continuum()
    policy.time_to_live = lambda _: seconds  # type: ignore[method-assign]
    trace = Simulator(Problem.build(cluster, flows)).run(policy)
    assert_valid(trace)
    assert trace.prefix_keys[trace.evictions["key"][0]][-1] == first


@one_by_one
def test_programs_come_first_come_first_served(sequences: int | None) -> None:
    """b is ready before a2, but the program of a2 came first; and so in each run."""
    flows = [
        [call("a"), tool("t", 20.0), call("a2")],
        [call("long", output=3000)],
        [call("b")],
    ]
    edges = {0: [("a", "t"), ("t", "a2")]}
    simulator = Simulator(
        problem(*flows, edges=edges, arrivals=(0.0, 9.0, 9.5), devices=1, sequences=sequences)
    )
    simulator.run(Continuum())
    assert started(simulator) == ["a", "long", "a2", "b"]


@either
def test_calls_stay_with_their_program(sequences: int | None) -> None:
    """The device of the first call is busy when the second is ready; the other one is idle."""
    flows = [[call("a"), tool("t", 1.0), call("a2")], [call("b")]]
    simulator = Simulator(
        problem(*flows, edges={0: [("a", "t"), ("t", "a2")]}, devices=2, sequences=sequences)
    )
    policy = Continuum()
    policy.reset(simulator.view(), 0)
    simulator.apply(policy.decide(simulator.view()))
    if simulator.ready:
        simulator.apply(policy.decide(simulator.view()))
    while 2 not in simulator.ready:
        simulator.wait()
    first = policy._where[0]
    view = simulator.view()
    policy.learn(view)
    assert policy.route(view, 2) == first


# --- SAGA ---------------------------------------------------------------------------------------


def three_calls(sequences: int | None, *, running: tuple[int, ...]) -> tuple[SagaAgents, Simulator]:
    """Return calls that run on given devices, then three that wait for d0."""
    stages = [call(f"s{i}", output=2000) for i in range(len(running) + 3)]
    simulator = Simulator(problem(stages, devices=2, sequences=sequences))
    for stage, device in enumerate(running):
        simulator.place(stage, (device,))
    policy, view = SagaAgents(), simulator.view()
    policy.reset(view, 0)
    policy.learn(view)
    policy._meet(view, view.ready)
    policy._started = view.outstanding()
    return policy, simulator


@one_by_one
@pytest.mark.parametrize(
    ("running", "waiting", "stolen"),
    [((0, 1), 1, []), ((0, 1), 2, [2]), ((0,), 1, [1]), ((0,), 3, [1, 2])],
)
def test_work_is_stolen_from_twice_the_load(
    sequences: int | None, running: tuple[int, ...], waiting: int, stolen: list[int]
) -> None:
    """2 : 1 is no more than twice, 3 : 1 is; whoever has nothing steals at once, the oldest."""
    policy, simulator = three_calls(sequences, running=running)
    view = simulator.view()
    calls = view.ready[:waiting]
    for stage in calls:
        policy.send(view, stage, 0)
    policy.rearrange(view, calls)
    assert [stage for stage in calls if policy._place[stage] == 1] == stolen
    assert policy._stolen == dict.fromkeys(stolen, 0)
    assert all(policy._homes[policy._session(view, stage)] == 1 for stage in stolen)


@one_by_one
def test_what_is_stolen_brings_its_cache(sequences: int | None) -> None:
    """Two sessions live on d0; the one that waits is served by d1, which gets its prefix."""
    first = [call("warm", group="g", prefix=4000), call("a", group="g", prefix=4000, output=3000)]
    first.append(call("b", group="g", prefix=4000))
    edges = [("warm", "a"), ("warm", "b")]
    simulator = Simulator(problem(first, edges={0: edges}, devices=2, sequences=sequences))
    trace = simulator.run(SagaAgents(most_load=9.0))
    assert_valid(trace)
    rows = {trace.stage_ids[row["stage"]][-1]: row for row in trace.shards}
    assert [int(rows[name]["device"]) for name in ("warm", "a", "b")] == [0, 0, 1]
    assert int(rows["b"]["source"]) == 0


@either
@pytest.mark.parametrize(("most_load", "device"), [(0.8, 0), (0.0, 1)])
def test_a_session_stays_where_it_is_cached(
    sequences: int | None, most_load: float, device: int
) -> None:
    stages = [call("a", group="g", prefix=3000), call("b", group="g", prefix=3000)]
    simulator = Simulator(problem(stages, edges={0: [("a", "b")]}, devices=2, sequences=sequences))
    policy = SagaAgents(most_load=most_load)
    policy.reset(simulator.view(), 0)
    simulator.apply(policy.decide(simulator.view()))
    simulator.wait()
    view = simulator.view()
    policy._started = np.array([1, 0]) if most_load == 0.0 else np.zeros(2, np.int64)
    assert policy.route(view, 1) == device


@either
def test_the_graph_tells_what_is_used_again(sequences: int | None) -> None:
    """Of two prefixes, the one with a next call is worth more; while a tool runs it is kept."""
    flows = [
        [call("a", group="g", prefix=3000), tool("t", 30.0), call("b", group="g", prefix=3000)],
        [call("c", group="h", prefix=3000)],
        [call("late")],
    ]
    simulator = Simulator(
        problem(
            *flows,
            edges={0: [("a", "t"), ("t", "b")]},
            arrivals=(0.0, 0.0, 15.0),
            devices=1,
            sequences=sequences,
        )
    )
    policy = SagaAgents(first_tool=30.0)
    policy.reset(simulator.view(), 0)
    while simulator.view().arrived[-1] != 2:
        if not simulator.apply(policy.decide(simulator.view())):
            simulator.wait()
    retention = ranked(simulator, policy)
    assert retention.prefixes is not None and retention.until is not None
    keys = {name[-1]: i for i, name in enumerate(simulator.compiled.prefix_keys)}
    kept, other = keys["g"], keys["h"]
    end = float(simulator.state.stages["end"][0])
    assert retention.prefixes[0, kept] > 1.0 > retention.prefixes[0, other]
    assert retention.until[0, kept] == pytest.approx(end + 30.0)
    assert retention.until[0, other] == np.inf


def test_tool_times_of_saga() -> None:
    simulator = Simulator(problem([call("a")]))
    view, policy = simulator.view(), SagaAgents()
    policy.reset(view, 0)
    assert policy.time_to_live(view, 0) == 2.4
    policy._tool_times = [float(i) for i in range(1, 21)]
    assert policy.time_to_live(view, 0) == 19.0
    policy._tool_times = [1e4]
    assert policy.time_to_live(view, 0) == 300.0
    simulator.state.devices["kv_bytes"][0] = 0.8 * simulator.compiled.arrays.devices["memory"][0]
    policy._tool_times = [8.0]
    assert policy.time_to_live(view, 0) == pytest.approx(6.0)


@one_by_one
def test_the_urgent_task_goes_first(sequences: int | None) -> None:
    """Both wait for d0. The one that has waited long is near its deadline."""
    flows = [[call("long", output=2000)], [call("b", output=100)], [call("c", output=100)]]
    simulator = Simulator(
        problem(*flows, arrivals=(0.0, 1.0, 20.0), devices=1, sequences=sequences)
    )
    policy = SagaAgents()
    policy.reset(simulator.view(), 0)
    simulator.apply(policy.decide(simulator.view()))
    while simulator.view().now < 20.0:
        simulator.wait()
    view = simulator.view()
    policy.decide(view)
    assert policy.urgency(view, 1) > policy.urgency(view, 2)
    assert policy.key(view, 1) < policy.key(view, 2)


# --- ThunderAgent -------------------------------------------------------------------------------


def sized(simulator: Simulator, *shares: float) -> list[Program]:
    """Return programs that take given shares of an empty device's KV memory."""
    p = simulator.compiled.arrays
    whole = float(p.devices["memory"][0] - p.models["weight_bytes"][0])
    return [Program(0, steps=2, own=share * whole) for share in shares]


@either
def test_programs_wait_for_room(sequences: int | None) -> None:
    """Two of three programs fit into memory; the third is let in when one of them has ended."""
    probe = Simulator(problem([call("a")], devices=1, sequences=sequences))
    p = probe.compiled.arrays
    whole = float(p.devices["memory"][0] - p.models["weight_bytes"][0]) / float(p.models["kv"][0])
    own = int(0.4 * whole)
    flows = [[call(f"c{i}", own=own)] for i in range(3)]
    simulator = Simulator(problem(*flows, devices=1, sequences=sequences))
    policy, view = Thunderagent(), simulator.view()
    policy.reset(view, 0)
    while simulator.ready and (decided := policy.decide(view)):
        simulator.apply(decided)
    backends = [policy._of[stage].backend for stage in range(3)]
    assert backends == [0, 0, NOWHERE]
    trace = simulator.run(policy)
    assert_valid(trace)
    assert trace.shards["start"][2] >= trace.shards["end"][0]


@pytest.mark.parametrize(
    ("acting", "paused", "marked"),
    [([0, 1], [0], []), ([1], [1], []), ([], [], [0]), ([0, 1, 2], [0], [])],
)
def test_the_small_ones_are_paused_and_those_that_act_first(
    acting: list[int], paused: list[int], marked: list[int]
) -> None:
    """0.2, 0.3 and 0.6 of the memory: any one less is enough."""
    simulator = Simulator(problem([call("a")], devices=1))
    policy, view = Thunderagent(), simulator.view()
    policy.reset(view, 0)
    programs = sized(simulator, 0.2, 0.3, 0.6)
    for i, program in enumerate(programs):
        program.backend = 0
        program.calls = set() if i in acting else {0}
        policy._programs[i, 0] = program
    policy.pause(view, 0)
    assert [i for i, one in enumerate(programs) if one.backend == NOWHERE] == paused
    assert [i for i, one in enumerate(programs) if one.marked] == marked


def test_returning_programs_are_resumed_first_and_the_largest_gets_most_room() -> None:
    """0.6, 0.5 and 0.3 return, 0.9 is new: the room of 1.0 and 0.8 is for the three."""
    flows = [[call(f"c{i}")] for i in range(5)]
    simulator = Simulator(problem(*flows, devices=2))
    policy, view = Thunderagent(buffer_tokens=0), simulator.view()
    policy.reset(view, 0)
    programs = sized(simulator, 0.6, 0.5, 0.3, 0.9)
    programs[3].steps = 1
    for i, program in enumerate(programs):
        program.calls = {i}
        policy._programs[i, 0] = program
    (held,) = sized(simulator, 0.2)
    held.backend, held.calls = 1, {4}
    policy._programs[9, 0] = held
    policy.resume(view)
    assert [one.backend for one in programs] == [0, 1, 0, NOWHERE]


def test_programs_that_act_fade() -> None:
    simulator = Simulator(problem([call("a")], devices=1))
    policy, view = Thunderagent(buffer_tokens=0), simulator.view()
    policy.reset(view, 0)
    (program,) = sized(simulator, 0.8)
    program.backend, program.since = 0, -2.0
    policy._programs[0, 0] = program
    whole = program.own / 0.8
    assert policy.room(view, 0, 0) == pytest.approx(0.2 * whole)
    assert policy.room(view, 0, 0, decay=True) == pytest.approx(0.8 * whole)
    program.since = -20.0
    assert policy.room(view, 0, 0, decay=True) == pytest.approx(whole)


def test_shared_prefixes_take_their_memory_once() -> None:
    flows = [[call(f"c{i}", group="g", prefix=5000, own=100)] for i in range(4)]
    simulator = Simulator(problem(*flows, devices=1))
    policy, view = Thunderagent(buffer_tokens=0), simulator.view()
    policy.reset(view, 0)
    empty = policy.room(view, 0, 0)
    policy.check(view)
    kv = float(simulator.compiled.arrays.models["kv"][0])
    assert empty - policy.room(view, 0) == pytest.approx((5000 + 400) * kv)


def test_who_waits_too_long_is_let_in() -> None:
    simulator = Simulator(problem([call("a")], [call("b")], devices=1))
    policy, view = Thunderagent(patience=60.0), simulator.view()
    policy.reset(view, 0)
    full, late = sized(simulator, 0.9, 0.5)
    full.backend, full.calls, late.calls = 0, {0}, {1}
    policy._programs |= {(0, 0): full, (1, 0): late}
    policy.resume(view)
    assert late.backend == NOWHERE
    late.since = -60.0
    policy.resume(view)
    assert late.backend == 0


# --- TOPAS --------------------------------------------------------------------------------------


def scores(simulator: Simulator, **params: float) -> tuple[Topas, dict[int, list[float]]]:
    policy, view = Topas(**params), simulator.view()
    policy.reset(view, 0)
    policy.learn(view)
    return policy, {stage: policy.score(view, stage).tolist() for stage in simulator.ready}


@either
def test_the_longest_path_is_shortened_first(sequences: int | None) -> None:
    """b has a long stage behind it, a does not: only b shortens the path, by the difference."""
    stages = [call("a"), call("b"), call("tail", output=900)]
    simulator = Simulator(
        problem(stages, edges={0: [("b", "tail")]}, devices=1, sequences=sequences)
    )
    policy, found = scores(simulator)
    rank = simulator.compiled.arrays.stages["upward_rank"]
    assert found[0] == [0.0]
    assert found[1] == [pytest.approx(float(rank[1] - max(rank[0], rank[2])))]
    (assignment,) = policy.best(simulator.view())
    assert assignment.stage == 1


@either
def test_a_prefix_that_is_missing_costs_its_prefill(sequences: int | None) -> None:
    stages = [call("warm", group="g", prefix=6000), call("a", group="g", prefix=6000)]
    simulator = Simulator(
        problem(stages, edges={0: [("warm", "a")]}, devices=2, sequences=sequences)
    )
    simulator.place(0, (1,))
    simulator.wait()
    policy, found = scores(simulator, aging=0.0)
    there, here = found[1][1], found[1][0]
    assert there - here == pytest.approx(float(policy._saved[1])) and policy._saved[1] > 0.0
    assert [one.devices for one in policy.best(simulator.view())] == [(1,)]


@either
def test_the_next_call_counts_but_not_the_one_behind(sequences: int | None) -> None:
    """d1 caches what the child of a reads, through a tool; d2 what its grandchild reads."""
    stages = [
        call("warm1", group="g", prefix=6000),
        call("warm2", group="h", prefix=6000),
        call("a"),
        tool("t", 1.0),
        call("child", group="g", prefix=6000),
        call("grandchild", group="h", prefix=6000),
    ]
    edges = [("warm1", "a"), ("warm2", "a"), ("a", "t"), ("t", "child"), ("child", "grandchild")]
    simulator = Simulator(problem(stages, edges={0: edges}, sequences=sequences))
    simulator.place(0, (1,))
    simulator.place(1, (2,))
    while 2 not in simulator.ready:
        simulator.wait()
    policy, found = scores(simulator, aging=0.0)
    assert found[2][0] == found[2][2] < found[2][1]
    retention = policy.retention(simulator.view())
    assert retention.prefixes is not None
    keys = {name[-1]: i for i, name in enumerate(simulator.compiled.prefix_keys)}
    assert retention.prefixes[keys["g"]] > 0.0 == retention.prefixes[keys["h"]]


def test_tasks_age() -> None:
    """a waits since 0, b has just come: with the years a is worth more."""
    flows = [[call("long", output=2000)], [call("a")], [call("b")]]
    simulator = Simulator(problem(*flows, arrivals=(0.0, 0.0, 10.0), devices=1))
    simulator.place(0, (0,))
    while simulator.view().now < 10.0:
        simulator.wait()
    _, plain = scores(simulator, aging=0.0)
    _, aged = scores(simulator, aging=0.1)
    assert plain[1] == plain[2]
    assert aged[1][0] - aged[2][0] == pytest.approx(1.0)


@either
def test_assignments_are_for_devices_where_a_call_starts(sequences: int | None) -> None:
    simulator = Simulator(problem([call(f"s{i}") for i in range(5)], sequences=sequences))
    policy = Topas()
    policy.reset(simulator.view(), 0)
    decided = [one for one in policy.decide(simulator.view()) if isinstance(one, Assignment)]
    assert len(decided) == (3 if sequences is None else 1)
    assert_valid(simulator.run(policy))
