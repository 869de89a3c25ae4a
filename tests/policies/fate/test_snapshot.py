"""The planner as a library call: it uses the state in the snapshot."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fate_gym.errors import InputError
from fate_gym.kernel.schema import DECODING
from fate_gym.lab.cli import main
from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.sim import DecisionView, Simulator, compile_problem
from policies import fate, make_policy
from policies.fate.snapshot import build_state, decide, read_snapshot

EXAMPLE = Path("docs/examples/snapshot.json")


def example() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return data


@pytest.mark.parametrize("policy", ["fate", "fate_rollout", "heft_boosted"])
def test_the_example_has_a_plan(policy: str) -> None:
    placements = fate.plan(EXAMPLE, policy=policy)
    assert [(p.workflow, p.stage) for p in placements] == [("question", "read")]
    assert sum(placements[0].devices.values()) == 8
    assert placements[0].expected_end_s > 0
    assert fate.plan(example(), policy=policy) == placements


def test_a_snapshot_of_the_start_is_the_start_of_a_run() -> None:
    data = example()
    del data["state"]
    problem, state, _ = read_snapshot(data)
    policy = make_policy("fate_rollout")
    simulator = Simulator(problem)
    trace = simulator.run(policy)
    first = {
        (*trace.stage_ids[row["stage"]], trace.device_ids[row["device"]]): int(row["queries"])
        for row in trace.shards
        if row["committed"] == 0.0 and row["device"] >= 0
    }
    planned = {
        (p.workflow, p.stage, device): queries
        for p in decide(problem, state, make_policy("fate_rollout"))
        for device, queries in p.devices.items()
    }
    assert planned == first


def test_the_turn_before_has_ended_and_need_not_be_there() -> None:
    data = example()
    plain = fate.plan(example(), policy="fate")
    data["workflows"][0] |= {"follows": "gone", "think_seconds": 3.0, "session": "s"}
    assert fate.plan(data, policy="fate") == plain


def test_residency_prefixes_and_contexts_are_seen() -> None:
    """The expected end of `answer` falls with each of them by what the model says it saves."""
    data = example()
    data["workflows"] = data["workflows"][:1]
    queries = {"plan": 1, "read": 8}
    finished = [
        {"workflow": "question", "stage": name, "devices": {"l40s": n}}
        for name, n in queries.items()
    ] + [{"workflow": "question", "stage": "search"}]
    for stage in data["workflows"][0]["stages"]:
        stage["allowed_devices"] = None if "tool_seconds" in stage else ["l40s"]
    planner = {"model": "Llama-3.1-8B", "group": "planner", "tokens": 1500}

    def end(cached: bool, **held: Any) -> float:
        state = {"finished": copy.deepcopy(finished), "devices": {"l40s": held}}
        state["finished"][0]["cached"] = cached
        (placement,) = fate.plan(data | {"state": state}, policy="heft_boosted")
        assert placement.stage == "answer"
        return placement.expected_end_s

    cold = end(False)
    warm = end(False, resident=["Llama-3.1-8B"])
    hit = end(False, resident=["Llama-3.1-8B"], prefixes=[planner])
    context = end(True, resident=["Llama-3.1-8B"], prefixes=[planner])
    assert cold > warm > hit > context > 0
    problem, _, _ = read_snapshot(data | {"state": {}})
    compiled = Simulator(problem).compiled
    model = compiled.model_names.index("Llama-3.1-8B")
    device = compiled.device_ids.index("l40s")
    assert cold - warm == pytest.approx(compiled.load_seconds[model, device])
    assert warm - hit == pytest.approx(
        compiled.prefix_seconds[compiled.stage_ids.index(("question", "answer")), device], rel=0.2
    )


def test_nothing_to_start_is_to_wait() -> None:
    data = example()
    data["state"]["running"].append(
        {"workflow": "question", "stage": "read", "devices": {"h100": 8}, "ends_in_s": 1.0}
    )
    assert fate.plan(data) == []


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown device": (
        {"devices": {"l40": {}}}, "state.devices", "did you mean 'l40s'",
    ),
    "unknown model": (
        {"devices": {"l40s": {"resident": ["Llama-3.1-8b"]}}},
        "state.devices.resident", "did you mean 'Llama-3.1-8B'",
    ),
    "memory overfull": (
        {"devices": {"a10g": {"resident": ["Llama-3.1-8B", "Qwen2.5-7B"]}}},
        "state.devices", "GB of",
    ),
    "unknown stage": (
        {"finished": [{"workflow": "question", "stage": "pln", "devices": {"l40s": 1}}]},
        "state.finished", "did you mean 'question/plan'",
    ),
    "no host": (
        {"running": [
            {"workflow": "review", "stage": "draft", "devices": {"l9": 1}, "ends_in_s": 1.0}
        ]},
        "state.running.devices", "unknown device 'l9'",
    ),
    "child before parent": (
        {"finished": [{"workflow": "review", "stage": "judge", "devices": {"h100": 1}}]},
        "state.finished", "parent 'draft' has not finished",
    ),
    "wrong queries": (
        {"running": [
            {"workflow": "review", "stage": "draft", "devices": {"l40s": 3}, "ends_in_s": 1.0}
        ]},
        "state.running.devices", "3 queries on devices, the stage has 1",
    ),
    "twice": (
        {"finished": [{"workflow": "question", "stage": "plan", "devices": {"l40s": 1}}] * 2},
        "state.finished", "stands twice",
    ),
    "two at once": (
        {"running": [
            {"workflow": "review", "stage": "draft", "devices": {"l40s": 1}, "ends_in_s": 1.0},
            {"workflow": "question", "stage": "plan", "devices": {"l40s": 1}, "ends_in_s": 1.0},
        ]},
        "state.running", "runs two stages",
    ),
    "too large for the device": (
        {"finished": [
            {"workflow": "review", "stage": "draft", "devices": {"l40s": 1}},
            {"workflow": "review", "stage": "judge", "devices": {"a10g": 1}},
        ]},
        "state.finished.devices", "cannot host it",
    ),
    "unknown workflow": ({"waited_s": {"reviews": 1.0}}, "state.waited_s", "did you mean 'review'"),
    "negative time": ({"waited_s": {"review": -1.0}}, "state.waited_s.review", "greater than"),
    "unknown field": ({"device": {}}, "state.device", "not permitted"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_impossible_snapshots(fault: str) -> None:
    state, field, message = FAULTS[fault]
    with pytest.raises(InputError, match=message) as raised:
        fate.plan(example() | {"state": state})
    assert raised.value.field == field
    assert raised.value.source == "<snapshot>"
    assert raised.value.remedy


# --- devices that batch -----------------------------------------------------------------------


def batching_example(**state: Any) -> dict[str, Any]:
    data = example()
    data["cluster"]["execution"] = "batching"
    draft = {"workflow": "review", "stage": "draft", "devices": {"l40s": 1}, "tokens_made": 120}
    return data | {"state": data["state"] | {"running": [draft]} | state}


def chats(count: int) -> Problem:
    """Return requests of different lengths to one device, whose snapshot can be made by hand."""
    stages = tuple(
        Stage(
            id=f"s{i}", model="Llama-3.1-8B", queries=2, prompt_tokens=400,
            output_tokens=100 + 60 * i, prefix_group="g", prefix_tokens=1000,
        )
        for i in range(count)
    )  # fmt: skip
    cluster = Cluster(
        id="one",
        devices=(Device(id="d", gpu="A100-80"),),
        execution="batching",
        max_sequences=8,
    )
    return Problem.build(cluster, [Workflow(id="w", stages=stages)])


@pytest.mark.parametrize("policy", ["fate", "fate_rollout", "heft_boosted"])
def test_a_batch_has_a_plan(policy: str) -> None:
    (placement,) = fate.plan(batching_example(), policy=policy)
    assert (placement.stage, sum(placement.devices.values())) == ("read", 8)
    assert placement.expected_end_s > 0


def test_a_snapshot_of_a_batch_is_the_batch() -> None:
    """At an end of a wave, a border: what is expected is what the simulator expects."""
    problem = chats(6)
    simulator = Simulator(problem)
    for stage in range(5):
        simulator.place(stage, [0])
    while simulator.state.stages["status"][0] != 3:
        simulator.wait()
    live = simulator.state
    running = []
    for s in range(1, 5):
        lane = live.lanes[s, 0]
        since = live.batches["steps"][0] - lane["since"] if lane["state"] == DECODING else 0
        made = {"tokens_made": int(lane["made"] + since)}
        running.append({"workflow": "w", "stage": f"s{s}", "devices": {"d": 2}} | made)
    assert sum(one["tokens_made"] > 0 for one in running) == 3  # the fifth did not fit before
    data = json.loads(problem.model_dump_json(exclude_none=True)) | {
        "state": {
            "devices": {
                "d": {
                    "resident": ["Llama-3.1-8B"],
                    "prefixes": [{"model": "Llama-3.1-8B", "group": "g", "tokens": 1000}],
                }
            },
            "finished": [{"workflow": "w", "stage": "s0", "devices": {"d": 2}}],
            "running": running,
        }
    }
    given, state, _ = read_snapshot(data)
    compiled = compile_problem(given)
    built = build_state(compiled, state)
    view = DecisionView(compiled, built)
    ends = [simulator.view().estimate(5, 0), view.estimate(5, 0)]
    assert ends[1].end - view.now == pytest.approx(ends[0].end - simulator.view().now, rel=1e-4)
    # In the run the fifth has just been admitted: it joins an iteration later.
    assert ends[1].delay == pytest.approx(ends[0].delay, rel=1e-2)
    drains = [one.drain_estimates()[0] - one.now for one in (simulator.view(), view)]
    assert drains[1] == pytest.approx(drains[0], rel=5e-3)
    # Without room in the batch, who commits what starts at once waits; others queue it.
    assert view.starts_now(5).tolist() == simulator.view().starts_now(5).tolist() == [False]
    assert decide(given, state, make_policy("heft")) == []
    (placement,) = decide(given, state, make_policy("eft"))
    assert placement.expected_end_s == pytest.approx(ends[1].end - view.now)


def test_who_waits_is_admitted_first() -> None:
    problem = chats(6)
    data = json.loads(problem.model_dump_json(exclude_none=True))
    running = [
        {"workflow": "w", "stage": f"s{s}", "devices": {"d": 2}, "tokens_made": 10}
        for s in range(4)
    ]
    waits = [{"workflow": "w", "stage": "s4", "devices": {"d": 2}}]
    ends = []
    for waiting in ([], waits):
        given, state, _ = read_snapshot(data | {"state": {"running": running, "waiting": waiting}})
        placements = decide(given, state, make_policy("heft", lazy=False))
        ends.append({p.stage: p.expected_end_s for p in placements})
    assert set(ends[0]) == {"s4", "s5"} and set(ends[1]) == {"s5"}
    assert ends[1]["s5"] > ends[0]["s4"]


BATCHING_FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "seconds in a batch": (
        {"running": [
            {"workflow": "review", "stage": "draft", "devices": {"l40s": 1}, "ends_in_s": 1.0}
        ]},
        "state.running.ends_in_s", "says nothing of a stage on batching devices",
    ),
    "no progress": (
        {"running": [{"workflow": "review", "stage": "draft", "devices": {"l40s": 1}}]},
        "state.running.tokens_made", "tokens_made is missing",
    ),
    "two models at once": (
        {"finished": [
            {"workflow": "question", "stage": "plan", "devices": {"l40s": 1}},
            {"workflow": "question", "stage": "search"},
        ], "running": [
            {"workflow": "review", "stage": "draft", "devices": {"l40s": 1}, "tokens_made": 9},
            {"workflow": "question", "stage": "read", "devices": {"l40s": 8}, "tokens_made": 9},
        ]},
        "state.running", "device 'l40s' cannot run it beside the others",
    ),
    "a tool in line": (
        {"finished": [{"workflow": "question", "stage": "plan", "devices": {"l40s": 1}}],
         "waiting": [{"workflow": "question", "stage": "search"}]},
        "state.waiting", "only stages on batching devices wait in line",
    ),
    "negative tokens": (
        {"running": [
            {"workflow": "review", "stage": "draft", "devices": {"l40s": 1}, "tokens_made": -1}
        ]},
        "state.running.0.tokens_made", "greater than",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BATCHING_FAULTS)
def test_impossible_snapshots_of_batches(fault: str) -> None:
    state, field, message = BATCHING_FAULTS[fault]
    with pytest.raises(InputError, match=message) as raised:
        fate.plan(batching_example(**state))
    assert raised.value.field == field
    assert raised.value.remedy


def test_batches_are_of_batching_devices() -> None:
    data = batching_example()
    data["cluster"]["execution"] = "exclusive"
    with pytest.raises(InputError, match="exclusive devices") as raised:
        fate.plan(data)
    assert raised.value.field == "state.running.tokens_made"
    data = example()
    data["state"]["waiting"] = data["state"].pop("running")
    del data["state"]["waiting"][0]["ends_in_s"]
    with pytest.raises(InputError, match="only stages on batching devices") as raised:
        fate.plan(data)
    assert raised.value.field == "state.waiting"


def test_a_stage_that_nothing_can_host() -> None:
    data = example()
    data["cluster"]["devices"] = data["cluster"]["devices"][2:]
    with pytest.raises(InputError, match="judge"):
        fate.plan(data | {"state": {}})


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", str(EXAMPLE)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(p["workflow"], p["stage"]) for p in found] == [("question", "read")]
    assert main(["plan", str(EXAMPLE), "--policy", "heft_boosted"]) == 0
    capsys.readouterr()
    bad = tmp_path / "bad.json"
    bad.write_text("{", encoding="utf-8")
    assert main(["plan", str(bad)]) == 2
    assert str(bad) in capsys.readouterr().err
    assert np.isfinite(found[0]["expected_end_s"])
