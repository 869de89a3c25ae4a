"""Statistics of a sweep on made-up rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fate_gym.lab.summary import choose_baselines, mechanism_means, summarise, tail_interval

FAMILIES = {"fate": "fate", "a": "heuristic", "b": "proxy", "best": "reference"}


def _rows(values: dict[str, list[float]], workflows: int = 1) -> pd.DataFrame:
    rows = [
        {
            "suite": "s",
            "problem": f"p{i}" if workflows == 1 else "p",
            "workflow": f"w{i}",
            "instance": f"p{i}",
            "seed": 0,
            "policy": policy,
            "workflows": workflows,
            "normalised": value,
            "latency": 2.0 * value,
            "rr_latency": 2.0,
            "gap_to_bound": 1.5,
        }
        for policy, column in values.items()
        for i, value in enumerate(column)
    ]
    return pd.DataFrame(rows)


def _decisions(values: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"policy": policy, "decision_ms": ms} for policy in values for ms in (1.0, 2.0, 3.0)]
    )


def test_strongest_baseline_is_neither_fate_nor_a_reference() -> None:
    assert strongest_baseline(["best", "fate", "b", "a"], FAMILIES) == "b"
    assert strongest_baseline(["best", "fate"], FAMILIES) is None


def test_a_clear_winner_is_significant_and_a_tie_is_not() -> None:
    base = np.linspace(0.5, 1.0, 12)
    values = {
        "a": list(base),
        "b": list(base * (1 + 0.1 * (-1.0) ** np.arange(12)) + 0.01),
        "fate": list(base * 0.9),
    }
    summary = {row.policy: row for row in summarise(_rows(values), _decisions(values), FAMILIES)}
    assert list(summary) == ["fate", "a", "b"]
    assert summary["fate"].win_rate == 1.0
    assert summary["fate"].vs_strongest_pct == pytest.approx(-10.0)
    assert summary["fate"].p_value == pytest.approx(2 * 2 / 2**12)  # exact test, Holm over two
    assert summary["b"].p_value > 0.1
    assert np.isnan(summary["a"].p_value)
    assert summary["fate"].norm_makespan_lo < 0.675 < summary["fate"].norm_makespan_hi
    assert summary["fate"].decision_ms_p50 == 2.0


def test_policies_without_common_workflows_are_not_compared() -> None:
    rows = _rows({"a": [0.5, 0.6], "fate": [0.4, 0.5]})
    rows.loc[rows["policy"] == "fate", "seed"] = 1
    summary = {row.policy: row for row in summarise(rows, _decisions({"a": []}), FAMILIES)}
    assert np.isnan(summary["fate"].win_rate)
    assert summary["fate"].norm_makespan == pytest.approx(0.45)
    assert np.isnan(summary["fate"].decision_ms_p50)


def test_tail_of_workflows_alone_is_a_percentile_of_ratios() -> None:
    values = list(np.linspace(0, 1, 101))
    tail, low, high = tail_interval(_rows({"a": values}))
    assert tail == pytest.approx(0.95)
    assert low < tail < high


def test_tail_of_a_stream_is_a_ratio_of_percentiles() -> None:
    tail, low, high = tail_interval(_rows({"a": [0.5, 1.5, 2.5]}, workflows=3))
    assert tail == pytest.approx(np.percentile([1.0, 3.0, 5.0], 95) / 2.0)
    assert np.isnan([low, high]).all()


def test_mechanisms_without_values_are_left_out() -> None:
    rows = _rows({"a": [1.0], "b": [1.0]}).assign(
        load_seconds=2.0,
        transfer_wait_seconds=0.0,
        prefix_hit_rate=np.nan,
        context_hit_rate=[np.nan, 0.5],
        bytes_moved=3e9,
        device_utilisation=0.5,
    )
    means = mechanism_means(rows, ["b", "a"])
    assert "prefix hit rate" not in means
    assert means["moved, GB"] == {"b": 3.0, "a": 3.0}
    assert np.isnan(means["context hit rate"]["a"])
