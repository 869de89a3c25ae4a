"""Reports: numbers recomputed by hand, gaps listed, bad directories refused."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fate_gym.errors import InputError
from fate_gym.lab.jobs.directory import RESULT, mark_failed
from fate_gym.lab.jobs.find import find_jobs
from fate_gym.lab.jobs.result import JobResult
from fate_gym.lab.jobs.run import run_job
from fate_gym.lab.report.axis import curves_over
from fate_gym.lab.report.compute import compute_report
from fate_gym.lab.report.figures.draw import FIGURES, draw_figures
from fate_gym.lab.report.origin import commands
from fate_gym.lab.report.write import make_report
from fate_gym.lab.sweep.command import SWEEP
from fate_gym.lab.sweep.labels import policy_labels, suite_labels
from fate_gym.lab.sweep.results import by_draw, is_boosted, read_sweep
from fate_gym.lab.tables import Estimate
from fate_gym.workloads import load_cluster
from tests.lab.conftest import Run, edit_result, job_config, job_directory, run_script

COLUMNS = (
    "policy,n,latency_ratio,latency_ratio_lo,latency_ratio_hi,"
    "latency_ratio_p95,latency_ratio_p95_lo,latency_ratio_p95_hi,gap_to_bound,win_rate,"
    "vs_strongest_pct,vs_strongest_pct_lo,vs_strongest_pct_hi,p_value,"
    "decision_ms_p50,decision_ms_p99,headroom_strict,headroom_boosted"
)


@pytest.fixture
def grid(sweep: Run, tmp_path: Path) -> Path:
    """Copy the sweep, so that a test can change it."""
    return Path(shutil.copytree(sweep.root, tmp_path / "grid"))


@pytest.fixture(scope="session")
def rows(sweep: Run) -> pd.DataFrame:
    return pd.concat(pd.read_parquet(p) for p in sweep.root.glob("*/*/*/workflows.parquet"))


def test_a_stream_is_one_draw_and_a_graph_is_one() -> None:
    """Intervals of streams draw seeds; those of workflows alone draw graphs, whatever the seed."""
    rows = pd.DataFrame(
        {"instance": ["a", "a", "s", "s"], "seed": [0, 1, 0, 1], "workflows": [1, 1, 9, 9]}
    )
    assert by_draw(rows)["instance"].tolist() == ["a", "a", "s/s0", "s/s1"]


def test_the_script_writes_tables_and_figures(grid: Path, rows: pd.DataFrame) -> None:
    done = run_script("report.py", grid)
    assert done.returncode == 0, done.stderr
    assert "heft" in done.stdout
    lines = (grid / "summary.csv").read_text().splitlines()
    assert lines[0] == COLUMNS
    summary = pd.read_csv(grid / "summary.csv").set_index("policy")
    expected = rows.groupby("policy")["latency_ratio"]
    assert summary["latency_ratio"].to_dict() == pytest.approx(expected.mean().to_dict())
    assert summary["latency_ratio_p95"].to_dict() == pytest.approx(
        expected.quantile(0.95).to_dict()
    )
    assert summary["n"].to_dict() == {"heft": 4, "eft": 4, "round_robin": 4}
    assert summary["latency_ratio"].is_monotonic_increasing
    assert summary.loc["round_robin", "latency_ratio_hi"] == 1.0
    # No experiment asks for a map or an axis, there is no FATE to gain over the strongest baseline,
    # and no workflow is a turn of a session.
    drawn = [name for name in FIGURES if name not in ("map", "axis", "intensity", "session")]
    for name in drawn:
        assert (grid / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (grid / f"{name}.svg").read_text()
    tex = (grid / "summary.tex").read_text()
    assert tex.count(r" \\") == 4 and r"round\_robin & 4 &" in tex
    text = (grid / "report.md").read_text()
    assert "Real topology, modelled attributes" in text
    assert "policy=round_robin,heft,eft 'seed=range(2)'" in text
    assert "Without a result" not in text
    for name in drawn:
        assert f"({name}.png)" in text


def test_the_command_in_the_report_makes_the_same_cells(grid: Path, tmp_path: Path) -> None:
    make_report(grid)
    text = (grid / "report.md").read_text()
    command = next(line for line in text.splitlines() if "fate-gym evaluate" in line)
    done = run_script("evaluate.py", *shlex.split(command)[2:], f"paths.runs={tmp_path}")
    assert done.stdout.count("done before") == 6, done.stderr


def test_strongest_baseline_wins_and_differences(sweep: Run, rows: pd.DataFrame) -> None:
    report = compute_report(sweep.root)
    means = rows.groupby("policy")["latency_ratio"].mean()
    assert report.strongest == means.idxmin()
    pivot = rows.pivot_table(index=["problem", "seed"], columns="policy", values="latency_ratio")
    for row in report.summary:
        ours, theirs = pivot[row.policy], pivot[report.strongest]
        wins = ((ours < theirs) + 0.5 * np.isclose(ours, theirs, rtol=1e-9, atol=0)).mean()
        against_itself = row.policy == report.strongest
        assert row.win_rate == pytest.approx(np.nan if against_itself else wins, nan_ok=True)
        assert row.vs_strongest_pct.value == pytest.approx(100 * (ours.mean() / theirs.mean() - 1))
        assert np.isnan(row.p_value) == against_itself


def test_an_experiment_names_reference_axis_and_figures(grid: Path) -> None:
    kept = yaml.safe_load((grid / SWEEP).read_text())
    spec = {"reference": "heft", "axis": "seed", "figures": ["axis", "ecdf"], "title": "Mine"}
    (grid / SWEEP).write_text(yaml.safe_dump(kept | {"report": spec}))
    report = make_report(grid)
    assert set(report.effects) == {"eft", "round_robin"}
    means = report.sweep.rows.groupby(["policy", "seed"])["latency_ratio"].mean()
    percent = 100 * (means["eft", 1] / means["heft", 1] - 1)
    assert report.curves["eft"][1.0].value == pytest.approx(percent)
    assert set(report.curves["heft"].values()) == {Estimate(0.0, 0.0, 0.0)}
    assert "round_robin" not in report.curves
    assert curves_over(report.sweep, "seed")["eft"][1.0].value == pytest.approx(means["eft", 1])
    text = (grid / "report.md").read_text()
    assert text.startswith("# Mine\n") and "## Against heft" in text
    assert re.findall(r"\((\w+)\.png\)", text) == ["axis", "ecdf"]
    for field, value in {"axis": "nothing", "figures": ["ecfd"], "reference": "hef"}.items():
        (grid / SWEEP).write_text(yaml.safe_dump({"report": {field: value}}))
        with pytest.raises(InputError) as error:
            draw_figures(compute_report(grid))
        assert error.value.field == f"report.{field}"


def test_variants_over_an_option_are_one_line(tmp_path: Path) -> None:
    for shards in (1, 4):
        run_job(job_config(tmp_path, "eft", max_shards=shards))
    curves = curves_over(read_sweep(tmp_path / "default"), "policy.params.max_shards")
    assert {name: list(curve) for name, curve in curves.items()} == {"eft": [1.0, 4.0]}


def test_variants_over_an_option_are_compared_with_the_usual_one(tmp_path: Path) -> None:
    for shards in (1, 4):
        run_job(job_config(tmp_path, "eft", max_shards=shards))
    sweep = read_sweep(tmp_path / "default")
    (curve,) = curves_over(sweep, "policy.params.max_shards", "eft").values()
    means = sweep.rows.groupby("policy")["latency_ratio"].mean()
    assert curve[1.0] == Estimate(0.0, 0.0, 0.0)
    assert curve[4.0].value == pytest.approx(100 * (means["eft (max_shards=4)"] / means["eft"] - 1))


def test_baselines_can_come_from_another_sweep(grid: Path, tmp_path: Path) -> None:
    train = Path(shutil.copytree(grid, tmp_path / "train"))
    shutil.rmtree(train / "smoke" / "heft")
    assert compute_report(grid).strongest == "heft"
    chosen = compute_report(grid, baseline_from=train)
    assert chosen.strongest == "eft"
    assert f"--baseline-from {train}" in "\n".join(commands(chosen))
    shutil.rmtree(grid / "smoke" / "eft")
    with pytest.raises(InputError, match="eft is not in this sweep"):
        compute_report(grid, baseline_from=train)


def test_policies_that_see_estimates_are_boosted(sweep: Run) -> None:
    result = next(job.result for job in find_jobs(sweep.root) if job.result is not None)

    def boosted(policy: str, **params: object) -> bool:
        return is_boosted(result.model_copy(update={"policy": policy, "params": params}))

    assert [boosted(name) for name in ("heft", "hexagent", "learned", "of_a_user")] == [
        False, True, True, False
    ]  # fmt: skip
    assert boosted("heft", boosted=True)
    assert read_sweep(sweep.root).boosted == {"eft"}


def test_suites_side_by_side_headroom_and_counters(grid: Path, tmp_path: Path) -> None:
    for name, params in (("round_robin", {}), ("heft", {}), ("best_known", {"work": 2000})):
        config = job_config(tmp_path, name, **params)
        # The same workflows on other devices: another suite to the report.
        run_job(config.model_copy(update={"cluster": load_cluster("mixed_12")}))
    (suite,) = (tmp_path / "default").iterdir()
    for policy_directory in suite.iterdir():
        shutil.copytree(policy_directory, grid / suite.name / policy_directory.name,
                        dirs_exist_ok=True)  # fmt: skip
    for job in grid.glob("smoke/heft/*/result.json"):
        edit_result(job, counters={"plans": 3.0, "taken": 1.0})
    report = make_report(grid)
    text = (grid / "report.md").read_text()
    table = text.split("## By suite")[1].split("##")[0]
    rows = {
        line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:]
        for line in table.splitlines()
        if line.startswith("| ")
    }
    assert rows["policy"] == list(report.suites) == ["smoke@mixed_12", "smoke@mixed_8"]
    strongest = next(row for row in report.suites["smoke@mixed_8"] if row.policy == "heft")
    assert rows["heft"][1].startswith(f"**{strongest.latency_ratio.value:.3f}")
    assert rows["heft"][0].startswith("**")
    assert rows["eft"][0] == "–"
    assert not rows["eft"][1].startswith("**")
    best = next(row for row in report.summary if row.policy == "best_known")
    assert f"| best_known | {best.headroom_strict:.0%} |" in text.split("## Headroom captured")[1]
    assert "| heft | plans 9, taken 3 |" in text.split("## Counters")[1]


def test_missing_and_failed_cells_are_listed(grid: Path) -> None:
    shutil.rmtree(job_directory(grid, "eft", 1))
    failed = job_directory(grid, "heft", 1)
    (failed / RESULT).unlink()
    mark_failed(failed, "Traceback\nValueError: boom")
    killed = job_directory(grid, "round_robin", 0)
    (killed / RESULT).unlink()
    report = make_report(grid)
    gaps = [
        "failed: smoke/heft/s1: ValueError: boom",
        "missing: smoke/eft/s1",
        "missing: smoke/round_robin/s0",
    ]
    assert report.sweep.gaps() == gaps
    text = (grid / "report.md").read_text()
    for line in gaps:
        assert f"- {line}" in text
    assert {row.policy: row.n for row in report.summary} == {
        "heft": 2,
        "eft": 2,
        "round_robin": 2,
    }


def test_a_sweep_without_a_finished_job_is_refused(grid: Path) -> None:
    for path in grid.glob("*/*/*/result.json"):
        path.unlink()
    with pytest.raises(InputError, match="none of the 6 jobs"):
        make_report(grid)
    assert not (grid / "summary.csv").exists()


def test_jobs_on_different_problems_are_not_compared(grid: Path) -> None:
    path = job_directory(grid, "heft", 1) / RESULT
    edit_result(path, workload_hash="0" * 12)
    with pytest.raises(InputError, match="ran different problems"):
        make_report(grid)


def test_variants_get_labels_of_their_own(sweep: Run) -> None:
    done = [job.result for job in find_jobs(sweep.root) if job.result is not None]
    heft = next(result for result in done if result.policy == "heft")

    def variant(**changes: object) -> JobResult:
        return heft.model_copy(update=changes)

    boosted = variant(params=heft.params | {"boosted": True})
    sharded = variant(params=heft.params | {"max_shards": 4})
    # The one with the parameters of conf/policy has the plain name.
    assert policy_labels([heft, boosted]) == ["heft", "heft (boosted=True)"]
    assert policy_labels([sharded, boosted]) == [
        "heft (boosted=False, max_shards=4)",
        "heft (boosted=True, max_shards=1)",
    ]
    assert policy_labels([heft, heft]) == ["heft", "heft"]
    assert suite_labels([heft, variant(cluster="other", suite_hash="ffff0000")]) == [
        "smoke@mixed_8",
        "smoke@other",
    ]
    batching = variant(execution="batching", suite_hash="ffff0000")
    assert suite_labels([heft, batching]) == ["smoke", "smoke (batching)"]
    # Alone, too: reports of several directories are read side by side.
    assert suite_labels([batching]) == ["smoke (batching)"]
    changed = suite_labels([heft, variant(suite_hash="ffff0000")])
    assert changed == [f"smoke#{heft.suite_hash[:4]}", "smoke#ffff"]
