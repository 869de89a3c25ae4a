"""Request traces: arrivals, tokens and models; bad lines are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from fate_gym.errors import InputError
from fate_gym.workloads import Content, import_workflows, read_workload
from fate_gym.workloads.formats import ImportedRequests, template

EXAMPLES = Path("docs/examples/imports")

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def read(text: str) -> ImportedRequests:
    found = read_workload(Content("t.csv", text.encode()))[1]
    assert isinstance(found, ImportedRequests)
    return found


def test_arrivals_count_from_the_first_request() -> None:
    found = read_workload(Content.of(EXAMPLES / "azure.csv"))[1]
    workflows = import_workflows(found, 0, model="Llama-3.1-8B")
    assert [workflow.arrival for workflow in workflows] == pytest.approx([0, 0.815, 2.375, 5.906])
    (stage,) = workflows[1].stages
    assert (stage.model, stage.prompt_tokens, stage.output_tokens) == ("Llama-3.1-8B", 2310, 41)
    assert [workflow.id for workflow in workflows] == ["azure/1", "azure/2", "azure/3", "azure/4"]


def test_dates_with_and_without_time_zone() -> None:
    text = AZURE + "2024-05-10 00:00:00.009930+00:00,5,6\n2024-05-10 00:00:01.009930,5,6\n"
    assert [request.arrival for request in read(text).requests] == [0, 1]


def test_models_by_sidecar() -> None:
    found = read_workload(Content.of(EXAMPLES / "burstgpt.csv"))[1]
    workflows = import_workflows(found, 0, roles=EXAMPLES / "burstgpt_roles.yaml")
    models = [workflow.stages[0].model for workflow in workflows]
    assert models == ["Llama-3.1-8B", "Llama-3.1-70B-AWQ", "Llama-3.1-8B", "Llama-3.1-8B"]
    assert [workflow.arrival for workflow in workflows] == [0, 2, 2, 16]


def test_models_of_the_catalogue_need_no_mapping() -> None:
    found = read(BURST + "5,Llama-3.1-8B,9,9,18,API log\n")
    assert import_workflows(found, 0)[0].stages[0].model == "Llama-3.1-8B"


def test_all_types_without_a_model_come_at_once() -> None:
    found = read_workload(Content.of(EXAMPLES / "burstgpt.csv"))[1]
    with pytest.raises(InputError, match="'ChatGPT', 'GPT-4'"):
        import_workflows(found, 0)
    with pytest.raises(InputError, match="unknown model"):
        import_workflows(found, 0, model="GPT-4")
    with pytest.raises(InputError, match="both"):
        import_workflows(found, 0, model="Llama-3.1-8B", roles="r.yaml")
    assert "GPT-4:" in template(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (AZURE, ["no requests"]),
        (AZURE + "2026-01-01 00:00:00,5,0\n", ["line 2", "GeneratedTokens", "failed"]),
        (AZURE + "2026-01-01 00:00:00,-5,1\n", ["line 2", "ContextTokens", "'-5'"]),
        (AZURE + "2026-01-01 00:00:00,5.5,1\n", ["line 2", "ContextTokens", "whole"]),
        (AZURE + "2026-01-01 00:00:00,5\n", ["line 2", "2 columns"]),
        (AZURE + "yesterday,5,5\n", ["line 2", "TIMESTAMP", "date"]),
        (AZURE + "2026-01-01 00:00:01,5,5\n\n2026-01-01 00:00:00,5,5\n", ["line 4", "backwards"]),
        (AZURE + '2026-01-01 00:00:00,"5,5\n', ["line 2", "CSV"]),
        (BURST + "5,,1,1,2,API log\n", ["line 2", "Model"]),
        (BURST + "5,GPT-4,1,0,1,API log\n", ["line 2", "Response tokens", "without failures"]),
        (BURST + "5,GPT-4,1,1,2,a\n4,GPT-4,1,1,2,a\n", ["line 3", "Timestamp", "backwards"]),
        (BURST.replace("Model,", "") + "5,1,1,2,a\n", ["line 1", "'Model' is missing"]),
        (BURST.replace("Log Type", "Model") + "5,a,1,1,2,a\n", ["'Model' occurs twice"]),
    ],
)
def test_errors_name_line_and_column(text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert all(word in str(caught.value) for word in ("t.csv", *words))


def test_sessions_of_burstgpt_where_the_column_is_there() -> None:
    header = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Log Type\n"
    rows = "5,7,1.0,m,9,9,Conversation log\n6,,1.0,m,9,9,API log\n7,7,1.0,m,9,9,Conversation log\n"
    workflows = import_workflows(read(header + rows), 0, model="Llama-3.1-8B")
    assert [workflow.session for workflow in workflows] == ["7", None, "7"]
    assert [workflow.follows for workflow in workflows] == [None] * 3
