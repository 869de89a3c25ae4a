"""Episodes of random actions, and digests of everything that an agent saw in them.

    python -m tests.env.recorded

records new digests. Do this only after a change that is meant to change observations or rewards.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env import WorkflowSchedulingEnv, WorkflowSchedulingVectorEnv
from fate_gym.problem import Problem
from fate_gym.workloads import build_suite, load_cluster, load_suite
from tests.env.episodes import play
from tests.golden.cases import CASES, digest

DIGESTS = Path(__file__).parent / "digests.json"
STEPS, LANES = 150, 5

EPISODES: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("quick", {}),
    "graph, shaped": ("quick", {"dag": True, "reward": "shaped", "max_shards": 4}),
    "latency": ("stress", {"reward": "latency", "window": 3}),
    "discount": ("prefix_reuse", {"reward": "shaped", "discount": 0.97, "time_scale": 1.0}),
    "arrivals": ("agentic_test", {"arrivals": {"process": "poisson", "rate_per_s": 0.3}}),
    "noise": ("prefix_reuse", {"uncertainty": 0.4, "length_uncertainty": 0.3, "dag": True}),
    "failures": ("uncertain_test", {"reward": "shaped", "dag": True}),
    "choices": ("uncertain_test", {"reward": "latency", "dag": True, "window": 4}),
    "contention": ("contention", {"reward": "shaped", "max_shards": 5, "uncertainty": 0.2}),
    "eager": ("quick", {"uncertainty": 0.3}),
    "classical": ("classical", {"max_shards": 1, "max_devices": 9, "max_models": 3}),
}
"""By name: a case of `tests.golden`, and options of the environment."""
MODES = ("NextStep", "SameStep")


def problem_of(name: str) -> Problem:
    """Return the problem of an episode."""
    suite = EPISODES[name][0]
    if name == "choices":
        spec = load_suite(suite)
        problems = build_suite(spec, load_cluster(spec.cluster), 0)
        return next(one for one in problems if one.workflows[0].choices)
    problem = CASES[suite](0)
    if name != "eager":
        return problem
    options = problem.options.model_copy(update={"eager_transfers": True})
    return problem.model_copy(update={"options": options})


def episode_digest(name: str) -> str:
    """Digest an episode of the single environment, some of its actions illegal, and its trace."""
    env = WorkflowSchedulingEnv(problem_of(name), **EPISODES[name][1])
    observation, info = env.reset(seed=1)
    found = hashlib.sha256()
    _add(found, observation, np.array([env.reward_unit, info["time"]]))
    for observation, reward, ended, info in play(env, np.random.default_rng(2), illegal=0.05):
        _add(found, observation, np.array([reward, ended, info["time"], info["invalid_action"]]))
    metrics = info["metrics"]
    _add(found, {}, np.array([float(metrics[name]) for name in sorted(metrics)]))
    return f"{found.hexdigest()[:16]} {digest(env.trace())}"


def vector_digest(mode: str) -> str:
    """Digest some steps of a vector environment whose lanes play different problems."""
    problems = [problem_of(name) for name in ("failures", "choices", "eager", "contention")]
    envs = WorkflowSchedulingVectorEnv(
        LANES, problems, autoreset_mode=mode, dag=True, reward="shaped", window=5
    )
    rng = np.random.default_rng(3)
    envs.reset(seed=4)
    found = hashlib.sha256()
    for _ in range(STEPS):
        actions = np.array([_draw(mask, rng) for mask in envs.action_masks()])
        observation, rewards, ended, _, infos = envs.step(actions)
        _add(found, observation, rewards, ended, infos["time"], infos["invalid_action"])
        for i in np.flatnonzero(ended).tolist() if "final_obs" in infos else ():
            _add(found, infos["final_obs"][i])
    return found.hexdigest()[:16]


def _draw(mask: NDArray[np.bool_], rng: np.random.Generator) -> int:
    """Draw a legal action; sometimes, or if none is legal, any number."""
    if not mask.any() or rng.random() < 0.05:
        return int(rng.integers(-1, mask.size + 1))
    return int(rng.choice(np.flatnonzero(mask)))


def _add(found: Any, observation: dict[str, NDArray[Any]], *values: NDArray[Any]) -> None:
    for key in sorted(observation):
        found.update(observation[key].tobytes())
    for value in values:
        found.update(value.astype(np.float64).tobytes())


def main() -> None:
    """Record all digests."""
    recorded = {name: episode_digest(name) for name in EPISODES}
    recorded |= {mode: vector_digest(mode) for mode in MODES}
    DIGESTS.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
