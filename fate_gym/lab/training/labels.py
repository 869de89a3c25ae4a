"""Labelled states: what a teacher would do in states that it or the learner visits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fate_gym.env import WorkflowSchedulingEnv
from fate_gym.env.features import CANDIDATE
from fate_gym.env.spec import MASK
from fate_gym.files import replacing
from fate_gym.lab.training.agent_config import ExpertIterationConfig
from fate_gym.lab.training.evaluation import EvaluationSet
from fate_gym.lab.training.lanes import narrow
from fate_gym.lab.training.state import check_stored, damaged
from fate_gym.sim import Assignment, CompiledProblem, Policy
from policies.learned.agent import Agent
from policies.learned.teacher import RolloutTeacher
from policies.registry import make_policy

TARGETS, RETURNS = "targets", "returns"

_COMPARED = 24
"""Maximum number of problems of a kind on which teachers are compared."""

_LONGER = 4.0
"""Length of rollouts in horizons, so that workflows that arrive within the first one can end."""

_MOST_GAIN = 3.0
"""Largest change of a logit by one label."""

Arrays = dict[str, NDArray[Any]]
Observation = Mapping[str, NDArray[Any]]
Scores = NDArray[np.float32]


class Labeller(Protocol):
    """Labels a state with a distribution over its actions: what should be done there."""

    def begin(self, env: WorkflowSchedulingEnv) -> None:
        """Prepare for the episode that ``env`` has just begun."""
        ...

    def label(
        self, env: WorkflowSchedulingEnv, observation: Observation, scores: Scores | None
    ) -> NDArray[np.float32] | None:
        """Return (A,) probabilities, or None for no label; ``scores`` are the learner's, if any."""
        ...


class PolicyLabeller:
    """Labels states with the action of a policy, the best of several on this kind of problem.

    The best policy is chosen per kind of problem, not per problem, so that the learner can tell
    from a state which policy to follow.

    Args:
        names: names of the policies.
        groups: problems by kind.
    """

    def __init__(
        self, names: Sequence[str], groups: Sequence[Sequence[CompiledProblem]] = ()
    ) -> None:
        self._teachers = [make_policy(name) for name in names]
        self._best: dict[int, Policy] = {}
        for group in groups if len(names) > 1 else ():
            best = self._best_on(group[:_COMPARED])
            self._best |= {id(compiled): best for compiled in group}

    def begin(self, env: WorkflowSchedulingEnv) -> None:
        self._policy = self._best.get(id(env.compiled), self._teachers[0])

    def _best_on(self, group: Sequence[CompiledProblem]) -> Policy:
        """Return the teacher with the lowest mean latency ratio, the first of equal ones."""
        problems = EvaluationSet([group])
        ratios = [problems.mean_ratio(policy) for policy in self._teachers]
        return self._teachers[int(np.argmin(ratios))]

    def label(
        self,
        env: WorkflowSchedulingEnv,
        observation: Observation,
        scores: Scores | None,
    ) -> NDArray[np.float32] | None:
        view = env.view()
        # A policy plans a whole instant, but here it is asked after each placement: reset it.
        self._policy.reset(view, 0)
        # Agents have no actions for a policy's other decisions (evictions, migrations).
        wanted = [a for a in self._policy.decide(view) if isinstance(a, Assignment)]
        actions = [env.action_of(a) for a in wanted] if wanted else [env.action_of(None)]
        action = next((a for a in actions if a is not None), None)
        if action is None:
            return None
        label = np.zeros(observation[MASK].size, np.float32)
        label[action] = 1.0
        return label


class RolloutLabeller:
    """Labels states by rollouts: what each action costs if the best list schedule continues.

    Rollouts use the episode's own arrivals, noise and failures, the same for every action. No
    planner could know them, but a network that learns from many episodes learns their mean.

    Args:
        config: configuration of the expert iteration.
        seed: seed of the choice of labelled states and of random actions to roll out.
    """

    def __init__(self, config: ExpertIterationConfig, seed: int) -> None:
        self._config = config
        self._rng = np.random.default_rng(seed)

    def begin(self, env: WorkflowSchedulingEnv) -> None:
        self._teacher = RolloutTeacher(env.compiled)
        self._teacher.choose_base(env.arrays.state)
        # Rollouts of a long stream are expensive, and its states are similar.
        self._share = min(self._config.share, self._config.an_episode / env.compiled.shape[0])

    def label(
        self, env: WorkflowSchedulingEnv, observation: Observation, scores: Scores | None
    ) -> NDArray[np.float32] | None:
        if self._rng.random() >= self._share:
            return None
        mask = self._considered(observation, scores)
        if mask.sum() < 2:
            return None
        unit = max(1e-9, float(env.arrays.facts.ideal.mean()))
        ahead = self._config.horizon * unit
        # Workflows that follow others arrive when those end, so all of them have to count.
        p = env.arrays.problem
        to_come = env.arrays.state.arrived_count < p.workflows.size and p.followers.size == 0
        values = self._teacher.values(
            env.arrays.state,
            env.arrays,
            mask,
            arrived_by=env.time + ahead if to_come else np.inf,
            until=env.time + _LONGER * ahead if to_come else np.inf,
        )
        # The noise in the sum of latencies grows with the root of the number of workflows.
        chance = math.sqrt(max(1, env.arrays.episode.active))
        costs = values / (self._config.temperature * unit * chance)
        return _improved(costs, observation[MASK], scores)

    def _considered(self, observation: Observation, scores: Scores | None) -> NDArray[np.int8]:
        """Return (A,) 1 for actions to roll out: waiting, preferred ones, a few random ones."""
        mask = observation[MASK]
        preference = np.full(mask.size, -np.inf)
        legal = np.flatnonzero(mask)
        if scores is not None:
            preference[legal] = scores[legal]
        else:
            ends = observation["candidates"][:, CANDIDATE.behind]
            preference[legal[legal < ends.size]] = -ends[legal[legal < ends.size]]
        others = self._rng.random(legal.size)
        considered = np.zeros(mask.size, np.int8)
        considered[-1] = mask[-1]
        count = self._config.actions - self._config.others
        considered[np.argsort(-preference, kind="stable")[:count]] = 1
        considered[legal[np.argsort(others)[: self._config.others]]] = 1
        return considered * (mask > 0)


