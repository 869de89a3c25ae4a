"""The mapping from task types to roles: determinism, bounds and plausibility."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym import catalog
from fate_gym.catalog.limits import MOST_SEED
from fate_gym.catalog.roles import Lengths, Role, Tool, role_rules, roles
from fate_gym.errors import InputError
from fate_gym.problem import Problem, Workflow
from fate_gym.workloads import assign_roles, load_cluster, topologies, topology
from fate_gym.workloads.roles import _sample, draw_uses, positions
from fate_gym.workloads.topology import Topology

SMALL = [entry for entry in topologies() if len(entry) <= 260 and entry.duplicate_of is None]
CLUSTERS = ("mixed_8", "mixed_12", "mixed_32", "homogeneous_8", "edge_cloud", "scarce_large")

workflows = st.builds(assign_roles, st.sampled_from(SMALL), st.integers(0, 2**40))


def role_of(label: str) -> str:
    return label.split("/")[1]


def inherited_by(workflow: Workflow) -> dict[str, int]:
    return {
        stage: sum(edge.inherited_tokens for edge in edges)
        for stage, edges in workflow.parents.items()
    }


@given(workflows)
def test_every_stage_fits_its_role(workflow: Workflow) -> None:
    rules = role_rules()
    inherited = inherited_by(workflow)
    for stage in workflow.stages:
        if stage.kind == "tool":
            continue
        role = roles()[role_of(stage.label)]
        assert stage.model in role.models
        assert 1 <= stage.queries <= role.queries.high
        assert stage.prompt_tokens <= role.prompt.max
        assert stage.output_tokens <= (role.output.max if role.output else 0)
        assert (stage.prefix_group is not None) == (role.prefix is not None)
        if role.prefix:
            assert role.prefix.low <= stage.prefix_tokens <= role.prefix.high
        context = inherited[stage.id]
        assert context <= (rules.inherited_tokens if role.inherits else 0)
        total = stage.prefix_tokens + stage.prompt_tokens + context + stage.output_tokens
        assert total <= rules.context_tokens


@given(workflows)
def test_a_type_shares_role_model_queries_and_prefix(workflow: Workflow) -> None:
    shared = defaultdict(set)
    for stage in workflow.stages:
        key = stage.label.split("/")[0]
        shared[key].add(
            (stage.label, stage.model, stage.queries, stage.prefix_group, stage.prefix_tokens)
        )
    assert all(len(values) == 1 for values in shared.values())


@given(st.sampled_from(SMALL), st.integers(0, 2**40), st.integers(1, 9))
def test_models_of_a_workflow_can_be_few(entry: Topology, seed: int, most: int) -> None:
    drawn, few = assign_roles(entry, seed), assign_roles(entry, seed, most_models=most)
    models = {stage.model for stage in drawn.stages if stage.model is not None}
    kept = {stage.model for stage in few.stages if stage.model is not None}
    assert len(kept) == min(most, len(models)) and kept <= models
    for before, after in zip(drawn.stages, few.stages, strict=True):
        size = catalog.model(before.model).params_b if before.model else 1.0
        ratio = {m: abs(math.log(catalog.model(m).params_b / size)) for m in kept}
        if before.model is not None and after.model is not None:
            assert ratio[after.model] == min(ratio.values()), "the nearest of those kept"
        assert (after.queries, after.label) == (before.queries, before.label)
    if any(role_of(stage.label) not in ("embed", "rerank", "transcribe", "search", "execute")
           for stage in drawn.stages):  # fmt: skip
        assert not kept <= {"bge-large", "Whisper-large-v3"}, "they cannot write"


@given(workflows)
def test_tools_are_few_and_wide_types_use_small_models(workflow: Workflow) -> None:
    rules = role_rules()
    counts: dict[str, int] = defaultdict(int)
    for stage in workflow.stages:
        counts[stage.label] += 1
    kinds = {stage.label: stage for stage in workflow.stages}
    tool_types = [stage for stage in kinds.values() if stage.kind == "tool"]
    assert len(tool_types) <= len(kinds) // rules.types_per_tool
    for label, stage in kinds.items():
        if stage.model is not None and counts[label] > rules.wide_tasks:
            assert catalog.model(stage.model).params_b <= rules.wide_params_b
            assert stage.queries * counts[label] <= max(rules.queries_per_type, counts[label])


@given(workflows)
def test_edges_carry_what_the_parent_makes(workflow: Workflow) -> None:
    stage_of = {stage.id: stage for stage in workflow.stages}
    children: dict[str, int] = defaultdict(int)
    for edge in workflow.edges:
        children[edge.parent] += 1
    for edge in workflow.edges:
        parent, child = stage_of[edge.parent], stage_of[edge.child]
        if parent.model is None:
            continue
        payload = roles()[role_of(parent.label)].edge
        text = role_rules().text_bytes_per_token * parent.output_tokens * parent.queries
        most = text
        if payload.kind == "kv" and parent.model == child.model:
            kv_bytes = catalog.model(parent.model).kv_bytes_per_token
            contexts = min(parent.queries, child.queries)
            most += edge.inherited_tokens * contexts * kv_bytes
            assert edge.bytes == most
        elif payload.mb is not None:
            most += payload.mb.max * 1e6 * parent.queries
            assert edge.bytes > text
        else:
            assert edge.bytes == text
        assert edge.bytes <= most + 1


def test_inherited_tokens_are_divided_over_many_parents() -> None:
    found = 0
    for seed in range(10):
        workflow = assign_roles(topology("cycles-chameleon-1l-1c-12p-001"), seed)
        for edges in workflow.parents.values():
            tokens = [edge.inherited_tokens for edge in edges]
            if len(edges) >= 20 and sum(tokens):
                found += 1
                assert sum(tokens) <= role_rules().inherited_tokens
                assert sum(token > 0 for token in tokens) > len(tokens) / 2
    assert found


def test_sessions_keep_their_model_sometimes() -> None:
    shares = []
    for seed in range(20):
        workflow = assign_roles(topology("epigenomics-chameleon-hep-1seq-100k-001"), seed)
        model = {stage.id: stage.model for stage in workflow.stages}
        kv = [
            edge
            for edge in workflow.edges
            if model[edge.parent] is not None
            and model[edge.parent] == model[edge.child]
            and edge.bytes > 1e7
        ]
        shares.append(bool(kv))
    assert 0.2 < np.mean(shares) < 1


def test_positions() -> None:
    entry = topology("blast-chameleon-small-001")
    assert dict(zip(entry.type_names, positions(entry), strict=True)) == {
        "split_fasta": "source",
        "blastall": "middle",
        "cat": "sink",
        "cat_blast": "sink",
    }
    entry = topology("srasearch-chameleon-50a-001")
    assert dict(zip(entry.type_names, positions(entry), strict=True))["bowtie2-build"] == "source"


def test_roles_of_weight_zero_are_never_drawn() -> None:
    for entry in SMALL[::4]:
        for seed in range(10):
            for use, place in zip(draw_uses(entry, seed), positions(entry), strict=True):
                assert use.part.positions[place] > 0


def test_a_family_and_seed_are_one_application() -> None:
    small, large = (
        assign_roles(topology(f"epigenomics-chameleon-hep-{size}-001"), 3)
        for size in ("4seq-50k", "7seq-50k")
    )
    assert {stage.prefix_group for stage in small.stages} == {
        stage.prefix_group for stage in large.stages
    }
    assert small.stages[0].prompt_tokens != large.stages[0].prompt_tokens


def test_tenants_share_no_prefix() -> None:
    entry = topology("epigenomics-chameleon-hep-1seq-100k-001")
    groups = [
        {stage.prefix_group for stage in assign_roles(entry, 0, tenant=tenant).stages} - {None}
        for tenant in ("a", "b")
    ]
    assert groups[0] and not groups[0] & groups[1]


def test_seeds_change_roles_not_edges() -> None:
    entry = topology("soykb-chameleon-10fastq-10ch-001")
    runs = [assign_roles(entry, seed) for seed in range(5)]
    assert len({tuple(stage.label for stage in run.stages) for run in runs}) == len(runs)
    assert len({tuple((edge.parent, edge.child) for edge in run.edges) for run in runs}) == 1


def test_arguments_are_passed_on() -> None:
    entry = topology("srasearch-chameleon-10a-001")
    workflow = assign_roles(entry, 1, arrival=2.5, workflow_id="w", tenant="t")
    assert (workflow.id, workflow.arrival, workflow.tenant, workflow.family) == (
        "w",
        2.5,
        "t",
        "srasearch",
    )
    with pytest.raises(InputError, match="negative"):
        assign_roles(entry, -1)
    with pytest.raises(InputError, match="is too large"):
        assign_roles(entry, 10**5000)
    assert assign_roles(entry, MOST_SEED).stages


def test_same_in_every_process() -> None:
    code = (
        "from fate_gym.workloads import assign_roles, topology;"
        "print(assign_roles(topology('soykb-chameleon-10fastq-10ch-001'), 5).model_dump_json())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]
    here = assign_roles(topology("soykb-chameleon-10fastq-10ch-001"), 5).model_dump_json()
    assert outputs == [here, here]


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_shipped_cluster_hosts_every_stage(name: str) -> None:
    cluster = load_cluster(name)
    for seed, entry in enumerate(SMALL[::5]):
        Problem.build(cluster, [assign_roles(entry, seed)])


def test_longest_context_of_every_role_fits_80_gb() -> None:
    limit = catalog.gpu("A100-80").memory_gb * 1e9 * catalog.execution().memory_utilisation
    for role in roles().values():
        for name in role.models:
            model = catalog.model(name)
            kv = role_rules().context_tokens * model.kv_bytes_per_token
            assert model.weight_bytes + kv <= limit


def test_samples_have_the_percentiles_that_the_table_states() -> None:
    normal = np.random.default_rng(0).standard_normal(20000)
    for role in roles().values():
        row = role.prompt
        wide = Lengths(p50=row.p50, p95=row.p95, min=0, max=1e9, source="")
        values = _sample([wide], np.zeros(len(normal), dtype=int), normal)
        assert math.isclose(np.percentile(values, 50), row.p50, rel_tol=0.05)
        assert math.isclose(np.percentile(values, 95), row.p95, rel_tol=0.08)


def test_uses_are_roles_or_tools() -> None:
    kinds = {
        type(use.part)
        for seed in range(10)
        for use in draw_uses(topology("soykb-chameleon-10fastq-10ch-001"), seed)
    }
    assert kinds == {Role, Tool}
