"""Problems as JSON, clusters and suites as YAML: accepted, or refused with one clear error."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.problem import Problem, dump_problem, parse_problem
from fate_gym.sim import Simulator
from fate_gym.workloads import load_cluster, load_suite
from policies import make_policy
from tests.fuzz.check import taken
from tests.fuzz.mutants import mutated_bytes, mutated_value
from tests.fuzz.test_snapshots import EXAMPLES

CONF = Path("conf")
PROBLEMS = [
    {key: value for key, value in example.items() if key != "state"}
    for example in EXAMPLES.values()
]
CLUSTERS = sorted(path.stem for path in (CONF / "cluster").glob("*.yaml"))
SUITES = ["agentic", "agents", "files", "prefix_reuse", "requests", "smoke", "stress", "uncertain"]
MOST_PLAYED = 300
"""Maximum number of stages of problems that are also run."""


def play(problem: Problem | None) -> None:
    """Run a valid problem to its end."""
    if problem is not None and problem.stage_count <= MOST_PLAYED:
        Simulator(problem).run(make_policy("least_loaded"))


@given(st.sampled_from(PROBLEMS), st.randoms())
def test_mutants_of_problems_run_or_are_one_error(
    example: dict[str, Any], draw: random.Random
) -> None:
    text = json.dumps(mutated_value(draw, example))
    taken(lambda: play(parse_problem(text)))


@given(st.sampled_from(PROBLEMS), st.randoms())
def test_damaged_problems_run_or_are_one_error(
    example: dict[str, Any], draw: random.Random
) -> None:
    text = mutated_bytes(draw, json.dumps(example, indent=1).encode())
    taken(lambda: play(parse_problem(text)))


@given(st.sampled_from(PROBLEMS), st.randoms())
def test_what_is_taken_is_written_and_taken_again(
    example: dict[str, Any], draw: random.Random
) -> None:
    text = json.dumps(mutated_value(draw, example))
    problem = taken(lambda: parse_problem(text))
    assert problem is None or parse_problem(dump_problem(problem)) == problem


def mutated_yaml(draw: random.Random, group: str, name: str) -> bytes:
    """Return a configuration with mutated values or bytes."""
    content = (CONF / group / f"{name}.yaml").read_bytes()
    if draw.random() < 0.5:
        return mutated_bytes(draw, content)
    mutant = mutated_value(draw, yaml.safe_load(content))
    return yaml.safe_dump(mutant, allow_unicode=draw.random() < 0.5).encode(errors="surrogatepass")


@pytest.mark.parametrize(("group", "names"), [("cluster", CLUSTERS), ("suite", SUITES)])
@given(draw=st.randoms())
def test_mutants_of_yaml_are_taken_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, group: str, names: list[str], draw: random.Random
) -> None:
    folder = tmp_path_factory.getbasetemp() / "conf"
    (folder / group).mkdir(parents=True, exist_ok=True)
    name = draw.choice(names)
    (folder / group / f"{name}.yaml").write_bytes(mutated_yaml(draw, group, name))
    load = load_cluster if group == "cluster" else load_suite
    taken(lambda: load(name, [folder]))
