"""Labelled states to imitate: what a teacher would do where it, or the learner, plays."""

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
from policies.list_scheduling.play import MOST, NEVER, Stop
from policies.registry import make_policy

TARGETS, RETURNS = "targets", "returns"

_COMPARED = 24
"""Problems of a kind by which teachers are compared, at most."""

_LONGER = 4.0
"""Rollouts are played for so many times the horizon, so that what arrives within it can end."""

_MOST_GAIN = 3.0
"""What one state can add to a logit."""

Arrays = dict[str, NDArray[Any]]
Observation = Mapping[str, NDArray[Any]]
Scores = NDArray[np.float32]


class Labeller(Protocol):
    """What should be done in a state: a distribution over its actions."""

    def begin(self, env: WorkflowSchedulingEnv) -> None:
        """At the start of an episode."""
        ...

    def label(
        self, env: WorkflowSchedulingEnv, observation: Observation, scores: Scores | None
    ) -> NDArray[np.float32] | None:
        """(A,) probabilities, or None: the state gets no label. The scores are the learner's."""
        ...


class PolicyLabeller:
    """What a policy would do: of several, the one that does best on problems of this kind.

    By kind and not by problem, so that it can be seen from a state whom to follow.

    Args:
        names: of the policies.
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
        """The teacher with the lowest mean latency ratio; of equal ones the first."""
        problems = EvaluationSet(group)
        ratios = [float(problems.latency_ratios(policy).mean()) for policy in self._teachers]
        return self._teachers[int(np.argmin(ratios))]

    def label(
        self,
        env: WorkflowSchedulingEnv,
        observation: Observation,
        scores: Scores | None,
    ) -> NDArray[np.float32] | None:
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


class RolloutLabeller:
    """What comes of actions when the best list schedule goes on, with the future as it will be.

    Arrivals, noise and failures to come are those of the episode, the same for every action: no
    planner could know them, and a network that learns from many episodes learns their mean.

    Args:
        config: of the expert iteration.
        seed: which states are labelled, and which actions beside those that the learner prefers.
    """

    def __init__(self, config: ExpertIterationConfig, seed: int) -> None:
        self._config = config
        self._rng = np.random.default_rng(seed)

    def begin(self, env: WorkflowSchedulingEnv) -> None:
        self._teacher = RolloutTeacher(env.compiled)
        self._teacher.choose_base(env.arrays.state)
        # Rollouts of a long stream are dear, and its states are much alike.
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
        # What follows another workflow arrives the later, the later that one ends: all counts then.
        p = env.arrays.problem
        to_come = env.arrays.state.arrived_count < p.workflows.size and p.followers.size == 0
        values = self._teacher.values(
            env.arrays.state,
            env.arrays,
            mask,
            arrived_by=env.time + ahead if to_come else np.inf,
            stop=Stop(env.time + _LONGER * ahead, MOST) if to_come else NEVER,
        )
        # Of many workflows, chance moves the sum of latencies by the root of their number.
        chance = math.sqrt(max(1, env.arrays.episode.active))
        costs = values / (self._config.temperature * unit * chance)
        return _improved(costs, observation[MASK], scores)

    def _considered(self, observation: Observation, scores: Scores | None) -> NDArray[np.int8]:
        """Waiting, what the learner prefers, and a few others: a rollout of each would be dear."""
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
    """(A,) the policy of the scores, moved to what costs less: the closest to it for the gain.

    ``exp(score - cost)`` where the cost is known, relative to the mean cost of the policy, is the
    best policy at that price of Kullback-Leibler divergence (MPO: Abdolmaleki et al. 2018). Chance
    in the costs cancels out over states, where picking the cheapest would follow it.
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
        env: draws its problems at random.
        labeller: the teacher.
        states: at least so many.
        seed: of the draws.
        learner: plays; None: the teacher does.
        explore: share of actions that are random.
        discount: of the rewards that followed, a step.

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
    """(n,) the discounted sum of each reward and those after it."""
    sums = np.empty(len(rewards))
    total = 0.0
    for i in reversed(range(len(rewards))):
        total = rewards[i] + discount * total
        sums[i] = total
    return sums


def _action(
    observation: Observation, label: NDArray[np.float32] | None, scores: Scores | None
) -> int:
    """What is done in a state: what the learner prefers, or else the teacher."""
    if scores is not None:
        return int(scores.argmax())
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
