"""Uncertain workloads, whose choices follow from templates and maps."""

from __future__ import annotations

import pytest

from fate_gym.catalog.agentic import agentic_templates
from fate_gym.catalog.roles import Span
from fate_gym.problem import Edge, Stage, Workflow
from fate_gym.workloads import build_suite, load_cluster, load_suite
from fate_gym.workloads.agentic import build_template
from fate_gym.workloads.roles import whole
from fate_gym.workloads.uncertain import draw_maps, whole_weights

SUITES = ["uncertain", "uncertain_train", "uncertain_test",
          "uncertain_dag", "uncertain_dag_train", "uncertain_dag_test"]  # fmt: skip


@pytest.mark.parametrize("name", SUITES)
def test_suites_are_valid_and_uncertain(name: str) -> None:
    suite = load_suite(name)
    problems = build_suite(suite, load_cluster(suite.cluster), 1)
    assert any(w.choices or w.fan_outs for problem in problems for w in problem.workflows)
    for problem in problems:
        assert problem.options.uncertainty == 0.3
        assert problem.options.length_uncertainty == 0.5
        assert problem.options.failures is not None


def test_weights_are_those_of_the_span() -> None:
    span = Span(low=2, high=8, source="test")
    weights = whole_weights(span)
    assert sum(weights) == 1.0
    counts = [whole(span, (i + 0.5) / 10_000) for i in range(10_000)]
    assert weights == pytest.approx([counts.count(k) / 10_000 for k in range(1, 9)], abs=2e-4)


def test_a_template_with_branches_has_all_that_a_run_may_have() -> None:
    """Every certain run of LLMCompiler is one outcome of the uncertain one."""
    template = agentic_templates()["llm_compiler"]
    workflow = build_template(template, 0, branches=True)
    names = {stage.id for stage in workflow.stages}
    for run in range(20):
        certain = build_template(template, 0, run=run)
        kinds = [stage.id.rsplit("_", 1)[0] for stage in certain.stages]
        assert {f"{kind}_{i}" for kind in set(kinds) for i in range(kinds.count(kind))} <= names
    assert {o.after: len(o.replicas) for o in workflow.fan_outs} == {"plan_0": 8, "replan_0": 8}
    (choice,) = workflow.choices
    assert choice.options[0].stages == ("replan_0", "rejoin_0")
    assert choice.options[0].probability == template.chances["replan"]


def test_maps_take_what_depends_on_one_task_alone() -> None:
    """split -> 4 x (align -> sort) -> merge."""
    names = ["split", *(f"{t}{i}" for t in ("align", "sort") for i in range(4)), "merge"]
    stages = [Stage(id=name, label=name.rstrip("0123456789"), tool_seconds=1.0) for name in names]
    edges = [Edge(parent="split", child=f"align{i}") for i in range(4)]
    edges += [Edge(parent=f"align{i}", child=f"sort{i}") for i in range(4)]
    edges += [Edge(parent=f"sort{i}", child="merge") for i in range(4)]
    (fan_out,) = draw_maps(Workflow(id="w", stages=stages, edges=edges)).fan_outs
    assert fan_out.after == "split"
    assert fan_out.replicas == tuple((f"align{i}", f"sort{i}") for i in range(4))
    assert fan_out.weights == pytest.approx((0, 1 / 3, 1 / 3, 1 / 3))
