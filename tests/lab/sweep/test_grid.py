"""Jobs of a grid that is run with several settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hydra import initialize_config_module
from omegaconf import DictConfig

from fate_gym.errors import InputError
from fate_gym.lab.config import MapConfig, ReportConfig
from fate_gym.lab.jobs.result import JobResult
from fate_gym.lab.report.regimes import place_of
from fate_gym.lab.sweep.compose import compose_sweep, plain
from fate_gym.lab.sweep.grid import grid_jobs, parse_options
from fate_gym.lab.sweep.plan import Plan, job_configs, plan_sweep


@pytest.fixture
def hydra() -> Iterator[None]:
    with initialize_config_module("conf", version_base="1.3"):
        compose_sweep("config", [], [])
        yield


@pytest.mark.usefixtures("hydra")
def test_the_grid_is_played_with_every_setting() -> None:
    given = parse_options(["policy=heft,eft", "seed=3"])
    plain_jobs = [["policy=heft", "seed=3"], ["policy=eft", "seed=3"]]
    assert grid_jobs(given, None) == plain_jobs
    settings = {"base": {}, "slow": {"cluster.load_gb_s": 3.0, "cluster.load_init_s": None}}
    slow = ["cluster.load_gb_s=3.0", "cluster.load_init_s=null"]
    assert grid_jobs(given, settings) == [*plain_jobs, *([*slow, *job] for job in plain_jobs)]


@pytest.mark.usefixtures("hydra")
def test_what_is_given_comes_before_a_setting_and_nothing_runs_twice() -> None:
    given = parse_options(["policy=heft", "suite=smoke"])
    settings = {"base": {}, "stream": {"suite": "real_dag_stream_test"}}
    assert [sorted(job) for job in grid_jobs(given, settings)] == [
        ["policy=heft", "suite=smoke"],
    ]


@pytest.mark.parametrize("settings", [["slow"], {"slow": "cluster.load_gb_s=3.0"}])
@pytest.mark.usefixtures("hydra")
def test_settings_that_are_no_options_are_refused(settings: Any) -> None:
    with pytest.raises(InputError, match="not options by name") as error:
        grid_jobs(parse_options(["seed=0"]), settings)
    assert error.value.field == "hydra.sweeper.settings"


def _plan(name: str) -> tuple[Plan, MapConfig, DictConfig]:
    """Return the plan of an experiment, its map, and its configuration."""
    with initialize_config_module("conf", version_base="1.3"):
        config = compose_sweep("config", [f"experiment={name}", "policy=heft", "seed=0"], [])
        plan = plan_sweep(config)
    spec = ReportConfig.model_validate(plan.report).map
    assert spec is not None
    return plan, spec, config


@pytest.mark.parametrize("name", ["regimes", "regimes_ablation"])
def test_every_job_of_a_map_is_in_one_cell_and_every_cell_has_one(name: str) -> None:
    plan, spec, _ = _plan(name)
    results = [
        SimpleNamespace(cluster=text.removeprefix("cluster="), overrides=job)
        for job in plan.jobs or []
        for text in job
        if text.startswith("cluster=")
    ]
    cells = Counter(place_of(cast(JobResult, result), spec) for result in results)
    assert cells == Counter((row, head) for row in spec.rows for head in spec.columns.values())


def test_clusters_of_the_map_differ_in_devices_only() -> None:
    plan, spec, config = _plan("regimes")
    settings = ("cluster.", "suite", "+suite")
    base = [job for job in plan.jobs or [] if not any(text.startswith(settings) for text in job)]
    with initialize_config_module("conf", version_base="1.3"):
        compose_sweep("config", ["experiment=regimes"], [])
        clusters = [plain(job)["cluster"] for job in job_configs(config, replace(plan, jobs=base))]
    assert [cluster.pop("name") for cluster in clusters] == list(spec.columns)
    nodes = [str(cluster.pop("nodes")) for cluster in clusters]
    assert len(set(nodes)) == 4
    assert all(cluster == clusters[0] for cluster in clusters)
