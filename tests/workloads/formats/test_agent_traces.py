"""Agent traces as JSON Lines: strict types, models by sidecar, a JSON Schema that is current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fate_gym.errors import InputError
from fate_gym.problem import Problem, Workflow
from fate_gym.workloads import Content, import_workflows, load_cluster, read_workload
from fate_gym.workloads.formats import template
from fate_gym.workloads.formats.agent_traces import SCHEMA, ImportedTraces, trace_schema

EXAMPLES = Path("docs/examples/imports")
CALL = {"id": 0, "model": "m", "prompt_tokens": 10, "output_tokens": 2}


def lines(*traces: Any) -> Content:
    return Content("t.jsonl", "\n".join(json.dumps(trace) for trace in traces).encode())


def one(**call: Any) -> Content:
    return lines({"id": "t", "calls": [CALL | call]})


def read(content: Content) -> ImportedTraces:
    found = read_workload(content)[1]
    assert isinstance(found, ImportedTraces)
    return found


def imported(content: Content, **options: Any) -> tuple[Workflow, ...]:
    return import_workflows(read(content), 0, **({"model": "Llama-3.1-8B"} | options))


def test_turns_of_all_sessions_with_models_of_a_sidecar() -> None:
    content = Content.of(EXAMPLES / "traces.jsonl")
    workflows = imported(content, model=None, roles=EXAMPLES / "traces_models.yaml")
    assert [workflow.id for workflow in workflows] == [
        *("fix-a-bug/turn-0", "fix-a-bug/turn-1", "review")
    ]
    models = {stage.label: stage.model for w in workflows for stage in w.stages}
    assert (models["main"], models["judge"]) == ("Llama-3.1-70B-AWQ", "Llama-3.1-8B")
    # The system prompt is one for both sessions.
    groups = {stage.prefix_group for stage in workflows[2].stages}
    assert "system/coder" in groups
    assert {prefix.parent for prefix in workflows[0].prefixes} == {"system/coder"}


def test_the_schema_is_current() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == trace_schema(), (
        "write trace_schema() to fate_gym/workloads/data/agent_trace.schema.json"
    )


def test_null_is_a_field_that_is_left_out() -> None:
    assert read(one(role=None, shared_with=None, parents=[])) == read(one())


def test_a_call_without_a_model_is_mapped_by_its_role() -> None:
    found = read(one(model=None, role="judge"))
    assert "judge:" in template(found)
    with pytest.raises(InputError, match=r"'judge'.*--model NAME"):
        import_workflows(found, 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"prompt_tokens": -1}, ["calls.0.prompt_tokens", "-1"]),
        ({"prompt_tokens": 0}, ["prompt_tokens, 1 at least"]),
        ({"prompt_tokens": "10"}, ["calls.0.prompt_tokens", "integer"]),
        ({"prompt_tokens": 10.5}, ["calls.0.prompt_tokens", "integer"]),
        ({"prompt_tokens": None}, ["needs prompt_tokens"]),
        ({"output_tokens": -3}, ["calls.0.output_tokens"]),
        ({"samples": 0}, ["calls.0.samples"]),
        ({"kind": "chat"}, ["unknown kind 'chat'"]),
        ({"tool_seconds": -0.5}, ["calls.0.tool_seconds"]),
        ({"parents": [0]}, ["a parent has to be an earlier call"]),
        ({"parents": [7]}, ["a parent has to be an earlier call"]),
        ({"id": 3}, ["has id 3"]),
        ({"promt_tokens": 3}, ["calls.0.promt_tokens", "remove the field"]),
    ],
)
def test_what_is_wrong_is_named(call: dict[str, Any], words: list[str]) -> None:
    content = lines({"id": "a", "calls": [CALL]}, {"id": "t", "calls": [CALL | call]})
    with pytest.raises(InputError) as caught:
        read(content)
    assert all(word in str(caught.value) for word in ("t.jsonl: line 2", *words))


def test_ids_are_unique_and_zero_outputs_are_fine() -> None:
    with pytest.raises(InputError, match=r"trace 't'.*occurs twice"):
        read(lines(*[{"id": "t", "calls": [CALL]}] * 2))
    (workflow,) = imported(one(output_tokens=0))
    assert workflow.stages[0].output_tokens == 0


def test_unknown_models_and_sidecars_that_say_too_much(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'m'.*--roles FILE"):
        imported(one(), model=None)
    with pytest.raises(InputError, match="unknown model 'gpt'"):
        imported(one(), model="gpt")
    roles = tmp_path / "roles.yaml"
    for row in ("tool_seconds: 3", "model: Llama-3.1-8B, prompt_tokens: 5"):
        roles.write_text(f"types:\n  m: {{{row}}}\n")
        with pytest.raises(InputError, match=r"types\.m.*give the model alone"):
            imported(one(), model=None, roles=roles)


def test_a_context_beyond_every_device() -> None:
    workflows = imported(one(prompt_tokens=10**7))
    with pytest.raises(InputError, match="no device can host the stage"):
        Problem.build(load_cluster("mixed_12"), workflows)
