"""Every suite of ``conf/suite`` composes to the job that its file describes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose

from fate_gym.lab.jobs.config import parse_config
from fate_gym.lab.sweep.compose import hydra_ready, plain
from fate_gym.workloads import load_suite

CONF = Path(__file__).parents[3] / "conf" / "suite"
SUITES = sorted(path.stem for path in CONF.glob("*.yaml"))


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_composes(name: str) -> None:
    with hydra_ready():
        config = parse_config(plain(compose("config", [f"suite={name}", "policy=round_robin"])))
    assert config.suite == load_suite(name)
    assert config.cluster.id == config.suite.cluster


def test_counts_and_loads_can_be_overridden() -> None:
    changes = ["suite.counts.tau_bench=7", "suite.arrivals.load=0.2", "suite.turns=1"]
    with hydra_ready():
        composed = compose("config", ["suite=agents", "policy=round_robin", *changes])
    suite = parse_config(plain(composed)).suite.model_dump()
    assert (suite["counts"]["tau_bench"], suite["arrivals"]["load"], suite["turns"]) == (7, 0.2, 1)
