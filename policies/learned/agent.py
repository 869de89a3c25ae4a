"""Agents: the networks of checkpoints, which map observations to scores of actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.faults import bad
from fate_gym.env.options import EnvOptions
from fate_gym.env.spec import MASK, Limits
from fate_gym.errors import InputError
from fate_gym.kernel.placements import candidate_count
from policies.learned import pointer
from policies.learned.checkpoint import Checkpoint

Observation = Mapping[str, NDArray[Any]]


class Agent(Protocol):
    """What a policy needs of an agent: environment options, fixed sizes (or None), and scores."""

    options: EnvOptions
    limits: Limits | None

    def scores(self, observation: Observation) -> NDArray[np.float32]:
        """Return (A,) scores of an observation, -inf for illegal actions; (B, A) for a batch."""
        ...


class PointerAgent:
    """The pointer network, compiled; does not need torch.

    Args:
        options: options of the environment.
        weights: parameters by name.

    Raises:
        InputError: the parameters are not those of a pointer network.
    """

    limits: Limits | None = None

    def __init__(self, options: EnvOptions, weights: Mapping[str, NDArray[Any]]) -> None:
        self.options = options
        try:
            self._weights = pointer.read_weights(weights)
        except (KeyError, IndexError, ValueError) as error:
            raise _foreign(error) from None
        self._activations: pointer.Activations | None = None

    def scores(self, observation: Observation) -> NDArray[np.float32]:
        if observation[MASK].ndim == 2:
            lanes = range(observation[MASK].shape[0])
            return np.stack([self._one({k: v[i] for k, v in observation.items()}) for i in lanes])
        return self._one(observation)

    def _one(self, observation: Observation) -> NDArray[np.float32]:
        stages = np.take(observation["stages"], self._weights.stages, axis=1)
        devices = np.take(observation["devices"], self._weights.devices, axis=1)
        mask = observation[MASK]
        sizes, a = (len(stages), len(devices), mask.size), self._activations
        if a is None or (len(a.stage), len(a.device), a.scores.size) != sizes:
            a = self._activations = pointer.new_activations(self._weights, *sizes)
        candidates, context = observation["candidates"], observation["globals"]
        pointer.score_actions(self._weights, a, stages, devices, candidates, context, mask)
        scores: NDArray[np.float32] = a.scores.copy()
        return scores


class TorchAgent:
    """Any of the networks, run by torch.

    Args:
        options: options of the environment.
        network: a module of `policies.learned.networks`.
        limits: sizes that the network requires; None: any.
    """

    def __init__(self, options: EnvOptions, network: Any, limits: Limits | None) -> None:
        self.options, self.limits = options, limits
        self._network = network

    def scores(self, observation: Observation) -> NDArray[np.float32]:
        import torch

        alone = observation[MASK].ndim == 1
        with torch.no_grad():
            batch = {
                key: torch.from_numpy(value[None] if alone else value)
                for key, value in observation.items()
            }
            scores = self._network(batch)[0].numpy()
        scores = np.where(batch[MASK].numpy() > 0, scores, np.float32(-np.inf))
        return scores[0] if alone else scores


def make_agent(checkpoint: Checkpoint) -> Agent:
    """Make the agent of a checkpoint.

    Raises:
        InputError: the weights do not fit the network, or the network needs the extra ``rl``.
    """
    facts = checkpoint.facts
    if facts.network.kind == "pointer":
        return PointerAgent(facts.env, checkpoint.weights)
    try:
        import torch

        from policies.learned.networks import make_network
    except ImportError:
        raise missing_rl(f"a network of kind {facts.network.kind!r}") from None

    limits = None
    if facts.network.kind == "mlp":
        sizes = facts.sizes
        limits = Limits(sizes.devices, sizes.models, sizes.stages, sizes.edges)
    positions = candidate_count(facts.sizes.devices, facts.env.max_shards)
    # Allocates no memory: the network takes over the loaded weights.
    with torch.device("meta"):
        network = make_network(
            facts.network.kind,
            slots=facts.env.window,
            devices=facts.sizes.devices,
            actions=facts.env.window * positions + 1,
            **facts.network.params,
        )
    try:
        weights = {name: torch.from_numpy(array) for name, array in checkpoint.weights.items()}
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise _foreign(error) from None
    return TorchAgent(facts.env, network.eval(), limits)


def missing_rl(what: str) -> InputError:
    """Return the error that ``what`` needs torch, Stable-Baselines3 and sb3-contrib."""
    return InputError(
        f"{what} needs the packages of the extra 'rl', which are not installed",
        remedy="pip install 'fate-gym[rl]'",
    )


def _foreign(error: Exception) -> InputError:
    first = str(error).strip().splitlines()
    fault = f"the weights are not those of the network ({' '.join(first[:2])})"
    return bad("checkpoint", "network", fault, "copy weights.npz and checkpoint.json together")
