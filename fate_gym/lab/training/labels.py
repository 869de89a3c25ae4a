"""Labelled states to imitate: what a teacher would do where it, or the learner, plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env import WorkflowSchedulingEnv
from fate_gym.env.features import CANDIDATE
from fate_gym.env.spec import MASK
from fate_gym.files import replacing
from fate_gym.lab.training.agent_config import ImitationConfig
from fate_gym.lab.training.lanes import narrow
from fate_gym.lab.training.state import check_stored, damaged
from fate_gym.sim import Assignment, Policy
from policies.learned.agent import Agent
from policies.learned.teacher import RolloutTeacher
from policies.registry import make_policy

TARGETS, RETURNS = "targets", "returns"

Arrays = dict[str, NDArray[Any]]


class Labeller:
    """What the teacher would do: a distribution over the actions of a state.

    Args:
        config: the teacher.
    """

    def __init__(self, config: ImitationConfig) -> None:
        self._config = config
        self._policy: Policy | None = None
        if config.teacher != "rollout":
            self._policy = make_policy(config.teacher, **config.params)

    def begin(self, env: WorkflowSchedulingEnv) -> None:
        """At the start of an episode."""
        if self._policy is None:
            self._rollouts = RolloutTeacher(env.compiled)

    def label(
        self, env: WorkflowSchedulingEnv, observation: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float32] | None:
        """(A,) probabilities; None if no action does what the teacher wants."""
        if self._policy is None:
            return self._soften(env, observation)
        view = env.view()
        # A policy plans whole instants; asked anew after each placement, it has to forget.
        self._policy.reset(view, 0)
        # What a policy says beside that, of evictions and migrations, an agent cannot say.
        wanted = [a for a in self._policy.decide(view) if isinstance(a, Assignment)]
        actions = [env.action_of(a) for a in wanted] if wanted else [env.action_of(None)]
        action = next((a for a in actions if a is not None), None)
        if action is None:
            return None
        label = np.zeros(observation[MASK].size, np.float32)
        label[action] = 1.0
        return label

    def _soften(
        self, env: WorkflowSchedulingEnv, observation: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float32]:
        mask = self._promising(observation)
        values = self._rollouts.values(env.view().fork(), env.arrays, mask)
        best = values.min()
        scale = self._config.temperature * max(best - env.time, 1e-3)
        label = np.exp(-(values - best) / scale)
        return np.asarray(label / label.sum(), np.float32)

    def _promising(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.int8]:
        """The legal actions without placements that end late: a rollout of each would be dear."""
        mask = observation[MASK].copy()
        slots = observation["stages"].shape[0]
        ends = np.where(mask[:-1] > 0, observation["candidates"][:, CANDIDATE.end], np.inf)
        late = np.argsort(ends.reshape(slots, -1), axis=1)[:, self._config.placements :]
        np.put_along_axis(mask[:-1].reshape(slots, -1), late, 0, axis=1)
        return mask


def collect(
    env: WorkflowSchedulingEnv,
    labeller: Labeller,
    *,
    states: int,
    seed: int,
    learner: Agent | None = None,
) -> Arrays:
    """Play whole episodes and label their states.

    Args:
        env: draws its problems at random.
        labeller: the teacher.
        states: at least so many.
        seed: of the draws.
        learner: plays; None: the teacher does.

    Returns:
        Observations by key, ``targets`` (N, A) and ``returns`` (N,) of the rewards that followed;
        in half precision, but for masks and the graph.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[NDArray[Any]]] = {}
    returns: list[float] = []
    while len(returns) < states:
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        labeller.begin(env)
        rewards: list[float] = []
        labelled: list[int] = []
        ended = False
        while not ended:
            label = labeller.label(env, observation)
            if label is not None:
                for key, value in (narrow(observation) | {TARGETS: label}).items():
                    small = value.astype(np.float16) if value.dtype == np.float32 else value
                    rows.setdefault(key, []).append(small)
                labelled.append(len(rewards))
            action = _action(observation, label, learner)
            observation, reward, ended, _, _ = env.step(action)
            rewards.append(float(reward))
        to_go = np.cumsum(rewards[::-1])[::-1]
        returns += to_go[labelled].tolist()
    arrays = {key: np.stack(values) for key, values in rows.items()}
    return arrays | {RETURNS: np.array(returns, np.float32)}


def _action(
    observation: Mapping[str, NDArray[Any]],
    label: NDArray[np.float32] | None,
    learner: Agent | None,
) -> int:
    """What is done in a state: what the learner prefers, or else the teacher."""
    if learner is not None:
        return int(learner.scores(observation).argmax())
    if label is not None:
        return int(label.argmax())
    # Beyond the window: the teacher waits where it may, else takes what is offered.
    return int(np.flatnonzero(observation[MASK])[-1])


def save_states(path: Path, data: Arrays) -> None:
    """Keep labelled states, whole or not at all."""
    with replacing(path) as temporary:
        np.savez(temporary, **data)  # type: ignore[arg-type]


def load_states(path: Path) -> Arrays:
    """Labelled states that were kept. Raises `InputError` if the file is missing or damaged."""
    try:
        check_stored(path, path.stat().st_size)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = dict(archive)
        if TARGETS not in found or RETURNS not in found:
            raise KeyError(TARGETS)
        return found
    # numpy's and zip's own errors are of many kinds.
    except Exception:  # noqa: BLE001
        raise damaged(path, path.parent) from None


def join(parts: Sequence[Arrays]) -> Arrays:
    """All states of several rounds."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
