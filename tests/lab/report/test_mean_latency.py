"""Mean latencies of whole problems, and how far policies fall behind."""

from __future__ import annotations

import pandas as pd

from fate_gym.lab.report.mean_latency import mean_latency_table, problem_ratios

FAMILIES = {"fate": "fate", "agent": "learned", "a": "heuristic", "b": "proxy", "best": "reference"}


def _rows(suite: str, seconds: dict[str, list[float]], theirs: list[float]) -> pd.DataFrame:
    """Return the workflows of one stream, whose latencies under round robin are ``theirs``."""
    return pd.DataFrame(
        [
            {
                "suite": suite,
                "problem": f"{suite}/p",
                "instance": suite,
                "seed": 0,
                "policy": policy,
                "workflows": len(own),
                "latency": latency,
                "rr_latency": theirs[i],
            }
            for policy, own in seconds.items()
            for i, latency in enumerate(own)
        ]
    )


def test_a_long_workflow_counts_for_more_than_a_short_one() -> None:
    # A mean of ratios would be (5 + 0.5) / 2: the short request would hide the long one.
    rows = _rows("s", {"a": [0.5, 50.0]}, [0.1, 100.0])
    (ratio,) = problem_ratios(rows)["latency_ratio"]
    assert abs(ratio - 50.5 / 100.1) < 1e-12


def test_behind_is_the_worst_suite_against_the_best_rival_there() -> None:
    rows = pd.concat(
        [
            _rows("s", {"a": [1, 1], "b": [2, 2], "agent": [1.1, 1.1], "fate": [0.5, 0.5]}, [4, 4]),
            _rows("t", {"a": [3, 3], "b": [2, 2], "agent": [1.0, 1.0], "best": [0.1, 0.1]}, [4, 4]),
        ]
    )
    table = mean_latency_table(rows, ["fate", "agent", "a", "b", "best"], FAMILIES)
    assert table is not None
    assert table.heads == ["policy", "s", "t", "behind"]
    assert table.rows == [
        ["fate", "0.125", "–", "-50.0 %"],
        ["agent", "0.275", "0.250", "+10.0 %"],
        ["a", "**0.250**", "0.750", "+50.0 %"],
        ["b", "0.500", "**0.500**", "+100.0 %"],
        ["best", "–", "0.025", "-95.0 %"],
    ]


def test_workflows_alone_have_no_such_table() -> None:
    rows = _rows("s", {"a": [1.0], "agent": [2.0]}, [4.0])
    assert mean_latency_table(rows, ["a", "agent"], FAMILIES) is None


def test_without_rivals_nothing_is_behind() -> None:
    rows = _rows("s", {"fate": [1.0, 2.0]}, [4.0, 4.0])
    table = mean_latency_table(rows, ["fate"], FAMILIES)
    assert table is not None
    assert table.rows == [["fate", "0.375", "–"]]
