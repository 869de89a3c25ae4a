"""Streams and sessions in reports, on both kinds of devices."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fate_gym.lab.jobs.config import parse_config
from fate_gym.lab.jobs.run import run_job
from fate_gym.lab.report.compute import Report, compute_report
from fate_gym.lab.report.figures.draw import draw_figures
from fate_gym.lab.report.markdown import markdown
from fate_gym.lab.report.page.data import page_data
from fate_gym.lab.report.page.render import render_page
from fate_gym.lab.report.serving import serving_panels
from fate_gym.lab.report.sessions import session_table
from fate_gym.lab.report.streams import stream_table
from fate_gym.problem import Cluster, Problem, dump_problem
from fate_gym.workloads import load_suite
from policies.registry import policy_specs
from tests.metrics.test_sessions import DEVICES, TURNS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two policies with two seeds on both kinds of devices; two sessions of three turns."""
    runs = tmp_path_factory.mktemp("sessions")
    file = runs / "turns.json"
    dump_problem(Problem.build(Cluster(id="two", devices=DEVICES), TURNS, id="turns"), file)
    suite = load_suite("files").model_dump(mode="json") | {"files": [str(file)]}
    for execution in ("exclusive", "batching"):
        for policy in ("round_robin", "eft"):
            for seed in (0, 1):
                config = {
                    "suite": suite,
                    "cluster": {"execution": execution},
                    "policy": policy_specs()[policy].model_dump(),
                    "seed": seed,
                    "tracking": {"mode": "none"},
                    "paths": {"runs": str(runs)},
                }
                run_job(parse_config(config))
    return runs / "default"


@pytest.fixture(scope="module")
def report(root: Path) -> Report:
    return compute_report(root)


def test_rows_say_which_turn_of_which_session(report: Report) -> None:
    rows = report.sweep.rows
    turns = rows.drop_duplicates("workflow").set_index("workflow")
    assert turns["session"].to_dict() == {"a0": "a", "b0": "b", "a1": "a"}
    assert turns["turn"].to_dict() == {"a0": 0, "b0": 0, "a1": 1}
    assert (rows["turn_ttft"] < rows["latency"]).all()
    result = report.sweep.finished[0][1]
    assert {"again_tokens", "within_hit_rate", "session_latency_mean"} <= result.means.keys()


@pytest.mark.parametrize("suite", ["files", "files (batching)"])
def test_tables_are_of_one_suite_and_one_kind_of_devices(report: Report, suite: str) -> None:
    rows = report.sweep.rows
    rows = rows[rows["suite"] == suite]
    streams = stream_table(rows, report.order)
    assert streams is not None
    (line,) = (row for row in streams.rows if row[0] == "eft")
    latencies = rows[rows["policy"] == "eft"].groupby("seed")["latency"]
    assert line[1] == "6 / 2"
    assert float(line[3].split()[0]) == pytest.approx(latencies.mean().mean(), rel=1e-2)
    assert float(line[5].split()[0]) == pytest.approx(latencies.quantile(0.95).mean(), rel=1e-2)
    sessions = session_table(rows, report.order)
    assert sessions is not None
    (line,) = (row for row in sessions.rows if row[0] == "eft")
    cells = dict(zip(sessions.heads, line, strict=True))
    assert cells["n"] == "6 / 4"
    again = rows[rows["policy"] == "eft"].drop_duplicates("seed")["again_tokens"].mean()
    assert float(cells["again, 1,000 tokens"].split()[0]) == pytest.approx(again / 1000, rel=1e-2)
    # Nothing is inherited inside these workflows.
    assert "hits contexts, %" not in cells


def test_the_report_has_a_section_for_each(report: Report) -> None:
    text, page = markdown(report, ()), render_page(report)
    for heading in ("Latency in seconds", "Sessions", "Serving"):
        found = re.findall(rf"^## {heading}: (.*)$", text, flags=re.MULTILINE)
        assert found == ["files", "files (batching)"]
    for heading in ("Latency in seconds", "Sessions"):
        assert f">{heading}</h2>" in page
        assert f'aria-label="{heading}, files (batching)"' in page


def test_figures_of_serving_do_not_average_both_kinds(report: Report) -> None:
    rows = report.sweep.rows
    panels = serving_panels(rows, report.order)
    own = rows[(rows["execution"] == "batching") & (rows["policy"] == "eft")]
    found = panels["time to first token P95, s (batching)"]["eft"]
    assert found == pytest.approx(own.drop_duplicates("seed")["ttft_p95"].mean())
    assert all(title.endswith(("(exclusive)", "(batching)")) for title in panels)
    titles = [panel["title"] for panel in page_data(report)["serving"][""][""]]
    assert titles == list(panels)
    # A policy that has not run on one of them has no value there.
    partly = rows[(rows["execution"] == "exclusive") | (rows["policy"] == "round_robin")]
    panels = serving_panels(partly, report.order)
    assert np.isnan(panels["queries on a busy device (batching)"]["eft"])


def test_the_figure_of_a_session_is_of_a_suite_that_has_some(report: Report) -> None:
    figure = draw_figures(report)["session"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split(":")[0] for title in titles] == report.order
    assert all("without thinking" in title for title in titles)


def test_workflows_alone_and_old_results_have_neither() -> None:
    rows = pd.DataFrame(
        {"policy": "a", "suite": "s", "problem": "p", "seed": 0, "workflows": [1], "latency": 1.0}
    )
    assert stream_table(rows, ["a"]) is None
    assert session_table(rows, ["a"]) is None
    assert session_table(rows.assign(workflows=2), ["a"]) is None
