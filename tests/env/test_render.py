"""Rendering of an episode: what pictures and texts show, in every render mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo

import fate_gym
from fate_gym.env import WorkflowSchedulingEnv
from fate_gym.env.features import DEVICES
from fate_gym.env.render import Renderer, as_text
from fate_gym.env.render.bars import DOWN, PHASES, TOOL, shard_bars
from fate_gym.env.render.residency import residencies, strips
from fate_gym.env.render.scene import rounded_up, shards_until
from fate_gym.problem import (
    Cluster,
    Device,
    Edge,
    Failures,
    Options,
    Outage,
    Problem,
    Stage,
    Workflow,
)
from fate_gym.sim.phases import phases
from fate_gym.validator import assert_valid
from tests.env.episodes import legal_action, play


def two_devices() -> Problem:
    """Return a problem with loads, a transfer, prefill, decode, a tool and evicted weights."""
    devices = tuple(Device(id=f"d{i}", gpu="A10G", node=f"n{i}") for i in range(2))
    shape: dict[str, Any] = {"queries": 2, "prompt_tokens": 4000, "output_tokens": 300}
    stages = (
        Stage(id="a", model="Llama-3.1-8B", **shape),
        Stage(id="tool", tool_seconds=4.0),
        Stage(id="b", model="Qwen2.5-7B", **shape),
        Stage(id="c", model="Llama-3.1-8B", **shape),
    )
    edges = (
        Edge(parent="a", child="tool", bytes=1e3),
        Edge(parent="a", child="b", bytes=1e10),
        Edge(parent="b", child="c", bytes=1e3),
        Edge(parent="tool", child="c", bytes=1e3),
    )
    cluster = Cluster(id="two", devices=devices, network_gb_s=3.0)
    return Problem.build(cluster, [Workflow(id="w", stages=stages, edges=edges)], id="pictured")


def played(**arguments: Any) -> WorkflowSchedulingEnv:
    """Place a on device 0, then b and c on device 1, where c's model evicts b's."""
    env = WorkflowSchedulingEnv(two_devices(), max_shards=1, **arguments)
    env.reset(seed=0)
    for device in (0, 1, 1):
        env.step(device)
    return env


def picture(env: WorkflowSchedulingEnv) -> np.ndarray:
    return Renderer("rgb_array", 10).picture(env)


def colours(frame: np.ndarray) -> set[str]:
    flat = frame.reshape(-1, 3)
    return {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.unique(flat, axis=0).tolist()}


def test_a_frame_tells_the_phases_apart() -> None:
    env = played(render_mode="rgb_array")
    assert env.ended
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert {*PHASES.values(), TOOL} <= colours(frame)
    # Without the legend, too: the upper part holds the bars alone.
    bars = frame[: frame.shape[0] // 2]
    assert {*PHASES.values()} <= colours(bars)
    assert np.array_equal(frame, picture(env))
    # Nothing has happened yet: no bar, the same size.
    env.reset(seed=0)
    empty = picture(env)
    assert empty.shape == frame.shape
    assert not {*PHASES.values()} & colours(empty[: empty.shape[0] // 2])


def test_names_are_no_formulas() -> None:
    problem = two_devices()
    named = problem.cluster.model_copy(
        update={"devices": tuple(Device(id=f"$_{i}$", gpu="A10G", node="n") for i in range(2))}
    )
    env = WorkflowSchedulingEnv(
        problem.model_copy(update={"cluster": named, "id": "$x_$"}), render_mode="rgb_array"
    )
    env.reset(seed=0)
    assert isinstance(env.render(), np.ndarray)


def test_where_a_bar_lies() -> None:
    """The decode of the last stage ends where the axis says the makespan is."""
    env = played(render_mode="rgb_array")
    frame = picture(env)
    decode = np.array([int(PHASES["decode"][i : i + 2], 16) for i in (1, 3, 5)])
    bars = frame[: frame.shape[0] // 2]
    columns = np.flatnonzero((bars == decode).all(axis=2).any(axis=0))
    horizon = rounded_up(env.time)
    left, right = 92, frame.shape[1] - 14
    expected = left + (right - left) * env.time / horizon
    assert abs(columns.max() - expected) <= 3


def test_phases_and_residencies_are_those_of_the_trace() -> None:
    env = played()
    trace = env.trace()
    tools = trace.shards["device"] < 0
    parts = phases(trace.shards, tools)
    assert np.all(parts.start <= parts.begin)
    assert np.all(parts.begin <= parts.prefilled)
    assert np.allclose(parts.end[tools], parts.start[tools] + 4, atol=0.1)
    model = env.compiled.arrays.stages["model"]
    here = residencies(trace, model, env.time)
    names = [(s.device, trace.model_names[s.model]) for s in here]
    assert sorted(names) == [(0, "Llama-3.1-8B"), (1, "Llama-3.1-8B"), (1, "Qwen2.5-7B")]
    gone = next(s for s in here if trace.model_names[s.model] == "Qwen2.5-7B")
    came = next(s for s in here if s.device == 1 and s is not gone)
    # An A10G does not hold both: one leaves as the other comes.
    assert gone.end == came.start
    assert came.end == env.time
    assert strips(here).tolist() == [0, 0, 0]
    assert sorted(strips([gone._replace(end=gone.end + 1.0), came]).tolist()) == [0, 1]


def test_failures_show() -> None:
    """A device that is down, what it had, and the shard that it lost."""
    options = Options(failures=Failures(outages=(Outage(device="d0", at=2.0, seconds=3.0),)))
    problem = two_devices().model_copy(update={"options": options})
    env = WorkflowSchedulingEnv(problem, max_shards=1, render_mode="rgb_array")
    env.reset(seed=0)
    observation, *_ = env.step(0)
    assert env.time == 2.0
    up = DEVICES.index("up")
    assert observation["devices"][:, up].tolist() == [0.0, 1.0]
    assert not env.action_masks()[0]
    trace = env.trace()
    assert trace.shards["lost"].tolist() == [1]
    (there,) = residencies(trace, env.compiled.arrays.stages["model"], env.time)
    assert there.end == 2.0
    assert phases(trace.shards, False).prefilled.max() <= 2.0
    assert "down" in as_text(env)
    env.step(1)
    while not env.ended:
        env.step(1)
    assert DOWN in colours(picture(env)[: picture(env).shape[0] // 2])
    assert_valid(env.trace())


def batching() -> Problem:
    """Return six stages of one model that share a device, and one of another model behind them."""
    stages = [
        Stage(id=f"s{i}", model="Llama-3.1-8B", prompt_tokens=2000, output_tokens=200 + 50 * i)
        for i in range(6)
    ]
    last = Stage(id="other", model="Qwen2.5-7B", prompt_tokens=2000, output_tokens=100)
    cluster = Cluster(id="one", devices=(Device(id="d0", gpu="A10G"),), execution="batching")
    return Problem.build(cluster, [Workflow(id="w", stages=(*stages, last))], id="batch")


def test_a_batch_is_drawn_as_long_as_it_is_known() -> None:
    env = WorkflowSchedulingEnv(batching(), max_shards=1, render_mode="rgb_array")
    env.reset(seed=0)
    seen = []
    while not env.ended:
        env.step(0)
        frame, text, trace = picture(env), as_text(env), env.trace()
        known = shards_until(trace, env.time)
        assert np.isfinite([known[name] for name in ("start", "first", "end")]).all()
        assert (known["end"] <= max(env.time, known["end"].max(initial=0.0))).all()
        running = (trace.shards["start"] <= env.time) & (env.time < trace.shards["end"])
        seen.append(int(running.sum()))
        assert f"{seen[-1]:3d} in service" in text
    assert max(seen) == 6
    bars = frame[: frame.shape[0] // 2]
    assert {PHASES["load"], PHASES["prefill"], PHASES["decode"]} <= colours(bars)
    # Who waits has loaded nothing: its model comes when the batch has drained.
    model = env.compiled.arrays.stages["model"]
    here = residencies(trace, model, env.time)
    came = next(one for one in here if trace.model_names[one.model] == "Qwen2.5-7B")
    assert came.start >= trace.shards["end"][:6].max()


def test_bars_that_overlap_share_the_height_of_a_row() -> None:
    env = WorkflowSchedulingEnv(batching(), max_shards=1)
    env.reset(seed=0)
    while not env.ended:
        env.step(0)
    decode = shard_bars(env.trace().shards, 1)[3]
    boxes = sorted((p.vertices[:, 1].min(), p.vertices[:, 1].max()) for p in decode.get_paths())
    heights = {round(high - low, 9) for low, high in boxes}
    assert heights == {round(0.52 / 6, 9)}
    assert boxes[0][0] == pytest.approx(-0.42)
    assert boxes[-1][1] == pytest.approx(0.10)


@pytest.mark.parametrize(
    ("seconds", "horizon"),
    [(0, 1), (0.8, 1), (1.2, 1.5), (17, 20), (31, 50), (76, 100), (100, 100)],
)
def test_horizon(seconds: float, horizon: float) -> None:
    assert rounded_up(seconds) == pytest.approx(horizon)


def test_text() -> None:
    env = WorkflowSchedulingEnv(two_devices(), max_shards=1, render_mode="ansi")
    env.reset(seed=0)
    first = env.render()
    assert isinstance(first, str)
    assert "slot 0: w/a" in first
    env.step(0)
    text = env.render()
    assert isinstance(text, str)
    assert "pictured: " in text
    line = next(line for line in text.splitlines() if line.lstrip().startswith("d0"))
    assert {"L", "P", "D"} <= set(line.split("|")[1])
    assert line.endswith("Llama-3.1-8B")
    assert "slot 0: w/b" in text


def test_window_without_a_display_is_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matplotlib.pyplot.get_backend", lambda: "agg")
    env = WorkflowSchedulingEnv("smoke", render_mode="human")
    env.reset(seed=0)
    shown = capsys.readouterr().out
    assert shown == as_text(env)
    env.step(legal_action(env.action_masks(), np.random.default_rng(0)))
    assert "slot" in capsys.readouterr().out
    assert env.render() is None
    env.close()


def test_no_render_mode_warns() -> None:
    env = played()
    with pytest.warns(UserWarning, match="render mode"):
        assert env.render() is None


def test_record_video(tmp_path: Path) -> None:
    env = gymnasium.make(fate_gym.ENV_ID, problem=two_devices(), render_mode="rgb_array")
    video = RecordVideo(
        env, str(tmp_path / "videos"), episode_trigger=lambda _: True, disable_logger=True
    )
    rng = np.random.default_rng(0)
    _, info = video.reset(seed=0)
    ended = False
    while not ended:
        _, _, ended, _, info = video.step(legal_action(info["action_mask"], rng))
    video.close()
    (film,) = tmp_path.rglob("*.mp4")
    assert film.stat().st_size > 1000


def test_many_devices_fit() -> None:
    devices = {f"m{i}": 1.0 for i in range(120)}
    env = WorkflowSchedulingEnv(
        Problem.classical({"a": devices, "b": devices}, {("a", "b"): 1.0}), render_mode="rgb_array"
    )
    env.reset(seed=0)
    play(env, np.random.default_rng(0))
    assert env.render().shape[0] < 900
