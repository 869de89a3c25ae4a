"""Contention computed by hand: which fetch waits for which interface, and for how long.

Machines ``a0``, ``a1``, ... are on node ``a``. The network carries 1 byte/s without latency, so
the bytes of an edge are the seconds of its fetch. The random problems of the other tests have
contention too, and the validator checks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.catalog import GB
from fate_gym.env import WorkflowSchedulingEnv
from fate_gym.errors import InputError
from fate_gym.kernel.schema import ProblemArrays, new_state
from fate_gym.problem import (
    Cluster,
    Device,
    Edge,
    Failures,
    Link,
    Options,
    Outage,
    Problem,
    Stage,
    Workflow,
    dump_problem,
    load_problem,
)
from fate_gym.problem.problem import MOST_CONTENDED_NODES
from fate_gym.sim import Assignment, Simulator, Trace, compile_problem
from fate_gym.validator import assert_valid
from fate_gym.workloads import build_suite, load_cluster, load_suite
from fate_gym.workloads.suites import parse_suite
from policies import make_policy
from tests.kernel.test_engine import Anything
from tests.strategies import problems

Placement = tuple[str, str]
"""A stage and its device."""


def problem(
    seconds: Mapping[str, float],
    edges: Mapping[tuple[str, str], float],
    *,
    machines: Sequence[str] = ("a0", "a1", "b0", "b1", "c0"),
    links: Sequence[Link] = (),
    **options: Any,
) -> Problem:
    """Return a problem of fixed stages with the same duration on every device."""
    cluster = Cluster(
        id="by-hand",
        devices=tuple(Device(id=name, node=name[0]) for name in machines),
        links=tuple(links),
        network_gb_s=1.0 / GB,
        network_latency_s=0.0,
    )
    workflow = Workflow(
        id="w",
        stages=tuple(
            Stage(id=name, seconds_on=dict.fromkeys(machines, s)) for name, s in seconds.items()
        ),
        edges=tuple(Edge(parent=a, child=b, bytes=size) for (a, b), size in edges.items()),
    )
    return Problem.build(cluster, [workflow], options=Options(**{"contention": True} | options))


def play(problem: Problem, placements: Sequence[Placement], seed: int = 0) -> Trace:
    """Commit the placements in this order, each as soon as its stage is ready."""
    simulator = Simulator(problem, seed=seed)
    number = {name: i for i, (_, name) in enumerate(simulator.compiled.stage_ids)}
    for stage, device in placements:
        while number[stage] not in simulator.ready:
            simulator.wait()
        simulator.place(number[stage], (simulator.compiled.device_ids.index(device),))
    while not simulator.done:
        simulator.wait()
    trace = simulator.trace()
    assert_valid(trace)
    return trace


def transfers(problem: Problem, placements: Sequence[Placement]) -> dict[str, float]:
    """Return the seconds of each fetch by stage, including waiting; without those of 0 s."""
    trace = play(problem, placements)
    names = [name for _, name in trace.stage_ids]
    rows = [row for row in trace.shards if row["transfer_s"] > 0]
    return {names[row["stage"]]: float(row["transfer_s"]) for row in rows}


def off(problem: Problem) -> Problem:
    options = problem.options.model_copy(update={"contention": False})
    return problem.model_copy(update={"options": options})


# --- who waits ---------------------------------------------------------------------------------


def test_the_receiving_node_takes_one_fetch_at_a_time() -> None:
    shared = problem({"root": 1, "x": 1, "y": 1}, {("root", "x"): 4.0, ("root", "y"): 4.0})
    places = [("root", "b0"), ("x", "a0"), ("y", "a1")]
    assert transfers(shared, places) == {"x": 4.0, "y": 8.0}
    assert transfers(off(shared), places) == {"x": 4.0, "y": 4.0}


def test_receiving_from_different_nodes_takes_turns_too() -> None:
    shared = problem({"r": 1, "q": 1, "x": 1, "y": 1}, {("r", "x"): 4.0, ("q", "y"): 3.0})
    places = [("r", "b0"), ("q", "c0"), ("x", "a0"), ("y", "a1")]
    assert transfers(shared, places) == {"x": 4.0, "y": 7.0}


def test_the_sending_node_serves_one_fetch_at_a_time() -> None:
    shared = problem({"root": 1, "x": 1, "y": 1}, {("root", "x"): 4.0, ("root", "y"): 3.0})
    assert transfers(shared, [("root", "a0"), ("x", "b0"), ("y", "c0")]) == {"x": 4.0, "y": 7.0}


def test_an_interface_sends_and_receives_at_once() -> None:
    apart = problem({"r": 1, "q": 1, "x": 1, "y": 1}, {("r", "x"): 4.0, ("q", "y"): 3.0})
    places = [("r", "a0"), ("q", "b0"), ("x", "c0"), ("y", "a1")]
    assert transfers(apart, places) == {"x": 4.0, "y": 3.0}


def test_what_one_shard_fetches_from_several_nodes_comes_one_after_the_other() -> None:
    join = problem({"r": 1, "q": 1, "x": 1, "y": 1}, {("r", "x"): 3.0, ("q", "x"): 5.0})
    places = [("r", "a0"), ("q", "b0"), ("x", "c0"), ("y", "a1")]
    assert transfers(join, places) == {"x": 8.0}
    assert transfers(off(join), places) == {"x": 5.0}


def test_a_fetch_holds_all_its_senders_to_its_end() -> None:
    """x takes 3 s from a and 5 s from b; y, which needs b alone, waits for all 8."""
    join = problem(
        {"r": 1, "q": 1, "x": 1, "y": 1},
        {("r", "x"): 3.0, ("q", "x"): 5.0, ("q", "y"): 1.0},
        machines=("a0", "b0", "c0", "d0"),
    )
    places = [("r", "a0"), ("q", "b0"), ("x", "c0"), ("y", "d0")]
    assert transfers(join, places) == {"x": 8.0, "y": 9.0}


def test_a_fetch_goes_into_the_first_gap_that_is_wide_enough() -> None:
    gaps = problem(
        {"root": 1, "block": 10, "x": 1, "y": 1, "z": 1, "w": 1},
        {("root", "x"): 4.0, ("root", "y"): 2.0, ("root", "z"): 9.0, ("root", "w"): 8.0},
        machines=("a0", "b0", "b1", "b2", "b3"),
    )
    places = [("block", "b0"), ("root", "a0"), ("x", "b0"), ("y", "b1"), ("z", "b2"), ("w", "b3")]
    # x: booked from 10 to 14, when b0 is free; y: 1 to 3. The gap of 7 s in between is too short
    # for z, which comes from 14 to 23, and so for w, from 23 to 31.
    assert transfers(gaps, places) == {"x": 4.0, "y": 2.0, "z": 22.0, "w": 30.0}
    edges = {("root", "x"): 4.0, ("root", "y"): 2.0, ("root", "z"): 9.0, ("root", "w"): 7.0}
    exact = problem(
        {"root": 1, "block": 10, "x": 1, "y": 1, "z": 1, "w": 1},
        edges,
        machines=("a0", "b0", "b1", "b2", "b3"),
    )
    # Seven seconds fit, to the nanosecond.
    assert transfers(exact, places)["w"] == 9.0


def test_a_device_that_loads_or_runs_meanwhile_holds_nobody_up() -> None:
    """The fetch is over before the shard: who comes after its end does not wait."""
    later = problem(
        {"root": 1, "other": 6, "x": 9, "y": 1},
        {("root", "x"): 4.0, ("root", "y"): 4.0, ("other", "y"): 0.0},
    )
    places = [("root", "b0"), ("other", "c0"), ("x", "a0"), ("y", "a1")]
    assert transfers(later, places) == {"x": 4.0, "y": 4.0}


def test_inside_a_node_and_over_links_of_their_own_transfers_are_side_by_side() -> None:
    edges = {("root", name): 4.0 for name in "uvxyz"}
    free = problem(
        {"root": 1, **dict.fromkeys("uvxyz", 1)},
        edges,
        machines=("a0", "a1", "a2", "b0", "b1", "c0"),
        links=[Link(a="a0", b="b0", gb_s=2.0 / GB, latency_s=0.0),
               Link(a="a0", b="c0", gb_s=1.0 / GB, latency_s=0.0)],
    )  # fmt: skip
    places = [("root", "a0"), ("u", "a1"), ("v", "a2"), ("x", "b0"), ("y", "c0"), ("z", "b1")]
    assert transfers(free, places) == transfers(off(free), places)
    assert transfers(free, places)["x"] == 2.0


def test_on_one_node_nothing_changes() -> None:
    shared = problem(
        {"root": 1, "x": 1, "y": 1},
        {("root", "x"): 4.0, ("root", "y"): 4.0},
        machines=("a0", "a1", "a2"),
    )
    places = [("root", "a0"), ("x", "a1"), ("y", "a2")]
    assert play(shared, places).same_schedule(play(off(shared), places))


# --- models, shards, prefixes ------------------------------------------------------------------


def served(**options: Any) -> Problem:
    """``root`` has a prefix and sends 8 GB to ``split``; ``p`` and ``q`` have the same prefix."""
    shape: dict[str, Any] = {"model": "Phi-3-mini", "prompt_tokens": 100, "output_tokens": 1}
    prefix = {"prefix_group": "g", "prefix_tokens": 2000}
    stages = (
        Stage(id="root", **shape, **prefix),
        Stage(id="split", queries=2, **shape),
        Stage(id="p", **shape, **prefix),
        Stage(id="q", **shape, **prefix),
    )
    edges = (
        Edge(parent="root", child="split", bytes=8e9),
        Edge(parent="root", child="p"),
        Edge(parent="root", child="q"),
    )
    cluster = Cluster(
        id="c",
        devices=tuple(Device(id=name, gpu="A100-80", node=name[0]) for name in ("a0", "b0", "b1")),
        network_gb_s=1.0,
        network_latency_s=0.0,
        load_init_s=0.0,
        load_gb_s=100.0,
    )
    workflow = Workflow(id="w", stages=stages, edges=edges)
    return Problem.build(cluster, [workflow], options=Options(**{"contention": True} | options))


def finish(simulator: Simulator) -> Trace:
    while not simulator.done:
        if simulator.ready:
            simulator.place(simulator.ready[0], (0,))
        else:
            simulator.wait()
    trace = simulator.trace()
    assert_valid(trace)
    return trace


@pytest.mark.parametrize("devices", [(1, 2), (2, 1)])
def test_shards_of_a_stage_fetch_in_the_order_of_the_placement(devices: tuple[int, int]) -> None:
    simulator = Simulator(served())
    simulator.place(0, (0,))
    simulator.wait()
    alone = [simulator.view().transfer_seconds(1)[d] for d in devices]
    assert alone == [8.0, 8.0]
    simulator.place(1, devices, (1, 1))
    rows = finish(simulator).shards
    rows = rows[rows["stage"] == 1]
    assert rows["device"].tolist() == list(devices)
    assert rows["transfer_s"].tolist() == pytest.approx([4.0, 8.0])


def test_copied_prefixes_take_turns_and_share_the_fetch_with_other_inputs() -> None:
    simulator = Simulator(served())
    simulator.place(0, (0,))
    simulator.wait()
    kv = float(simulator.compiled.arrays.models["kv"][0])
    copy = 2000 * kv / 1e9
    simulator.place(2, (1,), migrate_from=0)
    expected = simulator.view().estimate(3, 2, migrate_from=0)
    simulator.place(3, (2,), migrate_from=0)
    rows = finish(simulator).shards
    taken = {int(row["stage"]): row for row in rows if row["copied"]}
    assert taken[2]["transfer_s"] == pytest.approx(copy)
    assert taken[3]["transfer_s"] == pytest.approx(2 * copy)
    assert expected.transfer == taken[3]["transfer_s"]


# --- what is booked ----------------------------------------------------------------------------


def test_a_failure_frees_what_its_shards_had_booked() -> None:
    edges = {("root", "x"): 4.0, ("root", "y"): 4.0, ("beat", "y"): 0.0}
    outage = Failures(outages=(Outage(device="a1", at=2.0, seconds=90.0),))
    places = [("root", "b0"), ("beat", "c0"), ("x", "a1"), ("y", "a0")]
    seconds = {"root": 1, "beat": 2, "x": 1, "y": 1}
    assert transfers(problem(seconds, edges), places) == {"x": 4.0, "y": 7.0}
    trace = play(problem(seconds, edges, failures=outage), [*places, ("x", "a0")])
    by_stage = [(int(row["stage"]), float(row["transfer_s"])) for row in trace.shards]
    # x was to fetch from 1 to 5. At 2 it is lost: y need not wait, x comes again behind it.
    assert by_stage[2:] == [(2, 4.0), (3, 4.0), (2, 4.0)]
    assert trace.shards["lost"].tolist() == [0, 0, 1, 0, 0]


def test_waiting_shards_have_booked_too() -> None:
    queued = problem(
        {"root": 1, "block": 6, "x": 1, "y": 1}, {("root", "x"): 4.0, ("root", "y"): 6.0}
    )
    places = [("block", "a0"), ("root", "b0"), ("x", "a0"), ("y", "a1")]
    # x is to fetch from 6 to 10, when its turn comes: the 5 s before are too few for y.
    assert transfers(queued, places) == {"x": 4.0, "y": 15.0}


def contended(problem: Problem, **options: Any) -> Problem:
    """A random problem on three nodes and a slow network, with something on every edge."""
    devices = tuple(
        device.model_copy(update={"node": f"n{i % 3}", "network_gb_s": None})
        for i, device in enumerate(problem.cluster.devices)
    )
    cluster = problem.cluster.model_copy(update={"devices": devices, "network_gb_s": 0.2})
    workflows = tuple(
        workflow.model_copy(
            update={
                "edges": tuple(
                    edge.model_copy(update={"bytes": max(edge.bytes, 3e9)})
                    for edge in workflow.edges
                ),
                "arrival": 0.0,
            }
        )
        for workflow in problem.workflows
    )
    given = {"eager_transfers": False, "contention": True} | options
    return problem.model_copy(
        update={
            "cluster": cluster,
            "workflows": workflows,
            "options": problem.options.model_copy(update=given),
        }
    )


@settings(max_examples=50)
@given(problems("llm") | problems("mixed"), st.integers(0, 2**32))
def test_the_validator_agrees_on_crowded_networks(problem: Problem, seed: int) -> None:
    """Random placements, shards, copies and waits; noise and failures in some."""
    assert_valid(Simulator(contended(problem)).run(Anything(), seed=seed))


@settings(max_examples=30)
@given(problems("llm", most=8), st.integers(0, 2**32))
def test_what_is_estimated_is_what_is_committed(problem: Problem, seed: int) -> None:
    """With noise too: bookings are for the expected turn, so they tell nothing of what is drawn."""
    simulator = Simulator(contended(problem, uncertainty=0.5), seed=seed)
    rng = np.random.default_rng(seed)
    while not simulator.done:
        if not simulator.ready or (simulator.view().can_wait and rng.random() < 0.2):
            simulator.wait()
            continue
        stage = simulator.ready[0]
        device = int(rng.choice(simulator.view().eligible(stage)))
        before = simulator.state.copy()
        expected = simulator.view().estimate(stage, device)
        assert np.array_equal(simulator.state.buffer, before.buffer)
        simulator.place(stage, (device,))
        assert simulator.trace().shards[-1]["transfer_s"] == expected.transfer
    assert_valid(simulator.trace())


def test_bookings_do_not_tell_how_long_a_running_shard_will_take() -> None:
    """x waits behind a shard on a0 whose noise differs; what y is told does not."""
    seen = set()
    for seed in range(4):
        queued = problem(
            {"root": 1, "block": 6, "x": 1, "y": 1},
            {("root", "x"): 4.0, ("root", "y"): 7.0},
            uncertainty=0.5,
        )
        simulator = Simulator(queued, seed=seed)
        simulator.place(0, (2,))
        simulator.wait()
        simulator.place(1, (0,))
        simulator.place(2, (0,))
        seen.add(round(float(simulator.view().transfer_seconds(3)[1]), 9))
    # The block is expected to take 6 s, and x will then fetch for 4 s: no gap for the 7 s of y.
    assert seen == {17.0}


# --- the option --------------------------------------------------------------------------------


def test_contention_and_eager_transfers_exclude_each_other() -> None:
    with pytest.raises(InputError, match="contention together with eager_transfers"):
        problem({"a": 1}, {}, eager_transfers=True)


def test_too_many_nodes_are_refused() -> None:
    def cluster(nodes: int) -> Cluster:
        devices = tuple(Device(id=f"d{i}", node=f"n{i}") for i in range(nodes))
        return Cluster(id="wide", devices=devices)

    workflow = Workflow(id="w", stages=(Stage(id="s", seconds_on={"d0": 1.0}),))
    options = Options(contention=True)
    Problem.build(cluster(MOST_CONTENDED_NODES), [workflow], options=options)
    with pytest.raises(InputError, match="63 nodes") as raised:
        Problem.build(cluster(MOST_CONTENDED_NODES + 1), [workflow], options=options)
    assert raised.value.field == "contention"


def test_all_nodes_may_send() -> None:
    """Up to the last bit of the mask."""
    names = [chr(ord("0") + i) for i in range(MOST_CONTENDED_NODES)]
    wide = problem({"r": 1, "x": 1, "y": 1}, {("r", "x"): 4.0, ("r", "y"): 4.0}, machines=names)
    assert transfers(wide, [("r", names[-1]), ("x", names[0]), ("y", names[1])])["y"] == 8.0


def test_the_option_is_part_of_the_file_only_when_it_is_on(tmp_path: Any) -> None:
    on = problem({"a": 1}, {})
    dump_problem(on, tmp_path / "on.json")
    assert load_problem(tmp_path / "on.json") == on
    assert "contention" not in off(on).model_dump_json()
    assert Options.model_validate(off(on).options.model_dump()) == off(on).options


def test_off_costs_no_memory_and_leaves_the_problem_as_it_was() -> None:
    on = compile_problem(problem({"a": 1, "b": 1}, {("a", "b"): 1.0}))
    without = compile_problem(off(on.problem))
    assert new_state(on.arrays).buffer.size > new_state(without.arrays).buffer.size
    differ = np.flatnonzero(on.arrays.buffer != without.arrays.buffer)
    at = ProblemArrays.head.fields["contention"][1]  # type: ignore[index]
    assert differ.tolist() == [ProblemArrays.head_at + at]


def test_a_suite_can_switch_it_on() -> None:
    plain = load_suite("smoke")
    data = plain.model_dump(mode="json")
    assert "contention" not in data
    contended = parse_suite(data | {"contention": True}, source="test")
    assert contended.model_dump()["contention"]
    cluster = load_cluster(contended.cluster)
    assert all(p.options.contention for p in build_suite(contended, cluster, 0))
    assert not any(p.options.contention for p in build_suite(plain, cluster, 0))


# --- policies and the environment --------------------------------------------------------------


def crowded() -> Problem:
    """A fan-out and a join with heavy edges on three nodes."""
    shape: dict[str, Any] = {"model": "Phi-3-mini", "prompt_tokens": 800, "output_tokens": 60}
    names = [f"m{i}" for i in range(6)]
    stages = (
        Stage(id="root", queries=4, **shape),
        *(Stage(id=name, queries=3 + i, **shape) for i, name in enumerate(names)),
        Stage(id="join", queries=2, **shape),
    )
    edges = [Edge(parent="root", child=name, bytes=2e9) for name in names]
    edges += [Edge(parent=name, child="join", bytes=1e9) for name in names]
    gpus = ("A10G", "L40S", "A100-80", "L40S", "A10G", "H100-SXM")
    devices = tuple(Device(id=f"d{i}", gpu=gpu, node=f"n{i % 3}") for i, gpu in enumerate(gpus))
    cluster = Cluster(id="crowd", devices=devices, network_gb_s=2.0)
    workflow = Workflow(id="w", stages=stages, edges=tuple(edges))
    return Problem.build(cluster, [workflow], options=Options(contention=True, max_shards=2))


POLICIES = ("heft", "heft_boosted", "lookahead_heft_boosted", "heft_sharded", "min_min",
            "heft_offline", "fate", "fate_rollout", "oracle_cpsat")  # fmt: skip


@pytest.mark.parametrize("name", POLICIES)
def test_policies_run_on_contended_problems(name: str) -> None:
    policy = make_policy(name, **({"limit": 2.0} if name == "oracle_cpsat" else {}))
    trace = Simulator(crowded()).run(policy)
    assert_valid(trace)
    if name == "oracle_cpsat":
        assert trace.counters["oracle_bound"] <= trace.makespan


def test_the_environment_plays_what_the_simulator_plays() -> None:
    env = WorkflowSchedulingEnv(crowded(), max_shards=2)
    env.reset(seed=0)
    simulator = Simulator(env.compiled, seed=env.noise_seed)
    rng = np.random.default_rng(0)
    while not env.ended:
        while not simulator.ready:
            simulator.wait()  # the environment goes to the next decision by itself
        action = int(rng.choice(np.flatnonzero(env.action_masks())))
        assignment = env.placement(action)
        if assignment is None:
            simulator.wait()
        else:
            assert isinstance(assignment, Assignment)
            simulator.apply([assignment])
        env.step(action)
    while not simulator.done:
        simulator.wait()
    assert env.trace().same_schedule(simulator.trace())
    assert (env.trace().shards["transfer_s"] > 0).any()
    assert_valid(env.trace())
