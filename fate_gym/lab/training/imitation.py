"""Labelled states to imitate, and the supervised learning on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env import WorkflowSchedulingEnv
from fate_gym.env.features import CANDIDATE_END
from fate_gym.env.spec import MASK, EnvOptions, Limits
from fate_gym.lab.training.config import ImitationConfig
from fate_gym.lab.training.lanes import narrow
from fate_gym.sim import Assignment, CompiledProblem, Policy
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
        values = self._rollouts.values(env.view().fork(), env.frame, mask)
        best = values.min()
        scale = self._config.temperature * max(best - env.time, 1e-3)
        label = np.exp(-(values - best) / scale)
        return np.asarray(label / label.sum(), np.float32)

    def _promising(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.int8]:
        """The legal actions without placements that end late: a rollout of each would be dear."""
        mask = observation[MASK].copy()
        slots = observation["stages"].shape[0]
        ends = np.where(mask[:-1] > 0, observation["candidates"][:, CANDIDATE_END], np.inf)
        late = np.argsort(ends.reshape(slots, -1), axis=1)[:, self._config.placements :]
        np.put_along_axis(mask[:-1].reshape(slots, -1), late, 0, axis=1)
        return mask


def collect(
    problems: Sequence[CompiledProblem],
    options: EnvOptions,
    limits: Limits,
    labeller: Labeller,
    *,
    states: int,
    seed: int,
    learner: Agent | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Arrays:
    """Play whole episodes and label their states.

    Args:
        problems: drawn at random.
        options: of the environment.
        limits: sizes of the observations.
        labeller: the teacher.
        states: at least so many.
        seed: of the draws.
        learner: plays; None: the teacher does.
        tell: called with the number of states so far.

    Returns:
        Observations by key, ``targets`` (N, A) and ``returns`` (N,) of the rewards that followed;
        in half precision, but for masks and the graph.
    """
    given = options.model_dump() | {
        "max_devices": limits.devices,
        "max_models": max(1, limits.models),
        "max_stages": limits.stages,
        "max_edges": max(1, limits.edges),
    }
    env = WorkflowSchedulingEnv(list(problems), record=False, **given)
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
            mask = observation[MASK]
            label = labeller.label(env, observation)
            if label is not None:
                for key, value in (narrow(observation) | {TARGETS: label}).items():
                    small = value.astype(np.float16) if value.dtype == np.float32 else value
                    rows.setdefault(key, []).append(small)
                labelled.append(len(rewards))
            if label is not None and learner is None:
                action = int(label.argmax())
            elif learner is not None:
                action = int(learner.scores(observation).argmax())
            else:
                # Beyond the window: the teacher waits where it may, else takes what is offered.
                action = int(np.flatnonzero(mask)[-1])
            observation, reward, ended, _, _ = env.step(action)
            rewards.append(float(reward))
        to_go = np.cumsum(rewards[::-1])[::-1]
        returns += to_go[labelled].tolist()
        tell(len(returns))
    arrays = {key: np.stack(values) for key, values in rows.items()}
    return arrays | {RETURNS: np.array(returns, np.float32)}


def imitate(
    policy: Any, data: Arrays, config: ImitationConfig, *, seed: int, rate: float
) -> dict[str, float]:
    """One epoch of supervised learning; returns its mean losses and agreement.

    Args:
        policy: a `policies.learned.sb3.CandidatePolicy`.
        data: from `collect`.
        config: batch size.
        seed: of the order.
        rate: learning rate.
    """
    import torch

    for group in policy.optimizer.param_groups:
        group["lr"] = rate
    policy.set_training_mode(True)
    order = np.random.default_rng(seed).permutation(data[RETURNS].size)
    sums = np.zeros(4)
    network = policy.features_extractor.network
    for start in range(0, order.size, config.batch_size):
        chosen = order[start : start + config.batch_size]
        batch = {
            key: torch.from_numpy(value[chosen].astype(np.float32)) for key, value in data.items()
        }
        scores, summary = network(batch)
        scores = scores.masked_fill(batch[MASK] < 0.5, -1e9)
        loss = -(batch[TARGETS] * scores.log_softmax(1)).sum(1).mean()
        values = policy.value_net(summary).squeeze(1)
        value_loss = torch.nn.functional.mse_loss(values, batch[RETURNS])
        policy.optimizer.zero_grad()
        (loss + 0.5 * value_loss).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        policy.optimizer.step()
        best = batch[TARGETS].gather(1, scores.argmax(1, keepdim=True)).squeeze(1)
        agrees = (best >= batch[TARGETS].amax(1)).float().mean()
        sums += np.array([loss.item(), value_loss.item(), agrees.item(), 1.0]) * chosen.size
    names = ("loss", "value_loss", "agreement")
    return {f"imitation/{name}": float(x / sums[3]) for name, x in zip(names, sums, strict=False)}


def save_data(path: Path, data: Arrays) -> None:
    """Keep labelled states, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp.npz")
    np.savez(temporary, **data)  # type: ignore[arg-type]
    temporary.replace(path)


def load_data(path: Path) -> Arrays:
    """Labelled states that were kept."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def join(parts: Sequence[Arrays]) -> Arrays:
    """All states of several rounds."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


__all__ = ["Labeller", "collect", "imitate", "join", "load_data", "save_data"]
