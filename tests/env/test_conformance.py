"""What Gymnasium, Stable-Baselines3 and TorchRL require of an environment, for all options."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec, registry
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from hypothesis import given, settings
from hypothesis import strategies as st

import fate_gym
from fate_gym.env import (
    PolicyAdapter,
    StepRewards,
    WorkflowSchedulingEnv,
    WorkflowSchedulingVectorEnv,
)
from fate_gym.errors import IllegalActionError, InputError
from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow, load_problem
from fate_gym.sim import compile_problem
from fate_gym.validator import assert_valid
from fate_gym.workloads import Arrivals, load_cluster
from policies import make_policy
from tests.env.episodes import legal_action, play, same
from tests.strategies import problems

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "docs" / "examples" / "agent.json"

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "shaped": {"reward": "shaped", "discount": 0.99},
    "latency": {"reward": "latency", "reward_scale": 30.0},
    "narrow": {"window": 1, "max_shards": 1},
    "wide": {"window": 32, "max_shards": 6, "time_scale": 1.0},
    "candidates only": {"observation": ("candidates",)},
    "mask only": {"observation": ()},
    "graph": {"dag": True, "observation": ("globals",)},
    "room to spare": {
        "max_devices": 20,
        "max_models": 9,
        "max_stages": 99,
        "max_edges": 300,
        "dag": True,
    },
    "noise": {"uncertainty": 0.5},
    "arrivals": {"arrivals": {"process": "poisson", "load": 0.8}},
    "file": {"problem": str(AGENT)},
    "problem": {"problem": load_problem(AGENT)},
    "several": {"problem": ["smoke", AGENT]},
    "function": {"problem": lambda seed: _changing(seed), "max_stages": 40},
    "unrecorded": {"record": False},
    "gentle": {"invalid_penalty": 0.0},
}
"""Arguments by name; the suite is `smoke` where no problem is given."""

every_option = pytest.mark.parametrize("name", OPTIONS)


def _changing(seed: int) -> Problem:
    """Return a chain whose length depends on the seed."""
    tasks = {f"t{i}": {"a": 1.0 + i, "b": 2.0} for i in range(2 + seed % 5)}
    return Problem.classical(tasks, {(f"t{i}", f"t{i + 1}"): 0.5 for i in range(len(tasks) - 1)})


def make(name: str, **more: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(fate_gym.ENV_ID, **({"problem": "smoke"} | OPTIONS[name] | more))


def own(env: gymnasium.Env[Any, Any]) -> WorkflowSchedulingEnv:
    found = env.unwrapped
    assert isinstance(found, WorkflowSchedulingEnv)
    return found


@every_option
def test_gymnasiums_checker(name: str) -> None:
    """Warnings are errors, here as everywhere; all render modes are tried for the default."""
    env = gymnasium.make(fate_gym.ENV_ID, **({"problem": "smoke"} | OPTIONS[name]))
    check_env(env.unwrapped, skip_render_check=name != "default")


@every_option
def test_passive_checker_sees_whole_episodes(name: str) -> None:
    """The checker of `gymnasium.make`, at every step instead of the first."""
    env = make(name, max_episode_steps=-1)
    assert isinstance(env, OrderEnforcing)
    assert isinstance(env.env, PassiveEnvChecker)
    rng = np.random.default_rng(0)
    for episode in range(3):
        observation, info = env.reset(seed=episode)
        assert env.observation_space.contains(observation)
        ended = False
        while not ended:
            env.env.checked_step = False
            observation, _, ended, _, info = env.step(legal_action(info["action_mask"], rng))
            assert env.observation_space.contains(observation)
        with pytest.raises(ResetNeeded):
            env.step(0)
        if name != "unrecorded":
            assert_valid(own(env).trace())


@every_option
def test_the_same_seed_gives_the_same_episode(name: str) -> None:
    one, other = own(make(name)), own(make(name))
    for seed in (0, 1, 2**40):
        a, b = one.reset(seed=seed), other.reset(seed=seed)
        assert same(a[0], b[0])
        assert same(a[1], b[1])
        steps = [play(env, np.random.default_rng(seed), illegal=0.1) for env in (one, other)]
        for x, y in zip(*steps, strict=True):
            assert same(x[0], y[0])
            assert x[1:3] == y[1:3]
            assert same(x[3], y[3])
    # Without a seed, the next episode follows from the last seed.
    a, b = one.reset(), other.reset()
    assert same(a[0], b[0])


@every_option
def test_copies(name: str) -> None:
    if name == "function":
        pytest.skip("a lambda cannot be pickled")
    env = own(make(name))
    env.reset(seed=1)
    copies = [env, copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    steps = [play(one, np.random.default_rng(3)) for one in copies]
    for other in steps[1:]:
        for x, y in zip(steps[0], other, strict=True):
            assert same(x[0], y[0])
            assert x[1:3] == y[1:3]
    fresh = pickle.loads(pickle.dumps(own(make(name))))
    assert same(fresh.reset(seed=1)[0], env.reset(seed=1)[0])


@every_option
def test_the_mask_is_in_three_places(name: str) -> None:
    env = own(make(name))
    observation, info = env.reset(seed=0)
    rng = np.random.default_rng(0)
    while True:
        mask = env.action_masks()
        assert mask.dtype == np.bool_
        for other, dtype in ((observation, np.bool_), (info, np.int8)):
            assert other["action_mask"].dtype == dtype
            assert np.array_equal(other["action_mask"], mask)
        if env.ended:
            # Learners look for the best action there too: a mask is never empty.
            assert np.flatnonzero(mask).tolist() == [mask.size - 1]
            break
        assert mask.any()
        assert mask[env.action_space.sample(mask=info["action_mask"])]  # type: ignore[arg-type]
        observation, _, _, _, info = env.step(legal_action(mask, rng))


def test_spaces_are_those_that_were_asked_for() -> None:
    always = {"action_mask", "invalid_streak"}
    groups = {"candidates", "devices", "globals", "stages"}
    assert set(make("default").observation_space) == always | groups
    assert set(make("candidates only").observation_space) == always | {"candidates"}
    assert set(make("mask only").observation_space) == always
    graph = {"dag_edges", "dag_nodes", "globals"}
    assert set(make("graph").observation_space) == always | graph
    space = make("room to spare").observation_space
    assert space["dag_nodes"].shape[0] == 99
    assert space["dag_edges"].shape == (300, 2)
    assert space["devices"].shape[0] == 20


@settings(max_examples=30)
@given(
    problems(),
    st.integers(0, 2**32),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_any_actions_on_any_problem(
    problem: Problem, seed: int, window: int, shards: int, illegal: float
) -> None:
    """Nothing crashes, all is finite and within bounds, and the schedule is valid."""
    env = WorkflowSchedulingEnv(problem, window=window, max_shards=shards, dag=seed % 2 == 0)
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    if illegal == 1.0:
        for _ in range(50):
            if env.ended:
                break
            observation, reward, *_ = env.step(int(rng.integers(-3, env.env_spec.actions + 3)))
            assert env.observation_space.contains(observation)
            assert np.isfinite(float(reward))
        illegal = 0.5
    for observation, reward, _, info in play(env, rng, illegal=illegal):
        assert env.observation_space.contains(observation)
        assert np.isfinite(reward)
        assert info["time"] >= 0
    assert env.ended
    assert_valid(env.trace())


def test_observations_belong_to_the_caller() -> None:
    env = own(make("default"))
    observation, info = env.reset(seed=0)
    kept = {key: value.copy() for key, value in observation.items()}
    mask = env.action_masks()
    for array in (*observation.values(), info["action_mask"]):
        array[:] = 1
    info["metrics"]["waits"] = -1
    assert np.array_equal(env.action_masks(), mask)
    again, _ = env.restore(env.state())
    assert same(again, kept)
    env.step(legal_action(mask, np.random.default_rng(0)))
    assert all((value == 1).all() for value in observation.values())


def test_strict_actions_raise() -> None:
    env = own(make("default", strict=True))
    env.reset(seed=0)
    wait = env.env_spec.actions - 1
    for action in (-1, wait + 1, 2**70, wait, wait - 1):
        with pytest.raises(IllegalActionError):
            env.step(action)
    env.step(legal_action(env.action_masks(), np.random.default_rng(0)))


def test_a_window_smaller_than_the_frontier() -> None:
    """The largest ranks show, and every stage gets its turn."""
    tasks = {f"t{i}": {"a": 1.0 + i, "b": 2.0 + i} for i in range(9)}
    env = WorkflowSchedulingEnv(Problem.classical(tasks, {}), window=2)
    observation, _ = env.reset(seed=0)
    assert env.window == [8, 7]
    assert observation["globals"][3] > 0.5
    seen = set()
    while not env.ended:
        seen |= set(env.window)
        env.step(0)
    assert seen == set(range(9))


def test_a_run_without_decisions_ends_with_the_first_step() -> None:
    """Only tools: whatever the action, nothing crashes, and waiting ends it."""
    tools = Workflow(id="w", stages=(Stage(id="a", tool_seconds=2.0),), arrival=1.0)
    cluster = Cluster(id="c", devices=(Device(id="d", gpu="A10G"),))
    problem = Problem.build(cluster, [tools])
    single = WorkflowSchedulingEnv(problem, reward_scale=1.0)
    for env in (single, fate_gym.make_vec(1, problem=problem, reward_scale=1.0)):
        _, info = env.reset(seed=0)
        mask = np.atleast_2d(info["action_mask"])[0]
        assert np.flatnonzero(mask).tolist() == [mask.size - 1]
        for action, reward, ended in ((0, -0.1, False), (mask.size - 1, -2.0, True)):
            given = np.array([action]) if isinstance(env, gymnasium.vector.VectorEnv) else action
            _, got, terminated, _, _ = env.step(given)
            assert (np.asarray(got).item(), np.asarray(terminated).item()) == (reward, ended)
    trace = PolicyAdapter(make_policy("heft")).play(WorkflowSchedulingEnv(problem))
    assert trace.makespan == 2.0


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"window": 0}, "window"),
        ({"window": "many"}, "window"),
        ({"max_shards": 17}, "max_shards"),
        ({"reward": "speed"}, "reward"),
        ({"reward": ()}, "reward"),
        ({"reward": ("makespan", "speed")}, "reward"),
        ({"reward": "no_such_module:reward"}, "reward"),
        ({"reference": "no_such_module:makespan"}, "reference"),
        ({"max_invalid_actions": 0}, "max_invalid_actions"),
        ({"problem": "tests.env.test_conformance:nothing"}, "problem"),
        ({"cluster": "mixed_4", "problem": AGENT}, "cluster"),
        ({"seed": -1}, "seed"),
        ({"reward_scale": -1.0}, "reward_scale"),
        ({"discount": 1.5}, "discount"),
        ({"time_scale": float("nan")}, "time_scale"),
        ({"uncertainty": -0.1}, "uncertainty"),
        ({"observation": ("stages", "stages")}, "observation"),
        ({"observation": ("edges",)}, "observation"),
        ({"arrivals": {"process": "poisson"}}, "arrivals"),
        ({"arrivals": {"process": "given", "times": (1.0, 2.0)}}, "arrivals.times"),
        ({"max_devices": 1}, "max_devices"),
        ({"max_models": 1}, "max_models"),
        ({"max_stages": 1, "dag": True}, "max_stages"),
        ({"max_edges": 1, "dag": True}, "max_edges"),
        ({"render_mode": "rgb"}, "render_mode"),
        ({"render_mode": "ansi", "record": False}, "record"),
        ({"problem": 3}, "problem"),
        ({"problem": []}, "problem"),
        ({"problem": [None]}, "problem"),
        ({"problem": lambda _: "smoke"}, "problem"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as raised:
        WorkflowSchedulingEnv(**({"problem": "smoke"} | arguments))
    assert raised.value.field is not None
    assert raised.value.field.startswith(field)
    assert raised.value.source
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("problem", "message"),
    [("smok", "did you mean 'smoke'"), ("none.json", "none.json")],
)
def test_unknown_problems(problem: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WorkflowSchedulingEnv(problem)


def test_unknown_options_name_the_nearest() -> None:
    """As Python words it: TorchRL's `GymEnv` looks for this text, and leaves the argument out."""
    message = r"__init__\(\) got an unexpected keyword argument 'windw'.*did you mean 'window'"
    for make_one in (WorkflowSchedulingEnv, WorkflowSchedulingVectorEnv):
        with pytest.raises(TypeError, match=message):
            make_one(problem="smoke", windw=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
        make("default", frameskip=4)


def test_bad_resets_and_steps() -> None:
    env = own(make("default"))
    for call in (env.action_masks, env.view, env.state, env.trace, env.render):
        with pytest.raises(ResetNeeded):
            call()
    with pytest.raises(ResetNeeded):
        env.step(0)
    with pytest.raises(InputError, match="'problem'"):
        env.reset(options={"problm": 1})
    for problem in (-1, 10**6, True, None, "quick", 2.5):
        with pytest.raises(InputError):
            env.reset(options={"problem": problem})
    large = Problem.classical({"t": {f"m{i}": 1.0 for i in range(40)}}, {})
    with pytest.raises(InputError, match=r"40 devices.*max_devices=40"):
        env.reset(options={"problem": large})
    env.reset(seed=0)
    for action in ("3", None, 1.5):
        with pytest.raises(InputError, match="whole number"):
            env.step(action)  # type: ignore[arg-type]


def test_the_problem_of_one_episode() -> None:
    env = own(make("default"))
    count = len(env.source)
    assert count >= 2
    names = set()
    for number in range(count):
        env.reset(seed=0, options={"problem": number})
        names.add(env.compiled.problem.id)
    assert len(names) == count
    drawn = set()
    for seed in range(40):
        env.reset(seed=seed)
        drawn.add(env.compiled.problem.id)
    assert drawn == names
    problem = Problem.classical({"t": {"a": 1.0}}, {})
    env.reset(options={"problem": problem})
    assert env.compiled.problem is problem


def test_a_problem_that_is_chosen_has_drawn_arrivals_too() -> None:
    env = own(make("arrivals"))
    arrivals = []
    for seed in (1, 2, 1):
        env.reset(seed=seed, options={"problem": 0})
        arrivals.append(env.compiled.arrays.workflows["arrival"].tolist())
    assert arrivals[0] == arrivals[2] != arrivals[1]


def test_suites_on_another_cluster_and_of_another_seed() -> None:
    default = own(make("default"))
    small = own(make("default", cluster="mixed_4"))
    assert small.env_spec.limits.devices < default.env_spec.limits.devices
    cluster = load_cluster("mixed_4")
    assert own(make("default", cluster=cluster)).env_spec.limits == small.env_spec.limits
    default.reset(seed=0, options={"problem": 0})
    other = own(make("default", seed=7))
    other.reset(seed=0, options={"problem": 0})
    ids = [env.compiled.problem.id for env in (default, other)]
    assert [one.rpartition("/")[2] for one in ids] == ["s0", "s7"]


# --- ends and infos ---------------------------------------------------------------------------


def test_illegal_actions_in_a_row_truncate() -> None:
    """The observation counts them; a legal action in between starts anew."""
    env = own(make("default", max_invalid_actions=4))
    observation, _ = env.reset(seed=0)
    legal = int(env.action_masks().argmax())
    shares, ends = [], []
    for action in (-1, -1, -1, legal, -1, -1, -1, -1):
        observation, _, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(observation)
        shares.append(observation["invalid_streak"].item())
        ends.append((terminated, truncated))
    assert shares == [0.25, 0.5, 0.75, 0.0, 0.25, 0.5, 0.75, 1.0]
    assert ends == [(False, False)] * 7 + [(False, True)]
    assert info["metrics"]["invalid_actions"] == 7
    assert info["metrics"]["makespan"] == np.inf
    assert env.ended
    with pytest.raises(ResetNeeded):
        env.step(legal)
    kept = env.state()
    env.reset(seed=1)
    env.restore(kept)
    assert env.ended


def test_registered_step_limit() -> None:
    limit = gymnasium.spec(fate_gym.ENV_ID).max_episode_steps
    assert limit is not None
    env = make("default", max_episode_steps=3)
    _, info = env.reset(seed=0)
    for step in range(3):
        _, _, terminated, truncated, info = env.step(int(info["action_mask"].argmax()))
        assert (terminated, truncated) == (False, step == 2)


@every_option
def test_infos_have_one_structure(name: str) -> None:
    """As Minari asks of them, whose buffers are trees."""
    env = own(make(name))
    _, first = env.reset(seed=0)
    steps = play(env, np.random.default_rng(0), illegal=0.1)
    assert len(steps) > 1
    for *_, info in steps:
        assert _structure(info) == _structure(first)
    assert np.isinf(first["metrics"]["makespan"])
    assert steps[-1][3]["metrics"]["makespan"] == pytest.approx(env.time - _first_arrival(env))


def _structure(info: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _structure(one) if isinstance(one, dict) else (type(one), np.shape(one))
        for key, one in info.items()
    }


def _first_arrival(env: WorkflowSchedulingEnv) -> float:
    return float(env.arrays.facts.first_arrival)


# --- specs ------------------------------------------------------------------------------------


def chain_of(seed: int) -> Problem:
    """Return a problem for the test below, by name."""
    return _changing(seed)


def fixed_reference(compiled: Any, seed: int) -> float:
    return 2.0


def halved(rewards: StepRewards, env: Any) -> float:
    return 0.5 * float(rewards.makespan)


@pytest.mark.parametrize(
    "arguments",
    [
        {"problem": load_problem(AGENT)},
        {"problem": [load_problem(AGENT), "smoke", AGENT]},
        {"problem": compile_problem(load_problem(AGENT))},
        {"problem": chain_of, "max_stages": 40},
        {"problem": "smoke", "arrivals": Arrivals(process="poisson", load=0.8)},
        {"problem": "smoke", "cluster": load_cluster("mixed_4"), "seed": 3},
        {"problem": "smoke", "reference": fixed_reference, "reward": ("latency", halved)},
    ],
)
def test_specs_survive_json(arguments: dict[str, Any]) -> None:
    more = {"disable_env_checker": True, "max_episode_steps": 77}
    env = gymnasium.make(fate_gym.ENV_ID, **arguments, **more)
    assert env.spec is not None
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec is not None
    assert again.spec.max_episode_steps == 77
    assert same(env.reset(seed=3)[0], again.reset(seed=3)[0])
    for _ in range(5):
        if own(env).ended:
            break
        action = int(own(env).action_masks().argmax())
        (a, r, *_), (b, q, *_) = env.step(action), again.step(action)
        assert same(a, b)
        assert np.array_equal(r, q)
    envs = gymnasium.make_vec(fate_gym.ENV_ID, 2, **arguments)
    assert EnvSpec.from_json(envs.spec.to_json()).kwargs["num_envs"] == 2


def test_drawn_arrivals() -> None:
    """By the seed, in any order of the workflows; everything else stays as it is."""
    env = own(make("arrivals", problem="agentic", arrivals={"process": "poisson", "load": 0.5}))
    found = []
    for seed in (1, 2, 1):
        env.reset(seed=seed)
        found.append([workflow.arrival for workflow in env.compiled.problem.workflows])
    assert found[0] == found[2] != found[1]
    assert found[0] != sorted(found[0])
    assert np.array_equal(env.compiled.arrays.workflows["arrival"], found[0])
    play(env, np.random.default_rng(0))
    assert_valid(env.trace())


def test_drawn_arrivals_are_of_those_that_follow_nobody() -> None:
    tasks = {"t": {"a": 1.0, "b": 2.0}}
    one = Problem.classical(tasks, {})
    flows = [one.workflows[0].model_copy(update={"id": f"w{i}", "arrival": 50.0}) for i in range(4)]
    flows[0] = flows[0].model_copy(update={"follows": "w3", "think_seconds": 4.0})
    flows[2] = flows[2].model_copy(update={"follows": "w0"})
    problem = one.model_copy(update={"workflows": tuple(flows)})
    env = own(make("default", problem=problem, arrivals={"process": "poisson", "rate_per_s": 1.0}))
    for seed in range(3):
        env.reset(seed=seed)
        arrivals = [workflow.arrival for workflow in env.compiled.problem.workflows]
        assert arrivals[0] == arrivals[2] == 0.0
        assert 0.0 <= min(arrivals[1], arrivals[3]) < 50.0
        assert sorted(env.compiled.arrays.arrivals.tolist()) == [1, 3]
        play(env, np.random.default_rng(seed))
        trace = env.trace()
        assert_valid(trace)
        assert trace.workflow_arrival[0] == pytest.approx(trace.workflow_end[3] + 4.0)
        assert trace.workflow_arrival[2] == trace.workflow_end[0]
    given = {"process": "given", "times": [3.0, 5.0]}
    env = own(make("default", problem=problem, arrivals=given))
    env.reset(seed=0)
    assert sorted(env.compiled.arrays.workflows["arrival"].tolist()) == [0.0, 0.0, 3.0, 5.0]
    with pytest.raises(InputError, match="3 times for 2 workflows that follow no other"):
        make("default", problem=problem, arrivals=given | {"times": [1.0, 2.0, 3.0]})


# --- names ------------------------------------------------------------------------------------


def test_registered_by_importing() -> None:
    """By hand, by Gymnasium's ``module:name``, or by whoever reads the entry point."""
    assert fate_gym.ENV_ID in registry
    program = (
        "import gymnasium\n"
        f"env = gymnasium.make({'fate_gym:' + fate_gym.ENV_ID!r}, problem='smoke')\n"
        f"assert env.spec.id == {fate_gym.ENV_ID!r}\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    (point,) = (p for p in entry_points(group="gymnasium.envs") if p.module.startswith("fate_gym"))
    point.load()()
    assert registry[fate_gym.ENV_ID].entry_point == "fate_gym.env.env:WorkflowSchedulingEnv"


def test_importing_is_light() -> None:
    """Registering brings nothing heavy along; the environment itself what it computes with."""
    program = (
        "import sys, fate_gym\n"
        "heavy = {'torch', 'matplotlib', 'ortools', 'pandas', 'numba', 'scipy', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import fate_gym.env\n"
        "heavy -= {'numba', 'scipy', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- other libraries --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "candidates only", "noise", "several"])
def test_stable_baselines3_checker(name: str) -> None:
    """It warns that 2-D boxes are no images and are flattened; nothing else."""
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your observation .* has an unconventional shape")
        check_env_of_sb3(own(make(name)), warn=True)
