"""Rewards add up to the documented returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.env import StepRewards, WorkflowSchedulingEnv, WorkflowSchedulingVectorEnv
from fate_gym.problem import Problem, Stage, Workflow
from tests.env.episodes import play
from tests.strategies import problems

SEEDS = st.integers(0, 2**32)


def critical_path(problem: Problem, workflow: Workflow, clean: dict[str, float]) -> float:
    """Return the longest path of a workflow in best-case seconds, without transfers."""
    longest: dict[str, float] = {}

    def way(stage: Stage) -> float:
        if stage.id not in longest:
            children = [e.child for e in workflow.edges if e.parent == stage.id]
            rest = [way(other) for other in workflow.stages if other.id in children]
            longest[stage.id] = clean[stage.id] + max(rest, default=0.0)
        return longest[stage.id]

    return max(way(stage) for stage in workflow.stages)


def latency_scale(env: WorkflowSchedulingEnv) -> float:
    """Return 100 times the workflows' mean lower bound, per stage that is placed."""
    paths, works, _ = estimates(env)
    devices = len(env.compiled.problem.cluster.devices)
    least = [max(path, work / devices) for path, work in zip(paths, works, strict=True)]
    stages = [s for w in env.compiled.problem.workflows for s in w.stages if s.kind != "tool"]
    return 100.0 * float(np.mean(least)) / max(1, len(stages)) or 1.0


def own_scale(env: WorkflowSchedulingEnv) -> float:
    """Return the problem's estimate: longest path or mean work, in best-case seconds."""
    paths, works, _ = estimates(env)
    return max(max(paths), sum(works) / len(env.compiled.problem.cluster.devices)) or 1.0


def estimates(env: WorkflowSchedulingEnv) -> tuple[list[float], list[float], int]:
    """Return critical path and work of each workflow in best-case seconds; also the stage count."""
    view, problem = env.view(), env.compiled.problem
    number = 0
    paths, works = [], []
    for workflow in problem.workflows:
        clean, work = {}, 0.0
        for stage in workflow.stages:
            if stage.kind == "tool":
                clean[stage.id] = stage.tool_seconds or 0.0
            else:
                clean[stage.id] = float(view.clean_seconds(number).min())
                work += clean[stage.id]
            number += 1
        paths.append(critical_path(problem, workflow, clean))
        works.append(work)
    return paths, works, number


@settings(max_examples=40)
@given(problems(), SEEDS, st.sampled_from([None, 7.0]))
def test_returns(problem: Problem, seed: int, scale: float | None) -> None:
    """Minus the makespan, minus the mean latency, minus the growth of the estimate."""
    returns = {}
    for reward in ("makespan", "latency", "shaped", "shaped_latency"):
        env = WorkflowSchedulingEnv(
            problem, reward=reward, window=3, **({"reward_scale": scale} if scale else {})
        )
        env.reset(seed=seed)
        of_latency = reward == "shaped_latency"
        unit = scale or (latency_scale(env) if of_latency else own_scale(env))
        first, first_latency = env.arrays.episode.estimate, env.arrays.episode.latency_estimate
        steps = play(env, np.random.default_rng(seed))
        returns[reward] = unit * sum(reward for _, reward, _, _ in steps)
        trace = env.trace()
        metrics = steps[-1][3]["metrics"]
    assert metrics["makespan"] == pytest.approx(trace.makespan)
    assert metrics["latency_mean"] == pytest.approx(float(trace.latencies.mean()))
    rows = trace.shards[trace.shards["device"] >= 0]
    # Stages that vanish are never placed, those that were lost more than once.
    assert metrics["placements"] == len(set(zip(rows["stage"], rows["committed"], strict=True)))
    start = trace.workflow_arrival.min()
    assert returns["makespan"] == pytest.approx(-trace.makespan, abs=1e-6)
    assert returns["latency"] == pytest.approx(-float(trace.latencies.mean()), abs=1e-6)
    assert returns["shaped"] == pytest.approx(first - (trace.makespan + start), abs=1e-6)
    mean = float(trace.latencies.mean())
    assert returns["shaped_latency"] == pytest.approx(first_latency - mean, abs=1e-6)


