"""The map of regimes equals an independent computation from the results."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.patches import Rectangle

from fate_gym.lab.config import MapConfig
from fate_gym.lab.jobs.run import run_job
from fate_gym.lab.report.compute import compute_report
from fate_gym.lab.report.figures.heatmap import map_figure
from fate_gym.lab.report.markdown import markdown
from fate_gym.lab.report.page.render import render_page
from fate_gym.lab.report.regime_tables import (
    gain_tables,
    kinds_table,
    map_legend,
    published_table,
)
from fate_gym.lab.report.regimes import Gain, Panel, regime_panels
from fate_gym.lab.sweep.command import SWEEP
from fate_gym.lab.sweep.results import read_sweep
from fate_gym.lab.tables import Estimate
from fate_gym.workloads import load_cluster
from tests.lab.conftest import edit_result, job_config

CLUSTERS = {"homogeneous_8": "alike", "mixed_8": "mixed"}
ROWS = {"base": {}, "slow": {"cluster.load_gb_s": 1.0, "cluster.load_init_s": 9.0}}
POLICIES = ("round_robin", "heft", "least_loaded", "eft", "heft_boosted", "dls")
SPEC = MapConfig(columns=CLUSTERS, rows=ROWS, published={"strict": 8.9, "round_robin": 30.0})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a tiny sweep of two clusters and two settings, in which ``dls`` stands in for FATE."""
    runs = tmp_path_factory.mktemp("map")
    for options in ROWS.values():
        changes = {name.split(".")[1]: value for name, value in options.items()}
        for cluster in CLUSTERS:
            for policy in POLICIES:
                config = job_config(runs, policy).model_copy(
                    update={"cluster": load_cluster(cluster, (), **changes)}
                )
                given = [f"{name}={value}" for name, value in options.items()]
                outcome = run_job(config, overrides=[f"cluster={cluster}", *given])
                if policy == "dls":
                    edit_result(outcome.directory / "result.json", family="fate")
    root = runs / "default"
    report = {"map": SPEC.model_dump(), "figures": ["map"]}
    (root / SWEEP).write_text(yaml.safe_dump({"commands": [], "report": report}))
    return root


