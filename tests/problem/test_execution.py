"""Execution of devices, and devices of several GPUs: defaults, errors, and what fits."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym import catalog
from fate_gym.errors import InputError
from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow, dump_problem, parse_problem

Tree = dict[str, Any]

GOOD: Tree = {
    "id": "good",
    "cluster": {
        "id": "c",
        "execution": "batching",
        "devices": [{"id": "d0", "gpu": "A10G"}, {"id": "d1", "gpu": "H100-SXM"}, {"id": "d2"}],
    },
    "workflows": [
        {
            "id": "w",
            "stages": [{"id": "s", "model": "Llama-3.1-8B", "prompt_tokens": 9, "queries": 3}],
        }
    ],
}


def cluster_of(**changes: Any) -> Cluster:
    return Cluster(id="c", devices=(Device(id="d", gpu="A10G"),), **changes)


def test_devices_are_exclusive_unless_a_file_says_otherwise() -> None:
    tree = copy.deepcopy(GOOD)
    del tree["cluster"]["execution"]
    cluster = parse_problem(json.dumps(tree)).cluster
    assert cluster.execution == "exclusive"
    assert not cluster.serving.batching
    assert cluster.serving.max_sequences == catalog.execution().max_batch == 256


def test_defaults_of_batching_devices() -> None:
    serving = parse_problem(json.dumps(GOOD)).cluster.serving
    assert serving.batching
    assert not serving.prefill_first
    assert (serving.token_budget, serving.max_sequences) == (8192, 256)


@given(
    st.sampled_from(["chunked", "first", None]),
    st.none() | st.integers(1, 10**9),
    st.none() | st.integers(1, 10**9),
)
def test_what_is_given_stays_and_less_budget_than_sequences_is_an_error(
    prefill: Any, budget: int | None, sequences: int | None
) -> None:
    cluster = cluster_of(
        execution="batching", prefill=prefill, token_budget=budget, max_sequences=sequences
    )
    serving = cluster.serving
    assert serving.prefill_first == (prefill == "first")
    assert serving.token_budget == (8192 if budget is None else budget)
    assert serving.max_sequences == (256 if sequences is None else sequences)
    if serving.token_budget >= serving.max_sequences:
        cluster.check_execution("cluster 'c'")
        return
    with pytest.raises(InputError) as caught:
        cluster.check_execution("cluster 'c'")
    assert caught.value.field == ("max_sequences" if budget is None else "token_budget")


FIELDS = ("execution", "prefill", "token_budget", "max_sequences", "tensor_parallel")


def test_problems_without_the_fields_are_written_as_before() -> None:
    cluster = Cluster(id="c", devices=(Device(id="d", gpu="A10G"),))
    workflow = Workflow(id="w", stages=(Stage(id="s", tool_seconds=1.0),))
    text = Problem.build(cluster, [workflow]).model_dump_json()
    assert not any(field in text for field in FIELDS)


def test_the_fields_come_back_from_a_file() -> None:
    tree = copy.deepcopy(GOOD)
    tree["cluster"] |= {"prefill": "first", "token_budget": 512, "max_sequences": 7}
    tree["cluster"]["devices"][1]["tensor_parallel"] = 4
    problem = parse_problem(json.dumps(tree))
    again = parse_problem(dump_problem(problem))
    assert again == problem
    assert all(field in dump_problem(problem) for field in FIELDS)
    assert again.cluster.serving == (True, True, 512, 7)


def cluster_change(**changes: Any) -> Callable[[Tree], Any]:
    return lambda tree: tree["cluster"].update(changes)


def device_change(number: int, **changes: Any) -> Callable[[Tree], Any]:
    return lambda tree: tree["cluster"]["devices"][number].update(changes)


# What is done to a good file; item, field, words of the fault, and words of the remedy.
FAULTS: dict[str, tuple[Callable[[Tree], Any], str | None, str, str, str]] = {
    "misspelt execution": (
        cluster_change(execution="batchng"),
        None, "cluster.execution", "unknown execution 'batchng'", "did you mean 'batching'?",
    ),
    "execution of another word": (
        cluster_change(execution="vllm"),
        None, "cluster.execution", "unknown execution 'vllm'", "exclusive",
    ),
    "execution of a wrong type": (
        cluster_change(execution=True), None, "cluster.execution", "got True", "correct",
    ),
    "misspelt prefill": (
        cluster_change(prefill="chunk"),
        None, "cluster.prefill", "unknown prefill 'chunk'", "did you mean 'chunked'?",
    ),
    "no tokens": (
        cluster_change(token_budget=0), None, "cluster.token_budget", "equal to 1", "correct",
    ),
    "no sequences": (
        cluster_change(max_sequences=-3), None, "cluster.max_sequences", "equal to 1", "correct",
    ),
    "boolean as tokens": (
        cluster_change(token_budget=True),
        None, "cluster.token_budget", "are not numbers (got True)", "correct",
    ),
    "boolean as sequences": (
        cluster_change(max_sequences=True),
        None, "cluster.max_sequences", "are not numbers (got True)", "correct",
    ),
    "text as tokens": (
        cluster_change(token_budget="8192"),
        None, "cluster.token_budget", "valid integer (got '8192')", "correct",
    ),
    "half a sequence": (
        cluster_change(max_sequences=1.5),
        None, "cluster.max_sequences", "valid integer (got 1.5)", "correct",
    ),
    "huge budget": (
        cluster_change(token_budget=10**400),
        None, "cluster.token_budget", "less than or equal to 1000000000", "correct",
    ),
    "fewer tokens than sequences": (
        cluster_change(token_budget=255),
        "cluster 'c'", "token_budget", "255 is less than max_sequences, 256", "raise token_budget",
    ),
    "more sequences than tokens": (
        cluster_change(max_sequences=8193),
        "cluster 'c'", "max_sequences", "8192 is less than max_sequences", "lower max_sequences",
    ),
    **{
        f"{field} of exclusive devices": (
            cluster_change(execution="exclusive", **{field: value}),
            "cluster 'c'", field, f"{field} is an option of batching devices", "to batching",
        )
        for field, value in (("prefill", "first"), ("token_budget", 9), ("max_sequences", 9))
    },
    "zero GPUs": (
        device_change(1, tensor_parallel=0), "device 'd1'", "tensor_parallel", "to 1", "correct",
    ),
    "boolean as GPUs": (
        device_change(1, tensor_parallel=True),
        "device 'd1'", "tensor_parallel", "are not numbers (got True)", "correct",
    ),
    "too many GPUs": (
        device_change(1, tensor_parallel=10**9),
        "device 'd1'", "tensor_parallel", "less than or equal to 72", "correct",
    ),
    "parallel without a GPU": (
        device_change(2, tensor_parallel=2),
        "cluster 'c', device 'd2'", "tensor_parallel", "without a GPU", "name the device's gpu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_fault_names_file_item_field_and_remedy(name: str) -> None:
    change, item, field, words, remedy = FAULTS[name]
    tree = copy.deepcopy(GOOD)
    change(tree)
    with pytest.raises(InputError) as caught:
        parse_problem(json.dumps(tree), source="plan.json")
    error = caught.value
    assert (error.source, error.item, error.field) == ("plan.json", item, field)
    assert words in error.fault
    assert remedy in (error.remedy or "")


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
def test_what_fits_nowhere_says_how_much_is_missing_and_where(execution: str) -> None:
    tree = copy.deepcopy(GOOD)
    tree["cluster"]["execution"] = execution
    tree["workflows"][0]["stages"][0] |= {
        "prefix_group": "g", "prefix_tokens": 400_000, "prompt_tokens": 50_000,
        "output_tokens": 50_000,
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        parse_problem(json.dumps(tree), source="plan.json")
    error = caught.value
    assert (error.source, error.item, error.field) == (
        "plan.json", "workflow 'w', stage 's'", "model",
    )  # fmt: skip
    # 8 KV heads of 128 in 32 layers, K and V at two bytes; 0.9 of 80 GB.
    need = catalog.model("Llama-3.1-8B").weight_gb + 500_000 * 4 * 32 * 8 * 128 / 1e9
    assert error.fault == (
        "no device can host the stage: Llama-3.1-8B with a context of 500,000 tokens takes "
        f"{need:.2f} GB, {need - 72:.2f} GB more than there is on 'd1', which comes nearest"
    )
    assert "tensor_parallel" in (error.remedy or "")
    tree["cluster"]["devices"][1]["tensor_parallel"] = 2
    assert parse_problem(json.dumps(tree)).cluster.devices[1].tensor_parallel == 2


def test_what_is_missing_is_counted_on_the_devices_that_are_allowed() -> None:
    tree = copy.deepcopy(GOOD)
    tree["workflows"][0]["stages"][0] |= {"model": "Qwen2.5-32B", "allowed_devices": ["d0", "d2"]}
    with pytest.raises(InputError, match="more than there is on 'd0'") as caught:
        parse_problem(json.dumps(tree))
    assert caught.value.field == "allowed_devices"
    tree["workflows"][0]["stages"][0]["allowed_devices"] = ["d2"]
    with pytest.raises(InputError, match="none that it allows has memory"):
        parse_problem(json.dumps(tree))
    tree["workflows"][0]["stages"][0]["allowed_devices"] = []
    with pytest.raises(InputError, match="none that it allows has memory"):
        parse_problem(json.dumps(tree))


def test_a_fixed_stage_that_no_allowed_device_has_seconds_for() -> None:
    tree = copy.deepcopy(GOOD)
    tree["workflows"][0]["stages"] = [
        {"id": "s", "seconds_on": {"d0": 1.0}, "allowed_devices": ["d1"]}
    ]
    with pytest.raises(InputError, match="none that it allows has seconds for it"):
        parse_problem(json.dumps(tree))


@given(st.integers(1, 72), st.sampled_from(sorted(catalog.gpus())))
def test_gpus_as_one_have_the_sum_of_what_they_are(count: int, name: str) -> None:
    cluster = Cluster(
        id="c", devices=(Device(id="d", gpu=name, tensor_parallel=count), Device(id="free"))
    )
    stage = Stage(id="s", model="bge-large", prompt_tokens=1)
    problem = Problem.build(cluster, [Workflow(id="w", stages=(stage,))])
    gpu, whole = catalog.gpu(name), problem.device_facts["d"]
    assert list(problem.device_facts) == ["d"]
    for fact in ("memory_gb", "bandwidth_gb_s", "tflops", "watts", "usd_per_hour"):
        assert getattr(whole, fact) == pytest.approx(count * getattr(gpu, fact))
    for fact in ("nvlink_gb_s", "pcie", "mfu", "mbu", "attention_mfu", "attention_mbu"):
        assert getattr(whole, fact) == getattr(gpu, fact)
    assert problem.memory_limits == pytest.approx({"d": count * gpu.memory_gb * 0.9e9, "free": 0})
