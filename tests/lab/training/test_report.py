from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fate_gym.files import write_text
from fate_gym.lab.training.curves import iqm, iqm_estimate, read_curves
from fate_gym.lab.training.evaluation import Score
from fate_gym.lab.training.report import main
from fate_gym.lab.training.result import TrainResult
from fate_gym.lab.training.state import Progress, write_state


def finished(root: Path, seed: int, ratios: list[float]) -> None:
    directory = root / "demo" / "some" / f"s{seed}-00000000"
    curve = [{"steps": 100.0 * i, "latency_ratio": ratio} for i, ratio in enumerate(ratios, 1)]
    write_state(directory, Progress(curve=curve), lambda _: None)
    result = TrainResult(
        status="ok",
        title="demo/some",
        agent="some",
        curriculum="demo",
        seed=seed,
        steps=300,
        labelled_states=0,
        best=min(ratios),
        best_steps=300,
        seconds=1.0,
        stopped=None,
        validation=Score(problems=1, latency_ratio=min(ratios)),
        test=None,
        config_hash="0",
        versions={},
        git_sha=None,
        machine="",
    )
    write_text(directory / "training.json", result.model_dump_json())


def test_curves_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(5):
        # One seed is far off: the interquartile mean does not see it.
        finished(tmp_path, seed, [0.9, 0.8 + (seed == 4) * 5.0, 0.5 + 0.01 * seed])
    (curve,) = read_curves(tmp_path)
    assert curve.steps.tolist() == [100, 200, 300]
    np.testing.assert_allclose(iqm(curve.latency_ratios), [0.9, 0.8, 0.52])
    assert main([str(tmp_path)]) == 0
    assert "demo/some: 0.5200" in capsys.readouterr().out
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert "demo,some,5,100,0.9000,0.9000,0.9000" in (tmp_path / "curves.csv").read_text()


def test_interval_holds_the_interquartile_mean() -> None:
    values = np.random.default_rng(0).normal(size=9)
    mean, low, high = iqm_estimate(values)
    assert low < mean == float(iqm(values)) < high


def test_nothing_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no finished training" in capsys.readouterr().err
