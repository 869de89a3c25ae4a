"""Statistics of a sweep on made-up rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fate_gym.errors import InputError
from fate_gym.lab.report.baselines import Baselines, choose_baselines, mean_order
from fate_gym.lab.report.mechanism import decision_quantiles, mechanism_means
from fate_gym.lab.report.p95 import p95_ratio
from fate_gym.lab.report.serving import serving_means, serving_panels
from fate_gym.lab.report.summary import PolicySummary, summarise
from fate_gym.lab.report.versus import effects_of

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
            "latency_ratio": value,
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
        columns=["policy", "decision_ms"],
        data=[{"policy": policy, "decision_ms": ms} for policy in values for ms in (1.0, 2.0, 3.0)],
    )


def _summary(
    rows: pd.DataFrame, decisions: pd.DataFrame, boosted: frozenset[str] = frozenset()
) -> dict[str, PolicySummary]:
    baselines = choose_baselines(mean_order(rows), FAMILIES, boosted)
    return {row.policy: row for row in summarise(rows, decisions, FAMILIES, baselines)}


def test_baselines_are_neither_fate_nor_references() -> None:
    chosen = choose_baselines(["best", "fate", "b", "a"], FAMILIES, {"b", "fate"})
    assert chosen == Baselines(strongest="b", strict="a", boosted="b")
    assert choose_baselines(["best", "fate"], FAMILIES, ()) == Baselines(None, None, None)


def test_a_clear_winner_is_significant_and_a_tie_is_not() -> None:
    base = np.linspace(0.5, 1.0, 12)
    values = {
        "a": list(base),
        "b": list(base * (1 + 0.1 * (-1.0) ** np.arange(12)) + 0.01),
        "fate": list(base * 0.9),
    }
    summary = _summary(_rows(values), _decisions(values))
    assert list(summary) == ["fate", "a", "b"]
    assert summary["fate"].win_rate == 1.0
    assert summary["fate"].vs_strongest_pct.value == pytest.approx(-10.0)
    assert summary["fate"].p_value == pytest.approx(2 * 2 / 2**12)  # exact test, Holm over two
    assert summary["b"].p_value > 0.1
    assert np.isnan(summary["a"].p_value)
    ratio = summary["fate"].latency_ratio
    assert ratio.low < 0.675 < ratio.high
    assert summary["fate"].decision_ms_p50 == 2.0


def test_policies_without_common_workflows_are_not_compared() -> None:
    rows = _rows({"a": [0.5, 0.6], "fate": [0.4, 0.5]})
    rows.loc[rows["policy"] == "fate", "seed"] = 1
    summary = _summary(rows, _decisions({"a": []}))
    assert np.isnan(summary["fate"].win_rate)
    assert summary["fate"].latency_ratio.value == pytest.approx(0.45)
    assert np.isnan(summary["fate"].decision_ms_p50)


def test_tail_of_workflows_alone_is_a_percentile_of_ratios() -> None:
    values = list(np.linspace(0, 1, 101))
    tail, low, high = p95_ratio(_rows({"a": values}))
    assert tail == pytest.approx(0.95)
    assert low < tail < high


def test_tail_of_a_stream_is_a_ratio_of_percentiles() -> None:
    tail, low, high = p95_ratio(_rows({"a": [0.5, 1.5, 2.5]}, workflows=3))
    assert tail == pytest.approx(np.percentile([1.0, 3.0, 5.0], 95) / 2.0)
    assert np.isnan([low, high]).all()


def test_the_tail_agrees_with_a_bootstrap_written_out() -> None:
    rng = np.random.default_rng(3)
    rows = pd.concat(
        [_rows({"a": list(rng.lognormal(size=6))}).assign(seed=seed) for seed in range(4)]
    )
    groups = [group["latency_ratio"].to_numpy() for _, group in rows.groupby("instance")]
    draws = np.random.default_rng(0).integers(6, size=(2000, 6))
    samples = [np.percentile(np.concatenate([groups[i] for i in draw]), 95) for draw in draws]
    assert p95_ratio(rows)[1:] == pytest.approx(np.quantile(samples, [0.025, 0.975]))


def test_the_difference_has_an_interval_that_keeps_pairs_together() -> None:
    base = np.linspace(0.2, 2.0, 20)
    summary = _summary(_rows({"a": list(base), "fate": list(0.9 * base)}), _decisions({}))
    fate = summary["fate"]
    # Workflows differ tenfold, the ratio not at all: paired, its interval has no width.
    assert fate.vs_strongest_pct[1:] == pytest.approx([-10.0, -10.0])


def test_headroom_is_the_share_of_the_way_to_the_best_known() -> None:
    values = {
        "a": [1.0, 1.0, 1.0],  # strict
        "b": [0.9, 0.9, 0.801],  # boosted, and almost the best known on the last
        "fate": [0.85, 0.9, 0.9],
        "best": [0.8, 0.8, 0.8],
    }
    fate = _summary(_rows(values), _decisions({}), frozenset({"b"}))["fate"]
    assert fate.headroom_strict == pytest.approx(np.mean([0.75, 0.5, 0.5]))
    assert fate.headroom_boosted == pytest.approx(np.mean([0.5, 0.0]))
    without = _summary(_rows({"a": [1.0], "fate": [0.9]}), _decisions({}))["fate"]
    assert np.isnan(without.headroom_strict)


def test_effects_are_against_the_reference_and_corrected() -> None:
    base = np.linspace(0.5, 1.0, 12)
    rows = _rows({"fate": list(base), "a": list(base * 1.1), "b": list(base * 1.2)})
    effects = effects_of(rows, FAMILIES, "fate")
    assert list(effects) == ["a", "b"]
    assert effects["a"].difference.value == pytest.approx(10.0)
    assert effects["a"].p_value == pytest.approx(2 * 2 / 2**12)
    with pytest.raises(InputError, match="'fat' is not among"):
        effects_of(rows, FAMILIES, "fat")


def test_quantiles_of_decisions() -> None:
    quantiles = decision_quantiles(_decisions({"a": [1.0]}), ["a", "b"])
    assert list(quantiles) == ["a"]
    assert quantiles["a"][2] == 2.0 and quantiles["a"][-1] == 3.0


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


def test_serving_metrics_are_means_over_runs() -> None:
    """However many workflows a run has; those of old results, or without values, are left out."""
    long, short = _rows({"a": [1.0] * 3, "b": [1.0] * 3}, 3), _rows({"a": [1.0], "b": [1.0]}, 1)
    rows = pd.concat(
        [
            long.assign(tpot_p95=np.where(long["policy"] == "a", 0.03, 0.05)),
            short.assign(tpot_p95=np.where(short["policy"] == "a", 0.01, np.nan), seed=1),
        ]
    ).assign(slo_attainment=np.nan)
    means = serving_means(rows, ["a", "b"])
    assert list(means) == ["tpot_p95"]
    assert means["tpot_p95"] == pytest.approx({"a": 20.0, "b": 50.0})
    assert list(serving_panels(rows, ["a", "b"])) == ["time per output token P95, ms"]
