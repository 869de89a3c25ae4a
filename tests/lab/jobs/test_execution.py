"""Jobs that differ only in the devices' execution are never confused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from fate_gym.errors import InputError
from fate_gym.lab.jobs.config import EvaluateConfig, parse_config
from fate_gym.lab.jobs.result import JobResult, read_result
from fate_gym.lab.jobs.run import run_job
from fate_gym.lab.report.compute import compute_report
from fate_gym.lab.report.markdown import markdown
from fate_gym.lab.report.page.data import page_data
from fate_gym.problem import dump_problem
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies.registry import policy_specs
from tests.lab.conftest import run_script


def config_of(runs: Path, suite: str | dict[str, Any] = "smoke", **cluster: Any) -> EvaluateConfig:
    values = load_suite(suite).model_dump(mode="json") if isinstance(suite, str) else suite
    return parse_config(
        {
            "suite": values,
            "cluster": {"execution": None, "prefill": None} | cluster,
            "policy": policy_specs()["heft"].model_dump(),
            "tracking": {"mode": "none"},
            "paths": {"runs": str(runs)},
        }
    )


def test_options_that_are_not_given_leave_the_suites_own_cluster(tmp_path: Path) -> None:
    assert config_of(tmp_path).cluster == load_cluster("mixed_8")
    changed = config_of(tmp_path, execution="batching", memory_utilisation=0.5).cluster
    assert changed == load_cluster("mixed_8", execution="batching", memory_utilisation=0.5)


def test_a_chosen_cluster_is_changed_likewise(tmp_path: Path) -> None:
    data = {"name": "two", "nodes": [{"gpus": {"H100-SXM": 4}, "tensor_parallel": 2}]}
    cluster = config_of(tmp_path, **data, execution="batching", token_budget=512).cluster
    assert [device.tensor_parallel for device in cluster.devices] == [2, 2]
    assert cluster.serving == (True, False, 512, 256)
    with pytest.raises(InputError, match="field 'nodes'"):
        config_of(tmp_path, name="two", execution="batching")


@pytest.mark.parametrize(
    "changes",
    [{"prefill": "first"}, {"token_budget": 512}, {"max_sequences": 9}, {"execution": "exclusive"}],
)
def test_every_option_makes_another_job(changes: dict[str, Any], tmp_path: Path) -> None:
    plain = config_of(tmp_path, execution="batching")
    other = config_of(tmp_path, **({"execution": "batching"} | changes))
    assert plain.run_directory != other.run_directory
    assert plain.suite_hash != other.suite_hash


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, JobResult]]:
    """Run the same job on both kinds of devices, in one sweep."""
    runs = tmp_path_factory.mktemp("both")
    done = {}
    for execution in ("exclusive", "batching"):
        outcome = run_job(config_of(runs, execution=execution))
        assert not outcome.skipped
        done[execution] = (outcome.directory, outcome.result)
    return done


def test_records_say_how_devices_execute(both: dict[str, tuple[Path, JobResult]]) -> None:
    for execution, (directory, result) in both.items():
        assert result.execution == execution
        assert json.loads((directory / "result.json").read_text())["execution"] == execution
        assert set(pd.read_parquet(directory / "workflows.parquet")["execution"]) == {execution}
        kept = yaml.safe_load((directory / "config.yaml").read_text())
        assert kept["made_with"]["execution"] == execution
    (_, exclusive), (_, batching) = both.values()
    assert exclusive.title == "smoke/heft/s0"
    assert batching.title == "smoke/heft/s0 (batching)"
    assert exclusive.run_id != batching.run_id
    assert exclusive.workload_hash != batching.workload_hash


def test_reports_keep_them_apart(both: dict[str, tuple[Path, JobResult]]) -> None:
    directory, _ = both["exclusive"]
    report = compute_report(directory.parents[2])
    assert list(report.suites) == ["smoke", "smoke (batching)"]
    assert [summary.n for rows in report.suites.values() for summary in rows] == [2, 2]
    text = markdown(report, ())
    assert "exclusive and batching devices; planners minimise mean slowdown." in text
    assert "All suites: exclusive and batching devices together" in text
    runs = {run["suite"] for run in page_data(report)["runs"]}
    assert runs == {"smoke", "smoke (batching)"}


def test_a_result_from_before_is_of_exclusive_devices(
    both: dict[str, tuple[Path, JobResult]], tmp_path: Path
) -> None:
    directory, result = both["exclusive"]
    data = json.loads((directory / "result.json").read_text())
    del data["execution"], data["checksum"]
    (tmp_path / "result.json").write_text(json.dumps(data))
    assert read_result(tmp_path) == result.model_copy(update={"checksum": ""})


def test_problem_files_are_played_on_both(tmp_path: Path) -> None:
    problem = build_suite(load_suite("smoke"), load_cluster("mixed_4"), 0)[0]
    file = tmp_path / "p.json"
    dump_problem(problem, file)
    suite = load_suite("files").model_dump(mode="json") | {"files": [str(file)]}
    outcomes = [
        run_job(config_of(tmp_path, suite, execution=execution)).result
        for execution in ("exclusive", "batching")
    ]
    assert [result.execution for result in outcomes] == ["exclusive", "batching"]
    assert {result.cluster for result in outcomes} == {"mixed_4"}


@pytest.mark.parametrize("chosen", [[], ["cluster=mixed_4"]])
def test_a_sweep_over_both(chosen: list[str], tmp_path: Path) -> None:
    done = run_script(
        "evaluate.py", "-m", "suite=smoke", "policy=round_robin", "tracking=none",
        "cluster.execution=exclusive,batching", *chosen, f"paths.runs={tmp_path}",
        "--dry-run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("new")]
    assert ["(batching)" in line for line in lines] == [False, True]
    assert len({line.split()[-1] for line in lines}) == 2
