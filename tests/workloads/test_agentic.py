"""Agentic templates: the published shapes, shared prefixes, the split."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fate_gym.catalog.agentic import Template, agentic_templates
from fate_gym.errors import InputError
from fate_gym.problem import Problem, Workflow
from fate_gym.workloads import build_template, load_cluster

TEMPLATES = agentic_templates()


def steps(workflow: Workflow) -> Counter[str]:
    return Counter(stage.label.split("/")[0] for stage in workflow.stages)


def model_calls(name: str, **options: Any) -> int:
    workflow = build_template(TEMPLATES[name], 0, **options)
    return sum(stage.model is not None for stage in workflow.stages)


@given(st.sampled_from(list(TEMPLATES)), st.integers(0, 2**40), st.integers(0, 5))
def test_every_run_is_a_valid_problem(name: str, seed: int, run: int) -> None:
    workflow = build_template(TEMPLATES[name], seed, run=run, tenant="t")
    Problem.build(load_cluster("mixed_8"), [workflow])
    assert workflow.id == f"{name}/t/{run}/s{seed}"
    assert workflow.family == TEMPLATES[name].family


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("halo_chain_2", 2),
        ("halo_chain_3", 3),
        ("halo_chain_3_mixed", 3),
        ("halo_chain_4", 4),
        ("halo_voting_3", 4),
        ("halo_voting_4", 5),
        ("helium_map_reduce_14", 15),
        ("helium_map_reduce_7", 8),
        ("helium_debate", 6),
        ("helium_reflection", 4),
        ("helium_chains", 43),
        ("helium_trading", 88),
        ("rag", 4),
        ("tree_of_thoughts", 30),
        ("self_consistency", 2),
    ],
)
def test_published_numbers_of_calls(name: str, calls: int) -> None:
    assert model_calls(name) == calls


def test_a_tree_branches_by_two() -> None:
    workflow = build_template(TEMPLATES["tree_of_thoughts"], 0)
    children = Counter(edge.parent for edge in workflow.edges)
    assert set(children.values()) == {2}
    assert all(len(edges) <= 1 for edges in workflow.parents.values())


def test_a_debate_is_all_to_all() -> None:
    workflow = build_template(TEMPLATES["helium_debate"], 0)
    assert len(workflow.edges) == 9


def test_groups_are_dealt_evenly() -> None:
    workflow = build_template(TEMPLATES["helium_trading"], 0)
    into = defaultdict(list)
    for stage in workflow.stages:
        into[stage.label.split("/")[0]].append(len(workflow.parents[stage.id]))
    assert into["analyse"] == [11] * 4
    assert into["risk"] == [1] * 24


def test_counts_and_replans_vary_from_run_to_run() -> None:
    runs = [steps(build_template(TEMPLATES["llm_compiler"], 0, run=run)) for run in range(200)]
    assert {run["act"] for run in runs} == set(range(2, 9))
    assert 0.2 < sum("replan" in run for run in runs) / len(runs) < 0.4
    videos = [steps(build_template(TEMPLATES["video_qa"], 0, run=run)) for run in range(20)]
    assert all(run["frames"] == run["speech"] == run["look"] for run in videos)
    assert len({run["look"] for run in videos}) > 1


def test_runs_of_a_tenant_share_prefixes_and_tenants_do_not() -> None:
    def groups(run: int, tenant: str) -> set[tuple[str | None, int, str | None]]:
        workflow = build_template(TEMPLATES["helium_trading"], 0, run=run, tenant=tenant)
        return {(s.prefix_group, s.prefix_tokens, s.model) for s in workflow.stages}

    assert groups(0, "a") == groups(1, "a")
    assert not {g for g, *_ in groups(0, "a")} & {g for g, *_ in groups(0, "b")}
    # One group for each role, not for each step.
    assert len(groups(0, "a")) == len(TEMPLATES["helium_trading"].roles)


def test_lengths_differ_between_runs() -> None:
    first, second = (build_template(TEMPLATES["helium_chains"], 0, run=run) for run in range(2))
    assert [s.prompt_tokens for s in first.stages] != [s.prompt_tokens for s in second.stages]


def test_batches_multiply_the_queries_of_every_call() -> None:
    workflow = build_template(TEMPLATES["self_consistency"], 1)
    sample, vote = workflow.stages
    assert sample.queries == 5 * vote.queries
    assert 4 <= vote.queries <= 16
    # All five samples of a request go into its vote.
    assert workflow.edges[0].inherited_tokens == 5 * sample.output_tokens


def test_the_split_is_by_halves_and_families() -> None:
    split = defaultdict(set)
    for template in TEMPLATES.values():
        split[template.split].add(template.family)
    assert len(split["train"]) == len(split["test"]) == 7
    assert not split["train"] & split["test"]


def test_the_docs_list_the_templates() -> None:
    text = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")
    for template in TEMPLATES.values():
        assert f"| {template.family} | {template.split} |" in text


def test_negative_seed() -> None:
    with pytest.raises(InputError, match="negative"):
        build_template(TEMPLATES["rag"], -1)


@pytest.mark.parametrize(
    "change",
    [
        {"role": "nobody"},
        {"role": "map", "after": {"later": "all"}},
        {"role": "map", "when": "never"},
        {"role": "map", "count": "later"},
    ],
)
def test_inconsistent_templates(change: dict[str, Any]) -> None:
    values = TEMPLATES["helium_map_reduce_7"].model_dump()
    with pytest.raises(ValidationError):
        Template.model_validate(values | {"steps": {"map": change}})


def test_same_in_every_process() -> None:
    code = (
        "from fate_gym.workloads import load_suite, load_cluster, build_suite;"
        "p = build_suite(load_suite('agentic_alone'), load_cluster('mixed_8'), 5);"
        "import hashlib; print(hashlib.sha256(repr(p).encode()).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1