def _improved(
    costs: NDArray[np.float64], mask: NDArray[Any], scores: Scores | None
) -> NDArray[np.float32]:
    """Return (A,) the policy of the scores, moved towards actions of lower cost.

    Where the cost is known, relative to the policy's mean cost, probabilities are proportional to
    ``exp(score - cost)``: the optimal policy at that price of Kullback-Leibler divergence (MPO:
    Abdolmaleki et al. 2018). Noise in the costs cancels out over states; labels that picked the
    cheapest action would follow it.
    """
    known = np.isfinite(costs)
    logits = np.where(mask > 0, 0.0, -np.inf)
    if scores is not None:
        logits += np.where(mask > 0, scores, 0.0)
    else:
        logits[~known] = -np.inf
    weights = np.exp(logits[known] - logits[known].max())
    gains = np.average(costs[known], weights=weights) - costs[known]
    logits[known] += np.clip(gains, -_MOST_GAIN, _MOST_GAIN)
    policy = np.exp(logits - logits.max())
    return np.asarray(policy / policy.sum(), np.float32)


def collect(
    env: WorkflowSchedulingEnv,
    labeller: Labeller,
    *,
    states: int,
    seed: int,
    learner: Agent | None = None,
    explore: float = 0.0,
    discount: float = 1.0,
) -> Arrays:
    """Play whole episodes and label their states.

    Args:
        env: environment that draws its problems at random.
        labeller: the teacher.
        states: minimum number of labelled states.
        seed: seed of problems and random actions.
        learner: agent that plays; None: the teacher plays.
        explore: probability of a random action.
        discount: discount of the rewards per step.

    Returns:
        Observations by key, ``targets`` (N, A), and ``returns`` (N,), the discounted sums of the
        rewards that followed. Observations and targets of type float32 become float16.
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
            scores = None if learner is None else learner.scores(observation)
            label = labeller.label(env, observation, scores)
            if label is not None:
                for key, value in (narrow(observation) | {TARGETS: label}).items():
                    small = value.astype(np.float16) if value.dtype == np.float32 else value
                    rows.setdefault(key, []).append(small)
                labelled.append(len(rewards))
            action = _action(observation, label, scores)
            if explore > 0.0 and rng.random() < explore:
                action = int(rng.choice(np.flatnonzero(observation[MASK])))
            observation, reward, ended, _, _ = env.step(action)
            rewards.append(float(reward))
        returns += _to_go(rewards, discount)[labelled].tolist()
    arrays = {key: np.stack(values) for key, values in rows.items()}
    return arrays | {RETURNS: np.array(returns, np.float32)}


def _to_go(rewards: Sequence[float], discount: float) -> NDArray[np.float64]:
    """Return (n,) the discounted sum of each reward and those after it."""
    sums = np.empty(len(rewards))
    total = 0.0
    for i in reversed(range(len(rewards))):
        total = rewards[i] + discount * total
        sums[i] = total
    return sums


def _action(
    observation: Observation, label: NDArray[np.float32] | None, scores: Scores | None
) -> int:
    """Return the action to play: the learner's best, or without a learner the teacher's."""
    if scores is not None:
        return int(scores.argmax())
    if label is not None:
        return int(label.argmax())
    # The teacher's choice is outside the window: wait if legal, else take a legal action.
    return int(np.flatnonzero(observation[MASK])[-1])


def save_states(path: Path, data: Arrays) -> None:
    """Write labelled states atomically."""
    with replacing(path) as temporary:
        np.savez(temporary, **data)  # type: ignore[arg-type]


def load_states(path: Path) -> Arrays:
    """Read labelled states; raise `InputError` if the file is missing or damaged."""
    try:
        check_stored(path, path.stat().st_size)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = dict(archive)
        if TARGETS not in found or RETURNS not in found:
            raise KeyError(TARGETS)
        return found
    # NumPy and zipfile raise errors of many kinds.
    except Exception:  # noqa: BLE001
        raise damaged(path, path.parent) from None


def join(parts: Sequence[Arrays]) -> Arrays:
    """Concatenate the states of several rounds."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
