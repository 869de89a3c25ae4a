"""A job as a function: what is on disk if it is killed, fails, or runs again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fate_gym.errors import InputError
from fate_gym.lab.config import TrackingConfig
from fate_gym.lab.errors import JobFailedError
from fate_gym.lab.jobs import instances
from fate_gym.lab.jobs import measure as measuring
from fate_gym.lab.jobs.directory import FAILED, RESULT, WORKFLOWS
from fate_gym.lab.jobs.find import find_jobs
from fate_gym.lab.jobs.result import total_counters
from fate_gym.lab.jobs.run import MEANS, means, percentile, run_job
from fate_gym.lab.jobs.schedules import read_schedules, representatives
from fate_gym.lab.report.write import make_report
from fate_gym.lab.sweep.labels import policy_labels
from fate_gym.problem import Problem
from tests.lab.conftest import job_config


def _interrupt(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the second problem of a job raise."""
    real, calls = measuring.measure, iter(range(100))

    def measure(*arguments: object, **options: object) -> object:
        if next(calls) == 1:
            raise error
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(measuring, "measure", measure)


def test_a_killed_job_leaves_no_result_and_starts_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = job_config(tmp_path)
    with monkeypatch.context() as patch:
        _interrupt(patch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_job(config)
    assert list(config.run_directory.iterdir()) == []
    (job,) = find_jobs(config.sweep_directory)
    assert job.state == "unfinished"
    outcome = run_job(config)
    assert not outcome.skipped
    assert (config.run_directory / RESULT).exists()
    assert run_job(config).skipped


def test_a_failed_job_leaves_the_reason_until_it_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = job_config(tmp_path)
    with monkeypatch.context() as patch:
        _interrupt(patch, ValueError("boom"))
        with pytest.raises(JobFailedError, match=r"smoke/heft/s0-.* failed: ValueError: boom"):
            run_job(config)
    marker = config.run_directory / FAILED
    assert marker.read_text().startswith("Traceback")
    (job,) = find_jobs(config.sweep_directory)
    assert (job.state, job.failure) == ("failed", "ValueError: boom")
    run_job(config)
    assert not marker.exists()


def test_a_result_of_another_version_is_an_input_error(tmp_path: Path) -> None:
    config = job_config(tmp_path)
    config.run_directory.mkdir(parents=True)
    (config.run_directory / RESULT).write_text('{"schema_version": 1}')
    with pytest.raises(InputError) as error:
        run_job(config)
    assert error.value.source == str(config.run_directory / RESULT)
    assert error.value.field == "schema_version"


def test_results_with_the_columns_of_before_are_refused(tmp_path: Path) -> None:
    outcome = run_job(job_config(tmp_path))
    path = outcome.directory / RESULT
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    (job,) = find_jobs(tmp_path / "default")
    assert job.state == "damaged"
    assert "'schema_version': not a result of this version" in str(job.damage)


def test_round_robin_against_itself_is_one(tmp_path: Path) -> None:
    outcome = run_job(job_config(tmp_path, policy="round_robin"))
    assert outcome.result.means["latency_ratio"] == 1.0
    assert outcome.result.means["makespan_ratio"] == 1.0
    kept = read_schedules(outcome.directory)
    assert [list(schedules) for schedules in kept.values()] == [["round_robin"]] * 2


def test_hash_changes_with_what_changes_results_and_nothing_else(tmp_path: Path) -> None:
    config = job_config(tmp_path)
    same = config.model_copy(update={"name": "other", "trace": True, "tracking": TrackingConfig()})
    assert same.hash == config.hash
    assert job_config(tmp_path / "elsewhere").hash == config.hash
    boosted = config.policy.model_copy(update={"params": {"boosted": True}})
    others = [
        job_config(tmp_path, seed=1),
        job_config(tmp_path, policy="eft"),
        config.model_copy(update={"policy": boosted}),
        config.model_copy(update={"suite": config.suite.model_copy(update={"max_stages": 9})}),
    ]
    hashes = {other.hash for other in [config, *others]}
    assert len(hashes) == len(others) + 1


def test_time_to_decide_can_be_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = job_config(tmp_path, "eft")
    charged = plain.model_copy(update={"charge_planning_time": True})
    assert charged.hash != plain.hash
    outcomes = [run_job(config) for config in (plain, charged)]
    latencies = [one.result.means["latency"] for one in outcomes]
    assert latencies[1] > latencies[0]
    assert policy_labels([one.result for one in outcomes]) == [
        "eft",
        "eft (charge_planning_time=True)",
    ]


def test_means_leave_out_what_is_not_finite() -> None:
    rows = [dict.fromkeys(("latency_ratio", "makespan"), 1.0) | _nothing() for _ in range(2)]
    rows[1]["makespan"] = 3.0
    assert means(rows) == {"latency_ratio": 1.0, "makespan": 2.0}


def _nothing() -> dict[str, float]:
    return {name: np.nan for name in MEANS if name not in ("latency_ratio", "makespan")}


def test_counters_are_summed_and_leave_out_what_is_not_finite() -> None:
    counters = [{"plans": 1.0, "bound": 2.5}, {"plans": 2.0, "bound": float("nan")}, {}]
    assert total_counters(counters) == {"plans": 3.0, "bound": 2.5}


def test_schedules_are_kept_of_small_medium_and_large_problems() -> None:
    def sized(*counts: int) -> list[Problem]:
        return [Problem.classical({f"s{i}": {"p": 1.0} for i in range(n)}, {}) for n in counts]

    assert representatives(sized(9, 1, 5, 3, 7)) == [2, 3, 4, 0]
    assert representatives(sized(4)) == [0]
    assert representatives(sized(1001, 2)) == [1]


def test_percentile_without_values() -> None:
    assert percentile([], 50) == 0.0
    assert percentile([1.0, 3.0], 50) == 2.0


def _problem(name: str, stage: dict[str, Any]) -> dict[str, Any]:
    devices = [{"id": "d0", "gpu": "T4"}, {"id": "d1", "gpu": "T4"}]
    workflow = {"id": name, "stages": [{"id": "s"} | stage]}
    return {"id": name, "cluster": {"id": "c", "devices": devices}, "workflows": [workflow]}


def test_a_workflow_that_takes_no_time_loses_nobodys_results(tmp_path: Path) -> None:
    """Round robin takes no time either: the ratio is 1. Where only it takes none it is huge."""
    stages: dict[str, dict[str, Any]] = {
        "tool": {"tool_seconds": 0},
        "fixed": {"seconds_on": {"d0": 0}},
        "either": {"seconds_on": {"d0": 0, "d1": 5}},
        "model": {"model": "bge-large", "prompt_tokens": 10},
    }
    files = []
    for name, stage in stages.items():
        files.append(str(tmp_path / f"{name}.json"))
        Path(files[-1]).write_text(json.dumps(_problem(name, stage)))
    suite = {"name": "own", "cluster": "mixed_4", "source": "files", "files": files}
    for policy in ("round_robin", "random"):
        config = job_config(tmp_path, policy, suite=suite)
        outcome = run_job(config)
        rows = pd.read_parquet(config.run_directory / WORKFLOWS).set_index("workflow")
        assert outcome.result.workflows == len(rows) == 4
        assert np.isfinite(rows[["latency_ratio", "makespan_ratio"]]).all(axis=None)
        sure = rows.loc[["tool", "fixed"], ["latency_ratio", "makespan_ratio", "gap_to_bound"]]
        assert (sure == 1.0).all(axis=None)
        slower = rows.loc["either", "latency"] > 0
        assert rows.loc["either", "latency_ratio"] == (5e9 if slower else 1.0)
    report = make_report(config.sweep_directory)
    assert (config.sweep_directory / "report.html").exists()
    assert len(report.sweep.rows) == 8


@pytest.mark.parametrize(
    ("policy", "params"),
    [
        ("fate", {"residency": math.nan}),
        ("fate", {"limit": math.inf}),
        ("fate", {"shares": [0.5, -math.inf]}),
        ("fate", {"shares": "0.5"}),
        ("fate", {"window": "8"}),
        ("fate", {"window": 10**400}),
        ("fate", {"window": True}),
        ("fate", {"cp_sat": 1}),
        ("fate", {"objective": "cost"}),
        ("fate", {"ignore": ["residence"]}),
        ("heft", {"max_shards": None}),
        ("heft", {"max_shards": 2.5}),
        ("heft", {"max_shard": 2}),
    ],
)
def test_a_parameter_that_a_policy_cannot_take_is_an_error_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, params: dict[str, Any]
) -> None:
    config = job_config(tmp_path, policy, **params)
    monkeypatch.setattr(instances, "job_instances", None)
    with pytest.raises(JobFailedError) as caught:
        run_job(config)
    fault = caught.value.__cause__
    assert isinstance(fault, InputError)
    assert fault.item == f"policy '{policy}'"
    assert fault.field == f"params.{next(iter(params))}"
    assert (config.run_directory / FAILED).read_text() == f"{fault}\n"


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "javascript:x", "", "x\n"])
def test_a_suite_cannot_name_a_directory_elsewhere(tmp_path: Path, name: str) -> None:
    suite = {"name": name, "cluster": "mixed_4", "source": "stress", "sizes": [3]}
    with pytest.raises(InputError, match=r"suite.*(cannot name a directory|at least 1 char)"):
        job_config(tmp_path, suite=suite)
