"""Sweeps are checked before they start, and reports know the plan."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from fate_gym.lab import evaluate
from fate_gym.lab.sweep.check import checked
from fate_gym.lab.sweep.command import SWEEP
from fate_gym.lab.sweep.compose import compose_sweep, hydra_ready
from fate_gym.lab.sweep.plan import Plan, plan_sweep
from fate_gym.lab.sweep.results import read_sweep
from tests.lab.conftest import Run


def plan_of(*options: str) -> tuple[Plan, int]:
    """Return the checked plan, and the number of configurations composed for it."""
    seen = []

    def check(config, extra):  # type: ignore[no-untyped-def]
        seen.append(config)
        return evaluate.cell_of(config, extra)

    with hydra_ready():
        config = compose_sweep("config", options, [])
        return checked(plan_sweep(config), config, [], check), len(seen)


def test_each_value_is_checked_once() -> None:
    plan, composed = plan_of("experiment=headline")
    assert plan.total == 230
    assert composed == 1, "policies of the package, without changes, are known to be good"
    assert plan.cells["real_dag_test/kvflow/s9"] == 1
    assert len(plan.cells) == 230
    plan, composed = plan_of(
        "suite=smoke", "policy=fate", "policy.params.horizon=0,1,2", "seed=range(5)"
    )
    assert composed == 3
    assert plan.cells == {f"smoke/fate/s{seed}": 3 for seed in range(5)}


def test_cells_have_the_names_of_their_directories() -> None:
    plan, _ = plan_of("suite=smoke,quick", "policy=heft", "policy.name=mine", "seed=3")
    assert plan.cells == {"smoke/mine/s3": 1, "quick/mine/s3": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("policy=fate policy.params.horizon=1,abc", "policy 'fate': field 'params.horizon': Input"),
        ("policy=heft,eft cluster.execution=exclusive,bached", "unknown execution 'bached'"),
        ("policy=heft seed=0,-1", "greater than or equal to 0"),
    ],
)
def test_a_bad_value_stops_a_sweep_before_it_starts(
    options: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", "suite=smoke", f"paths.runs={tmp_path / 'runs'}", *options.split()]
    code = evaluate.main(words)
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.rglob("s*-*")), "no job has begun"


def test_jobs_that_never_began_are_missing_in_the_report(sweep: Run, tmp_path: Path) -> None:
    root = Path(shutil.copytree(sweep.root, tmp_path / "grid"))
    # As after Ctrl-C: of one policy nothing is there at all.
    shutil.rmtree(root / "smoke" / "eft")
    assert read_sweep(root).gaps() == ["missing: smoke/eft/s0", "missing: smoke/eft/s1"]
    kept = yaml.safe_load((root / SWEEP).read_text())
    kept["jobs"]["smoke/heft/s0"] = 3
    (root / SWEEP).write_text(yaml.safe_dump(kept))
    assert "missing: smoke/heft/s0 (2 jobs)" in read_sweep(root).gaps()
    (root / SWEEP).write_text("jobs: {a: b, c: -1, 3: true}")
    assert read_sweep(root).gaps() == []
