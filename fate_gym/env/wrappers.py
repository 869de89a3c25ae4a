"""Wrappers that change observations or rewards of the environment.

Where Gymnasium has a wrapper, use that: ``FilterObservation(env, ["candidates", "action_mask"])``
shows candidates alone (as does the argument ``observation=("candidates",)``), ``NormalizeReward``
and ``NormalizeObservation`` keep running statistics, ``RecordVideo`` records.
"""

from __future__ import annotations

from typing import Any, SupportsFloat, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from fate_gym.env.env import WorkflowSchedulingEnv
from fate_gym.env.episode import Reference
from fate_gym.env.faults import bad
from fate_gym.env.output import Observation
from fate_gym.env.spec import MASK, STREAK
from fate_gym.env.vector import WorkflowSchedulingVectorEnv

Env = gymnasium.Env[Observation, Any]


class FlatObservation(
    gymnasium.ObservationWrapper[NDArray[np.float32], Any, Observation], RecordConstructorArgs
):
    """All features in one (n,) float32 vector; the mask is in the info and `action_masks`.

    The groups follow one another in the order of the environment's keys, each row by row.
    """

    def __init__(self, env: Env) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        self._boxes = _features(env.observation_space, "FlatObservation")
        self.observation_space = cast("spaces.Space[NDArray[np.float32]]", _flat(self._boxes))

    def observation(self, observation: Observation) -> NDArray[np.float32]:
        return _concatenate(observation, self._boxes)


# Gymnasium 1.2's vector wrappers have no type parameters.
class FlatVectorObservation(VectorWrapper):
    """`FlatObservation` for the native vector environment: (B, n) float32, any autoreset mode.

    ``action_masks()`` returns the masks. For other changes of the native environment's observations
    use Gymnasium's vector wrappers.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        single = env.single_observation_space
        self._boxes = _features(single, "FlatVectorObservation")
        flat = _flat(self._boxes)
        self.single_observation_space = cast("spaces.Space[Any]", flat)
        self.observation_space = batch_space(flat, env.num_envs)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        observation, infos = self.env.reset(seed=seed, options=options)
        return _concatenate(observation, self._boxes, self.num_envs), infos

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], Any, Any, Any, dict[str, Any]]:
        observation, rewards, terminated, truncated, infos = self.env.step(actions)
        for i in np.flatnonzero(infos.get("_final_obs", ())).tolist():
            infos["final_obs"][i] = _concatenate(infos["final_obs"][i], self._boxes)
        flat = _concatenate(observation, self._boxes, self.num_envs)
        return flat, rewards, terminated, truncated, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the (B, S P + 1) mask of legal actions."""
        own = self.unwrapped
        assert isinstance(own, WorkflowSchedulingVectorEnv)
        return own.action_masks()


class MaskedObservation(
    gymnasium.ObservationWrapper[Observation, Any, Observation], RecordConstructorArgs
):
    """``{"action_mask", "observations"}``, flat float32, as RLlib's masking module expects."""

    def __init__(self, env: Env) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        self._boxes = _features(env.observation_space, "MaskedObservation")
        actions = env.action_space
        assert isinstance(actions, spaces.Discrete)
        mask = spaces.Box(0.0, 1.0, (int(actions.n),), np.float32)
        parts: dict[str, Any] = {MASK: mask, "observations": _flat(self._boxes)}
        self.observation_space = cast("spaces.Space[Observation]", spaces.Dict(parts))

    def observation(self, observation: Observation) -> Observation:
        return {
            MASK: observation[MASK].astype(np.float32),
            "observations": _concatenate(observation, self._boxes),
        }


