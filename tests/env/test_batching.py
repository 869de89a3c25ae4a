"""The environment on batching devices: observations are up to date, schedules are valid."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fate_gym.env import Observation, Observer, WorkflowSchedulingEnv, WorkflowSchedulingVectorEnv
from fate_gym.env.features import CANDIDATES, DEVICES, GLOBALS, Group
from fate_gym.env.options import EnvOptions
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Assignment, Simulator
from fate_gym.validator import assert_valid
from policies import make_policy
from tests.env.episodes import batching, legal_action, play, same
from tests.env.test_placements import assert_actions_are_candidates
from tests.env.test_state import go_on
from tests.strategies import problems

SEEDS = st.integers(0, 2**32)
SERVING = st.sampled_from(
    [
        {"prefill": "chunked"},
        {"prefill": "first", "token_budget": 2048},
        {"prefill": "chunked", "token_budget": 300, "max_sequences": 8},
    ]
)
MOST_TOKENS = 5000
"""The validator simulates each of these tokens."""
slow = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@slow
@given(problems(), SERVING, SEEDS, st.integers(1, 5))
def test_what_is_shown_is_fresh(
    problem: Problem, serving: dict[str, Any], seed: int, window: int
) -> None:
    """Every observation is the one of somebody who looks for the first time; all is in bounds."""
    options = EnvOptions(window=window, dag=True, reward="shaped")
    env = WorkflowSchedulingEnv(batching(problem, **serving), **options.model_dump())
    observation, _ = env.reset(seed=seed)

    def check(observation: Observation, _: object) -> None:
        assert env.observation_space.contains(observation)
        if not env.ended:
            fresh = Observer(options, env.compiled).observe(env.view())
            # An observer plays no illegal actions.
            fresh["invalid_streak"] = observation["invalid_streak"]
            for key, rows in fresh.items():
                np.testing.assert_array_equal(observation[key], rows, err_msg=key)

    check(observation, None)
    play(env, np.random.default_rng(seed), illegal=0.05, each=check)
    tokens = sum(stage.output_tokens for w in problem.workflows for stage in w.stages)
    if tokens <= MOST_TOKENS:
        assert_valid(env.trace())


@slow
@given(st.lists(problems(most=6), min_size=2, max_size=3), SEEDS)
def test_lanes_are_single_environments(choice: list[Problem], seed: int) -> None:
    """Exclusive and batching problems side by side."""
    choice = [problem if i else batching(problem) for i, problem in enumerate(choice)]
    options: dict[str, Any] = {"window": 3, "reward": "shaped", "dag": True}
    envs = WorkflowSchedulingVectorEnv(2, choice, autoreset_mode="SameStep", **options)
    problem = {"problem": [choice[0], choice[1]]}
    envs.reset(seed=[seed, seed + 1], options=problem)
    single = WorkflowSchedulingEnv(choice, **options)
    single.reset(seed=seed, options={"problem": choice[0]})
    rng = np.random.default_rng(seed)
    ended = False
    while not ended:
        masks = envs.action_masks()
        actions = np.array([legal_action(mask, rng) for mask in masks])
        together = envs.step(actions)
        observation, reward, ended, _, _ = single.step(int(actions[0]))
        assert (together[1][0], together[2][0]) == (reward, ended)
        shown = {key: rows[0] for key, rows in together[0].items()}
        assert same(together[4]["final_obs"][0] if ended else shown, observation)


@slow
@given(problems(), SERVING, SEEDS, st.integers(1, 4))
def test_actions_are_candidates(
    problem: Problem, serving: dict[str, Any], seed: int, shards: int
) -> None:
    env = WorkflowSchedulingEnv(batching(problem, **serving), window=3, max_shards=shards)
    env.reset(seed=seed)
    assert_actions_are_candidates(env)

    def check(_: object, __: object) -> None:
        if not env.ended:
            assert_actions_are_candidates(env)

    play(env, np.random.default_rng(seed), each=check)


@slow
@given(problems(most=6), SEEDS, st.integers(0, 8))
def test_a_moment_can_be_gone_back_to(problem: Problem, seed: int, length: int) -> None:
    env = WorkflowSchedulingEnv(batching(problem), reward="shaped")
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(length):
        if not env.ended:
            env.step(legal_action(env.action_masks(), rng))
    state = pickle.loads(pickle.dumps(env.state()))
    copy = pickle.loads(pickle.dumps(env))
    expected = go_on(env, seed)
    other = WorkflowSchedulingEnv(batching(problem), reward="shaped")
    other.restore(state)
    for one in (copy, other):
        assert go_on(one, seed) == expected


@pytest.mark.parametrize("reward", ["makespan", "latency", "shaped"])
@pytest.mark.parametrize("uncertainty", [0.0, 0.3])
def test_rewards_add_up_to_the_return(reward: str, uncertainty: float) -> None:
    env = WorkflowSchedulingEnv(
        chats(8), reward=reward, uncertainty=uncertainty, length_uncertainty=uncertainty
    )
    env.reset(seed=1)
    first = env.unwrapped.arrays.episode.estimate
    steps = play(env, np.random.default_rng(1))
    metrics = steps[-1][3]["metrics"]
    total = sum(step[1] for step in steps) * env.reward_unit
    wanted = {"makespan": metrics["makespan"], "latency": metrics["latency_mean"]}
    wanted["shaped"] = metrics["makespan"] - first
    assert total == pytest.approx(-wanted[reward])
    assert_valid(env.trace())


def test_the_estimate_of_the_last_end_knows_what_runs() -> None:
    """Its end, and the way behind it."""
    problem = chats(3, output=500)
    parent, child, other = problem.workflows[0].stages
    flow = Workflow(id="w", stages=(parent, child), edges=(Edge(parent="s0", child="s1"),))
    problem = Problem.build(problem.cluster, [flow, Workflow(id="v", stages=(other,))])
    env = WorkflowSchedulingEnv(problem, reward="shaped")
    env.reset(seed=0)
    env.place(Assignment(0, (0,)))
    view = env.view()
    behind = view.clean_seconds(1).min()
    assert env.arrays.episode.estimate == pytest.approx(view.drain_estimates()[0] + behind)


@pytest.mark.parametrize("options", [{}, {"uncertainty": 0.4, "length_uncertainty": 0.4}])
def test_gymnasiums_checker(options: dict[str, float]) -> None:
    env = WorkflowSchedulingEnv(chats(4), window=3, dag=True, **options)
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("policy", ["learned", "eft", "fate"])
def test_policies_play_through_the_environment(policy: str) -> None:
    from fate_gym.env import PolicyAdapter

    env = WorkflowSchedulingEnv(chats(6))
    trace = PolicyAdapter(make_policy(policy)).play(env, seed=0)
    same_run = Simulator(env.compiled).run(make_policy(policy), seed=env.noise_seed)
    assert trace.same_schedule(same_run)


@pytest.mark.parametrize("option", ["uncertainty", "length_uncertainty"])
def test_luck_to_come_does_not_show(option: str) -> None:
    """While weights are loaded, and in whatever order stages come: another seed, the same rows."""
    shown = []
    for seed in range(4):
        env = WorkflowSchedulingEnv(chats(6), dag=True, **{option: 0.5})
        env.reset(seed=seed)
        for stage in range(4):
            slot = env.window.index(stage)
            observation = env.step(slot * env.env_spec.positions + stage // 3)[0]
        shown.append(observation)
    for observation in shown[1:]:
        for key, rows in observation.items():
            np.testing.assert_allclose(rows, shown[0][key], atol=1e-6, err_msg=key)


# --- what the features say ------------------------------------------------------------------


def chats(count: int, *, output: int = 100, execution: str = "batching", **cluster: Any) -> Problem:
    """Return a problem of requests to two equal devices; the last one needs another model."""
    models = ["Qwen2.5-7B"] * (count - 1) + ["Phi-3-mini"]
    stages = tuple(
        Stage(id=f"s{i}", model=model, queries=2, prompt_tokens=700, output_tokens=output)
        for i, model in enumerate(models)
    )
    devices = tuple(Device(id=f"d{i}", gpu="A100-80") for i in range(2))
    given = {"id": "pair", "devices": devices, "execution": execution, **cluster}
    return Problem.build(
        Cluster(**given), [Workflow(id="w", stages=stages)], options=Options(max_shards=2)
    )


def read(group: Group, rows: NDArray[Any], *where: int) -> dict[str, float]:
    """Return a row of features as a dict by name."""
    names = [feature.name for feature in group.features]
    return dict(zip(names, rows[where].tolist(), strict=False))


def undo(share: float, half: float) -> float:
    """Invert a saturating feature that is 0.5 at ``half``."""
    return half * share / (1 - share)


class Moment:
    """An episode in which a test places the stages, and its latest observation."""

    def __init__(self, problem: Problem) -> None:
        self.env = WorkflowSchedulingEnv(problem, window=8, max_shards=2, time_scale=10.0)
        self.seen, _ = self.env.reset(seed=0)

    def place(self, stage: int, device: int) -> None:
        slot = self.env.window.index(stage)
        self.seen = self.env.step(slot * self.env.env_spec.positions + device)[0]

    def device(self, d: int) -> dict[str, float]:
        return read(DEVICES, self.seen["devices"], d)

    def candidate(self, stage: int, position: int) -> dict[str, float]:
        action = self.env.window.index(stage) * self.env.env_spec.positions + position
        return read(CANDIDATES, self.seen["candidates"], action)


def test_an_empty_device() -> None:
    for execution in ("batching", "exclusive"):
        moment = Moment(chats(4, execution=execution))
        for name in ("occupancy", "reserved", "waiting", "outstanding"):
            assert moment.device(0)[name] == 0.0
        assert moment.device(0)["admits"] == 1.0
        assert moment.candidate(0, 0)["admits"] == 1.0
        assert moment.candidate(0, 2)["admits"] == 1.0  # on both
        assert moment.candidate(0, 0)["delay"] == 0.0
        run = read(GLOBALS, moment.seen["globals"])
        assert (run["batching"], run["busy"]) == (float(execution == "batching"), 0.0)


def test_joining_is_not_waiting_in_line() -> None:
    moment = Moment(chats(4, max_sequences=5))
    moment.place(0, 0)
    busy, other = moment.device(0), moment.device(1)
    assert busy["occupancy"] == pytest.approx(2 / 5)
    assert busy["admits"] == 1.0 and busy["waiting"] == 0.0
    assert undo(busy["outstanding"], 10_000) == pytest.approx(2 * 800, rel=1e-5)
    arrays = moment.env.compiled.arrays
    kv = 2 * 800 * arrays.models["kv"][0]
    room = arrays.devices["memory"][0] - arrays.models["weight_bytes"][0]
    assert busy["reserved"] == pytest.approx(kv / room, rel=1e-5)
    assert other["occupancy"] == 0.0
    assert read(GLOBALS, moment.seen["globals"])["busy"] == 0.5
    # The same model joins, another one waits until the batch has drained.
    joins, waits = moment.candidate(1, 0), moment.candidate(3, 0)
    assert (joins["admits"], waits["admits"]) == (1.0, 0.0)
    assert joins["turn"] == 0.0
    assert waits["turn"] == pytest.approx(busy["queue"])
    assert joins["delay"] > 0.0 and waits["delay"] == 0.0
    assert joins["occupied"] < moment.candidate(1, 1)["occupied"]
    assert moment.candidate(1, 2)["admits"] == 1.0 and moment.candidate(3, 2)["admits"] == 0.0


def test_a_line_forms_where_sequences_run_out() -> None:
    moment = Moment(chats(6, max_sequences=4))
    for stage in range(4):
        moment.place(stage, 0)
    device = moment.device(0)
    assert device["occupancy"] == 1.0 and device["admits"] == 0.0
    assert undo(device["waiting"], 4.0) == pytest.approx(2.0)
    assert undo(device["outstanding"], 10_000) == pytest.approx(4 * 2 * 800, rel=1e-5)
    assert moment.candidate(4, 0)["admits"] == 0.0


def test_delay_is_what_the_others_lose() -> None:
    moment = Moment(chats(4, output=300))
    moment.place(0, 0)
    simulator = Simulator(moment.env.compiled, seed=0)
    simulator.restore(moment.env.state().moment.state)
    ends = []
    for joins in (False, True):
        run = simulator.copy()
        if joins:
            run.place(1, [0])
        while run.state.stages["status"][0] != 3:
            run.wait()
        ends.append(run.state.stages["end"][0])
    delay = undo(moment.candidate(1, 0)["delay"], 10.0)
    assert delay == pytest.approx(ends[1] - ends[0], rel=1e-3)


def test_behind_counts_who_goes_first() -> None:
    """Those of the slots before go where they end earliest: `later` for who comes behind them."""
    moment = Moment(chats(3, output=300))
    first, second = moment.env.window[:2]
    shown = moment.candidate(second, 0)
    best = moment.seen["candidates"][: moment.env.env_spec.positions, CANDIDATES.index("end")]
    device = int(np.argmin(best[:2]))
    moment.place(first, device)
    for d in range(2):
        behind = Moment(chats(3, output=300)).candidate(second, d)["behind"]
        assert behind == pytest.approx(moment.candidate(second, d)["later"], abs=1e-5)
    assert shown["later"] == 0.0


def test_tokens_are_counted_down_as_time_passes() -> None:
    """Between two changes of the batch as well, on both kinds of devices."""
    for execution in ("batching", "exclusive"):
        stages = chats(2, output=1000, execution=execution).workflows[0].stages
        arrivals = [0.0, 4.0, 4.5, 5.0]
        problem = chats(2, output=1000, execution=execution)
        flows = [
            Workflow(id=f"w{i}", stages=(stages[0],), arrival=time)
            for i, time in enumerate(arrivals)
        ]
        moment = Moment(Problem.build(problem.cluster, flows))
        moment.place(0, 0)
        left = []
        for stage in range(1, 4):
            left.append(undo(moment.device(0)["outstanding"], 10_000))
            moment.place(stage, 1)
        assert 2 * 1700 > left[0] > left[1] > left[2] > 0
        # Equal times, equal numbers of tokens, but for a few: contexts grow.
        assert left[0] - left[1] == pytest.approx(left[1] - left[2], rel=0.1)