def _means(root: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Return by row and column the mean latency ratio of each policy."""
    means: dict[tuple[str, str], dict[str, float]] = {}
    for config in root.rglob("config.yaml"):
        cluster = yaml.safe_load(config.read_text())["cluster"]
        place = "slow" if cluster["load_gb_s"] == 1.0 else "base", CLUSTERS[cluster["id"]]
        table = pd.read_parquet(config.parent / "workflows.parquet")
        ratio = (table["latency"] / table["rr_latency"]).mean()
        means.setdefault(place, {})[table["policy"][0]] = ratio
    return means


def _own_numbers(root: Path) -> dict[tuple[str, str, str], tuple[float, str]]:
    """Return by row, column and kind of baseline the gain of dls in percent, and over which one."""
    kinds = {
        "strict": ("round_robin", "heft", "least_loaded"),
        "boosted": ("eft", "heft_boosted"),
        "round_robin": ("round_robin",),
    }
    found = {}
    for place, of_policy in _means(root).items():
        for kind, names in kinds.items():
            best = min(names, key=lambda name: of_policy[name])
            found[*place, kind] = (100 * (1 - of_policy["dls"] / of_policy[best]), best)
    return found


def test_cells_are_what_the_results_say(root: Path) -> None:
    panels = compute_report(root).panels
    expected = _own_numbers(root)
    found = {(*place, panel.over): gain for panel in panels for place, gain in panel.gains.items()}
    assert found.keys() == expected.keys() and len(found) == 12
    for key, (percent, against) in expected.items():
        assert found[key].percent.value == pytest.approx(percent)
        assert (found[key].against, found[key].n) == (against, 2)
    assert {panel.policy for panel in panels} == {"dls"}


def test_the_report_has_a_table_of_every_cell_and_a_figure(root: Path) -> None:
    report = compute_report(root)
    text = markdown(report, ["map"])
    assert "](map.png)" in text and "By suite" not in text
    rows = [line for line in text.split("## Regimes: dls")[1].split("##")[0].splitlines()
            if line.startswith(("| base", "| slow"))]  # fmt: skip
    for (row, column, kind), (percent, against) in _own_numbers(root).items():
        (line,) = (line for line in rows if line.startswith(f"| {row} | {column} | 2 |"))
        assert f"{percent:+.1f} %".replace("-0.0", "+0.0") in line.replace("-0.0", "+0.0")
        assert kind == "round_robin" or f"({against})" in line
    assert "## Published" in text
    assert 'id="h-map"' in render_page(report)
    figure = map_figure(report.panels, SPEC)
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    numbers = {f"{round(percent, 1) + 0.0:+.1f}" for percent, _ in _own_numbers(root).values()}
    assert {number.replace("-", "−") for number in numbers} <= texts


def test_means_may_be_over_problems(root: Path) -> None:
    sweep = read_sweep(root)
    rows = sweep.rows.assign(problem="stream", instance="stream", workflows=2)
    spec = SPEC.model_copy(update={"mean_over": "problems"})
    panels = {p.over: p for p in regime_panels(replace(sweep, rows=rows), spec, None)}
    slow = {str(job.directory) for job, result in sweep.finished if len(result.overrides) > 1}
    sums = rows[~rows["job"].isin(slow)].groupby(["cluster", "policy"])["latency"].sum()
    for cluster, column in CLUSTERS.items():
        gain = panels["round_robin"].gains["base", column]
        expected = 100 * (1 - sums[cluster, "dls"] / sums[cluster, "round_robin"])
        assert gain.n == 1 and gain.percent.value == pytest.approx(expected)
    assert "n: problems" in map_legend(spec) and "n: workflows" in map_legend(SPEC)


def test_an_ablation_says_what_the_reference_gains_over_its_variants(
    root: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    for path in copy.glob("smoke/heft_boosted/*/result.json"):
        edit_result(path, family="fate")
    kept = yaml.safe_load((copy / SWEEP).read_text())
    kept["report"]["reference"] = "heft_boosted"
    (copy / SWEEP).write_text(yaml.safe_dump(kept))
    (panel,) = compute_report(copy).panels
    assert panel.title == "heft_boosted over dls" and len(panel.gains) == 4
    means = _means(copy)["base", "mixed"]
    gain = panel.gains["base", "mixed"].percent.value
    assert gain == pytest.approx(100 * (1 - means["heft_boosted"] / means["dls"]))


def _panels() -> list[Panel]:
    gains = {
        ("base", "alike"): Gain("heft", 45, Estimate(12.0, 10.0, 14.0)),
        ("base", "mixed"): Gain("heft", 45, Estimate(-6.0, -8.0, -4.0)),
        ("slow", "mixed"): Gain("dls", 45, Estimate(0.0, -9.0, 9.5)),
    }
    return [Panel("fate", "strict", gains)]


def test_blue_is_ahead_orange_behind_and_the_published_is_outlined() -> None:
    axes = map_figure(_panels(), SPEC).axes[0]
    patches = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    filled = [patch for patch in patches if to_rgba(patch.get_facecolor())[3] > 0]
    cells = {(p.get_x() + 0.5, p.get_y() + 0.5): to_rgb(p.get_facecolor()) for p in filled}
    assert cells[0, 0][2] > cells[0, 0][0], "blue"
    assert cells[1, 0][0] > cells[1, 0][2], "orange"
    assert cells[1, 1] == pytest.approx((1.0, 1.0, 1.0), abs=0.01)
    outlines = [patch for patch in patches if patch not in filled]
    assert [np.floor(patch.get_x() + 0.5) for patch in outlines] == [0.0]
    shown = [text.get_text() for text in axes.texts]
    assert shown[:2] == ["+12.0", "10.0, 14.0"] and "−8.0, −4.0" in shown
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["base\nn = 45", "slow\nn = 45"]


def test_tables_leave_out_what_was_not_run_and_place_what_was_published() -> None:
    tables = gain_tables(_panels(), SPEC)
    assert tables["fate"].heads == ["regime", "devices", "n", "over strongest strict [95 % CI]"]
    assert [row[:2] for row in tables["fate"].rows] == [
        ["base", "alike"],
        ["base", "mixed"],
        ["slow", "mixed"],
    ]
    assert tables["fate"].rows[0][3] == "+12.0 % [+10.0, +14.0] (heft)"
    published = published_table(_panels(), SPEC)
    assert published is not None
    assert published.rows == [
        ["fate over strongest strict", "+8.9 %", "3", "1", "1", "1",
         "base, alike: +12.0 % [+10.0, +14.0]"],
    ]  # fmt: skip
    assert published_table(_panels(), SPEC.model_copy(update={"published": {}})) is None


def test_gains_over_each_kind_stand_side_by_side() -> None:
    gain = Gain("heft", 4, Estimate(3.0, 1.0, 5.0))
    table = kinds_table(
        {"fate": {"strict": gain, "round_robin": gain._replace(against="round_robin")}}
    )
    assert table is not None
    assert table.heads[2:] == ["over strongest strict [95 % CI]", "over RoundRobin [95 % CI]"]
    assert table.rows == [["fate", "4", "+3.0 % [+1.0, +5.0] (heft)", "+3.0 % [+1.0, +5.0]"]]
    assert kinds_table({}) is None