class GraphObservation(
    gymnasium.ObservationWrapper[dict[str, Any], Any, Observation], RecordConstructorArgs
):
    """The stages that have arrived, as a `gymnasium.spaces.GraphInstance` under ``graph``.

    Replaces ``dag_nodes`` and ``dag_edges``, without their empty rows. Nodes keep the order of the
    problem; edges go from parent to child and have weight 1 (the space requires edge features). A
    node's feature ``slot`` is its place in the window.
    """

    def __init__(self, env: Env) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        boxes = _dict_space(env.observation_space, "GraphObservation")
        if "dag_nodes" not in boxes.spaces:
            fault = "the environment does not show the graph"
            raise bad("GraphObservation", "dag", fault, "make the environment with dag=True")
        nodes = boxes["dag_nodes"]
        assert isinstance(nodes, spaces.Box)
        kept = {key: box for key, box in boxes.items() if not key.startswith("dag_")}
        row = spaces.Box(nodes.low[0], nodes.high[0], nodes.shape[1:], np.float32)
        weight = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Dict(kept | {"graph": spaces.Graph(row, weight)})

    def observation(self, observation: Observation) -> dict[str, Any]:
        nodes, edges = observation["dag_nodes"], observation["dag_edges"]
        here = nodes[:, 0] > 0
        number = np.cumsum(here) - 1
        links = number[edges[edges[:, 0] >= 0]]
        weights = np.ones((len(links), 1), np.float32)
        graph = spaces.GraphInstance(nodes[here], weights, links.astype(np.int32))
        kept = {key: value for key, value in observation.items() if not key.startswith("dag_")}
        return kept | {"graph": graph}


class ReferenceReward(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Rewards in units of another policy's makespan on the same problem and noise.

    With ``reward="makespan"`` an episode returns minus the makespan ratio: -1 when it is as good as
    the reference. The penalty for illegal actions is not scaled.

    Args:
        env: the environment.
        reference: function of (compiled problem, noise seed) to seconds; it is called once per
            episode, so it should cache its results.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], reference: Reference) -> None:
        RecordConstructorArgs.__init__(self, reference=reference)
        gymnasium.Wrapper.__init__(self, env)
        self._reference = reference
        self._factor = 1.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        result = self.env.reset(seed=seed, options=options)
        own = unwrapped(self.env, "ReferenceReward")
        self._factor = own.reward_unit / self._reference(own.compiled, own.noise_seed)
        return result

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if not info["invalid_action"]:
            reward = float(reward) * self._factor
        return observation, reward, terminated, truncated, info


def unwrapped(env: gymnasium.Env[Any, Any], user: str) -> WorkflowSchedulingEnv:
    """Return the environment inside its wrappers.

    Raises:
        InputError: naming ``user``, if it is not a fate_gym environment.
    """
    own = env.unwrapped
    if not isinstance(own, WorkflowSchedulingEnv):
        fault = f"a {type(own).__name__} is not a fate_gym environment"
        raise bad(user, None, fault, "give one, wrapped or not")
    return own


def _dict_space(space: spaces.Space[Any], wrapper: str) -> spaces.Dict:
    if not isinstance(space, spaces.Dict) or MASK not in space.spaces:
        fault = "the observation is not that of a fate_gym environment"
        remedy = "wrap the environment before others change its observations"
        raise bad(wrapper, None, fault, remedy)
    return space


def _features(space: spaces.Space[Any], wrapper: str) -> dict[str, spaces.Box]:
    """Return the boxes of the keys other than the mask, in order."""
    boxes: dict[str, spaces.Box] = {}
    for key, box in _dict_space(space, wrapper).items():
        if key == MASK:
            continue
        if not isinstance(box, spaces.Box) or box.dtype != np.float32:
            fault = f"{key!r} has no place in a vector of features"
            raise bad(wrapper, "dag", fault, "make the environment with dag=False")
        boxes[key] = box
    if boxes.keys() <= {STREAK}:
        raise bad(wrapper, "observation", "there is nothing to show", "show a group")
    return boxes


def _flat(boxes: dict[str, spaces.Box]) -> spaces.Box:
    low = np.concatenate([box.low.reshape(-1) for box in boxes.values()])
    high = np.concatenate([box.high.reshape(-1) for box in boxes.values()])
    return spaces.Box(low, high, dtype=np.float32)


def _concatenate(
    observation: Observation, boxes: dict[str, spaces.Box], lanes: int | None = None
) -> NDArray[np.float32]:
    lead = () if lanes is None else (lanes,)
    return np.concatenate([observation[key].reshape(*lead, -1) for key in boxes], axis=-1)
