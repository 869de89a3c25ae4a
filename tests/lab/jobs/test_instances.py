"""What jobs of a sweep share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fate_gym.lab.jobs.instances import Instance, job_instances
from fate_gym.lab.jobs.measure import measure
from fate_gym.metrics.bounds import problem_bounds
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies import make_policy
from tests.lab.conftest import ROOT, job_config


def test_jobs_that_differ_in_their_policy_share_their_instances(tmp_path: Path) -> None:
    first = job_instances(job_config(tmp_path, "heft"))
    assert job_instances(job_config(tmp_path, "eft")) is first
    other = job_instances(job_config(tmp_path, "heft", seed=1))
    assert other[0].problem.id != first[0].problem.id
    again = job_instances(job_config(tmp_path, "heft"))  # only the last job's are kept
    assert again is not first
    assert [one.problem for one in again] == [one.problem for one in first]


def test_a_file_that_changes_between_jobs_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    text = (ROOT / "docs" / "examples" / "agent.json").read_text(encoding="utf-8")
    suite = load_suite("files").model_dump() | {"files": [str(path)]}
    found = []
    for name in ("research-agent", "renamed"):
        path.write_text(text.replace('"research-agent"', f'"{name}"'), encoding="utf-8")
        (instance,) = job_instances(job_config(tmp_path, suite=suite))
        found.append(instance.problem.id)
    assert found == ["research-agent", "renamed"]


def test_a_shared_instance_gives_the_rows_of_a_new_one() -> None:
    """Also where stages vanish, on which the lower bounds depend."""
    spec = load_suite("uncertain")
    problems = build_suite(spec, load_cluster(spec.cluster), 0)
    exact = {"uncertainty": 0.0, "length_uncertainty": 0.0}
    vanished = 0
    for problem in problems[::3]:
        options = problem.options.model_copy(update=exact)
        shared = Instance(problem.model_copy(update={"options": options}), 2)
        measure(shared, make_policy("heft"))
        ours = measure(shared, make_policy("eft"))
        new = measure(Instance(shared.problem, 2), make_policy("eft"))
        vanished += int(ours.trace.stage_vanished.sum())
        for row, other in zip(ours.rows, new.rows, strict=True):
            timed = {name for name in row if "decision" in name or "planning" in name}
            assert row.keys() == other.keys()
            for name in row.keys() - timed:
                np.testing.assert_equal(row[name], other[name])
        bounds = problem_bounds(shared.compiled, ours.trace.stage_vanished)
        assert ours.rows[0]["lower_bound"] == max(bounds.makespan, bounds.latency[0])
    assert vanished > 0