@settings(max_examples=15)
@given(problems(), SEEDS)
def test_shaping_with_discount_is_potential_based(problem: Problem, seed: int) -> None:
    """The discounted sums of shaped and plain rewards differ by the first potential alone."""
    gamma = 0.97
    sums, potentials = {}, {}
    for reward in ("makespan", "shaped"):
        env = WorkflowSchedulingEnv(problem, reward=reward, reward_scale=1.0, discount=gamma)
        env.reset(seed=seed)
        # Before the first step the clock already stands at the first decision.
        start = min(w.arrival for w in problem.workflows if w.follows is None)
        potentials[reward] = env.arrays.episode.estimate - start
        steps = play(env, np.random.default_rng(seed))
        sums[reward] = sum(gamma**t * r for t, (_, r, _, _) in enumerate(steps))
    # The last potential is zero: nothing is left to do.
    assert sums["shaped"] - sums["makespan"] == pytest.approx(potentials["shaped"], abs=1e-5)


def test_illegal_actions_cost_the_penalty_and_change_nothing() -> None:
    problem = Problem.classical({"a": {"m": 2.0, "n": 1.0}, "b": {"n": 3.0}}, {("a", "b"): 1.0})
    env = WorkflowSchedulingEnv(problem, invalid_penalty=0.25)
    observation, _ = env.reset(seed=0)
    size = int(env.action_space.n)  # type: ignore[attr-defined]
    for action in (size - 1, size, 10**30, -1, -(2**63), np.int64(5)):
        before = env.state()
        again, reward, ended, truncated, info = env.step(action)
        after = env.state()
        assert (reward, ended, truncated) == (-0.25, False, False)
        assert info["invalid_action"]
        assert np.array_equal(before.moment.state.buffer, after.moment.state.buffer)
        assert all(
            np.array_equal(again[key], observation[key])
            for key in observation
            if key != "invalid_streak"
        )
    steps = play(env, np.random.default_rng(0))
    assert steps[-1][3]["metrics"]["invalid_actions"] == 6


NAMES = ("makespan", "latency", "shaped", "shaped_latency")


def energy(rewards: StepRewards, env: Any) -> Any:
    """Works on numbers and on arrays alike."""
    return rewards.makespan + 0.25 * rewards.latency


@settings(max_examples=10)
@given(problems(most=6), SEEDS)
def test_vectors_of_rewards_are_the_rewards(problem: Problem, seed: int) -> None:
    """And functions get them; an illegal action costs each its penalty."""
    options: dict[str, Any] = {"window": 3, "discount": 0.9}
    plain = {}
    for name in NAMES:
        env = WorkflowSchedulingEnv(problem, reward=name, **options)
        env.reset(seed=seed)
        plain[name] = [r for _, r, _, _ in play(env, np.random.default_rng(seed), illegal=0.2)]
    env = WorkflowSchedulingEnv(problem, reward=("shaped", energy, "makespan"), **options)
    assert env.reward_space is not None
    env.reset(seed=seed)
    rng, k = np.random.default_rng(seed), 0
    envs = WorkflowSchedulingVectorEnv(2, problem, reward=env.env_spec.options.reward, **options)
    one = WorkflowSchedulingVectorEnv(2, problem, reward=energy, **options)
    for lanes in (envs, one):
        lanes.reset(seed=[seed, seed + 1])
    while not env.ended:
        mask = env.action_masks()
        # The same random numbers as `play`.
        if rng.random() < 0.2:
            action = int(rng.integers(-2, mask.size + 3))
        elif mask[-1] and rng.random() < 0.2:
            action = mask.size - 1
        else:
            action = int(rng.choice(np.flatnonzero(mask)))
        rewards, info = env.step(action)[1], env.state()
        illegal = bool(info.episode.invalid)
        mixed = plain["makespan"][k] + 0.25 * plain["latency"][k]
        expected = [plain["shaped"][k], -0.1 if illegal else mixed, plain["makespan"][k]]
        assert env.reward_space.contains(rewards)
        assert np.array_equal(rewards, expected)
        both = np.array([action, 0])
        assert np.array_equal(envs.step(both)[1][0], expected)
        assert one.step(both)[1][0] == expected[1]
        k += 1


def test_a_function_as_reward() -> None:
    """It may look at the environment; the reward is a number."""
    seen = []

    def busy(rewards: StepRewards, env: WorkflowSchedulingEnv) -> float:
        seen.append(env.time)
        return -float(len(env.window))

    env = WorkflowSchedulingEnv("smoke", reward=busy, invalid_penalty=0.5)
    env.reset(seed=0)
    assert env.reward_space is None
    assert env.step(-1)[1] == -0.5
    assert not seen
    _, reward, _, _, info = env.step(int(env.action_masks().argmax()))
    assert isinstance(reward, float)
    assert reward == -len(env.window)
    assert seen == [info["time"]]
