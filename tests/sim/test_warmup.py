"""After the warm-up nothing is left to compile."""

from __future__ import annotations

import sys
from typing import Any

from fate_gym.problem import Problem
from fate_gym.sim import Simulator, warmup
from policies import make_policy, policy_names, policy_specs


def signatures() -> dict[str, int]:
    """How many versions of each compiled function are loaded."""
    return {
        f"{name}.{attribute}": len(value.signatures)
        for name, module in list(sys.modules.items())
        if name.startswith(("fate_gym.", "policies."))
        for attribute, value in _dispatchers(module)
    }


def _dispatchers(module: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(module).items() if hasattr(value, "py_func")]


def test_the_warm_up_leaves_nothing_to_compile() -> None:
    warmup.play()
    compiled = signatures()
    assert sum(compiled.values()) > 10
    problems = [
        warmup.small_problem(),
        Problem.classical({s: {"p": 1.0, "q": 2.0} for s in "ab"}, {("a", "b"): 1.0}),
    ]
    for problem in problems:
        simulator = Simulator(problem, seed=1)
        for name in policy_names():
            simulator.run(make_policy(name))
    assert signatures() == compiled


def test_its_parts_hold_every_policy_once() -> None:
    families = [family for part in (warmup.SHARED, *warmup.PARTS) for family in part]
    assert len(set(families)) == len(families)
    assert {spec.family for spec in policy_specs().values()} <= set(families)


def test_the_small_problem_has_every_kind_of_stage_that_runs_in_waves_or_on_the_host() -> None:
    (workflow,) = warmup.small_problem().workflows
    assert {stage.kind for stage in workflow.stages} == {"model", "tool"}
    assert len({stage.model for stage in workflow.stages if stage.model}) > 1
    assert any(edge.inherited_tokens for edge in workflow.edges)
