"""Many environments that step in one compiled call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from fate_gym.compiled import plain
from fate_gym.env import play
from fate_gym.env.env import Observation, Reference, choose_episode, episode_metrics
from fate_gym.env.layout import FRAME_HEAD
from fate_gym.env.observation import observe
from fate_gym.env.source import Instance, ProblemSource, Source
from fate_gym.env.spec import MASK, Spec, parse_options
from fate_gym.errors import IllegalActionError, InputError
from fate_gym.sim.layout import NO_LOG, Buffer, ProblemView, StateView, state_view

_ALIGNMENT = 64
_METADATA: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}


class WorkflowSchedulingVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """B independent `WorkflowSchedulingEnv`, stepped together.

    Lane i does what a single environment made with the same arguments does: the same problems,
    noise, observations and rewards when both are reset with the same seed. Lanes play different
    problems. Infos are batched as Gymnasium's vector environments do it: an array for each key,
    and a mask ``_key`` of the lanes that have it.

    Args:
        num_envs: B.
        problem: as for the single environment.
        autoreset_mode: what happens to a lane whose episode has ended; a member or value of
            `gymnasium.vector.AutoresetMode`. NextStep: the next step resets it, whatever its
            action. SameStep: it is reset at once; ``infos["final_obs"]`` and
            ``infos["final_info"]`` have the end. Disabled: reset it yourself, with
            ``reset(options={"reset_mask": ...})``.
        reference: as for the single environment.
        options: as for the single environment.

    Raises:
        InputError: bad arguments.
    """

    metadata = _METADATA

    def __init__(
        self,
        num_envs: int = 1,
        problem: ProblemSource = "quick",
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: None = None,
        reference: Reference | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if num_envs < 1:
            raise _bad("num_envs", f"{num_envs} environments", "make one or more")
        if render_mode is not None:
            raise _bad("render_mode", "a batch cannot be drawn", "render a single environment")
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            names = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise _bad(
                "autoreset_mode", f"unknown mode {autoreset_mode!r}", f"choose one of {names}"
            ) from None
        self.metadata = _METADATA | {"autoreset_mode": self.autoreset_mode}
        self._options = parse_options(options)
        self.source = Source(problem, self._options)
        self.env_spec: Spec = self.source.spec
        self.num_envs = num_envs
        self.single_observation_space = self.env_spec.observation_space()
        self.single_action_space = self.env_spec.action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._reference = reference
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._instances: list[Instance | None] = [None] * num_envs
        # Lanes that play the same problem share its place in the arenas of problems and facts.
        self._homes = np.zeros(num_envs, np.int64)
        self._places: dict[Instance, int] = {}
        self._guests = [0] * num_envs
        self._free = list(range(num_envs))
        self._heads = [self.env_spec.head(i, num_envs) for i in range(num_envs)]
        self._unstarted = True
        self._seeds = [0] * num_envs
        self._strides = np.zeros(4, np.int64)
        self._arenas = [np.zeros(0, np.uint8)] * 4
        self._ended = np.zeros(num_envs, np.bool_)
        # What agents hold is theirs to write to: this is the environment's own.
        self._mask = np.zeros((num_envs, self.env_spec.actions), np.bool_)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode in every lane, or in those of ``options["reset_mask"]``.

        Args:
            seed: lane i takes ``seed + i``; or a seed for each lane.
            options: as for the single environment, and a list of B problems is one for each
                lane; ``reset_mask`` is a (B,) bool array.

        Raises:
            InputError: an unknown option, or a problem that does not fit the spaces.
        """
        given = dict(options or {})
        chosen = self._reset_mask(given.pop("reset_mask", None))
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
            if len(seeds) != self.num_envs:
                raise _bad("seed", f"{len(seeds)} seeds", f"give one, or {self.num_envs}")
        episodes = []
        for i, lane in zip(
            np.flatnonzero(chosen).tolist(), self._lane_options(given, chosen), strict=False
        ):
            if seeds[i] is not None:
                self._rngs[i] = seeding.np_random(seeds[i])[0]
            episodes.append((i, *choose_episode(self.source, self._rngs[i], seeds[i], lane)))
        out = self._new_output()
        for episode in episodes:
            self._begin(*episode, out)
        for i in np.flatnonzero(~chosen).tolist():
            instance = self._instances[i]
            if instance is None:
                raise ResetNeeded(f"lane {i} has no episode yet: reset it too")
            observe(*self._lane(i, instance), out)
        observation = self._observation(out)
        invalid = np.zeros(self.num_envs, np.bool_)
        return observation, self._infos(invalid, chosen)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[
        Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """One action in every lane.

        Raises:
            IllegalActionError: an action is illegal and ``strict`` is set.
            ResetNeeded: a lane has no episode, and is not reset by itself.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise _bad(
                "actions",
                f"{actions.dtype} of shape {actions.shape}",
                f"give ({self.num_envs},) whole numbers",
            )
        actions = np.ascontiguousarray(actions, np.int64)
        count = self.num_envs
        resting = self._ended
        self._check(actions, resting)
        out = self._new_output()
        rewards, ended = np.zeros(count), np.zeros(count, np.bool_)
        invalid = np.zeros(count, np.bool_)
        problems, facts, states, frames = self._arenas
        play.step_lanes(
            problems,
            facts,
            states,
            frames,
            NO_LOG,
            out,
            self._strides,
            self._homes,
            actions,
            resting,
            rewards,
            ended,
            invalid,
        )
        if resting.any():
            for i in np.flatnonzero(resting).tolist():
                self._begin(i, *choose_episode(self.source, self._rngs[i], None, None), out)
        self._ended = ended.copy()
        observation = self._observation(out)
        over = np.flatnonzero(ended).tolist() if ended.any() else []
        if over and self.autoreset_mode is AutoresetMode.SAME_STEP:
            infos = self._restart(over, out, observation, invalid)
        else:
            infos = self._infos(invalid, np.ones(count, np.bool_))
            for i in over:
                infos = self._add_info(infos, {"metrics": self._metrics(i)}, i)
        return observation, rewards, ended, np.zeros(count, np.bool_), infos

    def action_masks(self) -> NDArray[np.bool_]:
        """(B, S P + 1) the legal actions."""
        return self._mask.copy()

    def lane_state(self, lane: int) -> tuple[StateView, ProblemView]:
        """Copies of the simulator's state of a lane, and its problem (`fate_gym.sim.layout`).

        Raises:
            ResetNeeded: the lane has no episode yet.
        """
        instance = self._instances[lane]
        if instance is None:
            raise ResetNeeded(f"lane {lane} has no episode yet")
        problem = instance.compiled.view
        return plain(state_view)(self._lane(lane, instance)[2].copy(), problem), problem

    # --- inside ---

    def _restart(
        self, over: list[int], out: Buffer, observation: Observation, invalid: NDArray[np.bool_]
    ) -> dict[str, Any]:
        """SameStep: keep the ends, start anew; the arrays of ``observation`` follow ``out``."""
        finals: dict[str, Any] = {}
        for i in over:
            final = {
                MASK: observation[MASK][i].copy(),
                "invalid_action": bool(invalid[i]),
                "time": self._head(i)["time"].item(),
                "metrics": self._metrics(i),
            }
            last = {key: value[i].copy() for key, value in observation.items()}
            finals = self._add_info(finals, {"final_obs": last, "final_info": final}, i)
            self._begin(i, *choose_episode(self.source, self._rngs[i], None, None), out)
        self._mask[over] = observation[MASK][over].astype(np.bool_)
        invalid[over] = False
        return finals | self._infos(invalid, np.ones(self.num_envs, np.bool_))

    def _begin(self, i: int, instance: Instance, seed: int, out: Buffer) -> None:
        """Start an episode in lane ``i``."""
        self._make_room(instance.sizes)
        self._move_in(i, instance)
        problem, facts, state, frame = self._lane(i, instance)
        state[:] = 0
        frame[:] = 0
        frame[: FRAME_HEAD.itemsize] = self._heads[i]
        play.begin(problem, facts, state, frame, NO_LOG, out, seed)
        self._seeds[i] = seed
        self._ended[i] = False

    def _move_in(self, i: int, instance: Instance) -> None:
        """Let lane ``i`` find its problem where another lane plays it, or in a place of its own."""
        before = self._instances[i]
        if before is instance:
            return
        if before is not None:
            home = self._places[before]
            self._guests[home] -= 1
            if self._guests[home] == 0:
                del self._places[before]
                self._free.append(home)
        if instance not in self._places:
            home = self._places[instance] = self._free.pop()
            for arena, stride, content in zip(
                self._arenas, self._strides.tolist(), instance.contents, strict=False
            ):
                arena[home * stride : home * stride + content.size] = content
        self._homes[i] = self._places[instance]
        self._guests[self._homes[i]] += 1
        self._instances[i] = instance

    def _lane(self, i: int, instance: Instance) -> tuple[Buffer, Buffer, Buffer, Buffer]:
        """The buffers of a lane: problem, facts, state, frame."""
        home = int(self._homes[i])
        problem, facts, state, frame = (
            arena[place * stride : place * stride + size]
            for arena, place, stride, size in zip(
                self._arenas,
                (home, home, i, i),
                self._strides.tolist(),
                instance.sizes,
                strict=True,
            )
        )
        return problem, facts, state, frame

    def _make_room(self, sizes: tuple[int, ...]) -> None:
        """Let the lanes of each arena be at least so large; what they hold moves along."""
        for k, size in enumerate(sizes):
            if size <= self._strides[k]:
                continue
            stride = -(-size // _ALIGNMENT) * _ALIGNMENT
            arena = np.zeros((self.num_envs, stride), np.uint8)
            arena[:, : self._strides[k]] = self._arenas[k].reshape(self.num_envs, -1)
            self._arenas[k] = arena.reshape(-1)
            self._strides[k] = stride

    def _head(self, i: int) -> Any:
        at = i * int(self._strides[3])
        return self._arenas[3][at : at + FRAME_HEAD.itemsize].view(FRAME_HEAD)[0]

    def _metrics(self, i: int) -> dict[str, float]:
        instance = self._instances[i]
        assert instance is not None
        return episode_metrics(self._head(i), instance, self._seeds[i], self._reference)

    def _new_output(self) -> Buffer:
        return np.empty(self.num_envs * self.env_spec.bytes, np.uint8)

    def _observation(self, out: Buffer) -> Observation:
        observation = self.env_spec.arrays(out, self.num_envs)
        self._mask = observation[MASK].astype(np.bool_)
        return observation

    def _infos(self, invalid: NDArray[np.bool_], lanes: NDArray[np.bool_]) -> dict[str, Any]:
        time = self._arenas[3].reshape(self.num_envs, -1)[:, _TIME_AT : _TIME_AT + 8]
        return {
            MASK: self._mask.astype(np.int8),
            f"_{MASK}": lanes.copy(),
            "invalid_action": invalid,
            "_invalid_action": lanes.copy(),
            "time": time.copy().view(np.float64).reshape(-1),
            "_time": lanes.copy(),
        }

    def _reset_mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        good = isinstance(mask, np.ndarray) and mask.shape == (self.num_envs,)
        if not good or mask.dtype != np.bool_ or not mask.any():
            raise _bad(
                "reset_mask", "not a mask of lanes", f"give ({self.num_envs},) bools, one true"
            )
        return np.asarray(mask)

    def _lane_options(
        self, given: dict[str, Any], chosen: NDArray[np.bool_]
    ) -> Iterator[dict[str, Any]]:
        """The options of each lane that is reset."""
        problems = given.get("problem")
        if isinstance(problems, list | tuple):
            if len(problems) != self.num_envs:
                raise _bad("problem", f"{len(problems)} problems", f"give one, or {self.num_envs}")
            return (given | {"problem": problems[i]} for i in np.flatnonzero(chosen).tolist())
        return (given for _ in range(self.num_envs))

    def _check(self, actions: NDArray[np.int64], resting: NDArray[np.bool_]) -> None:
        if self._unstarted:
            self._unstarted = None in self._instances
        if self._unstarted:
            raise ResetNeeded("call reset() first: no episode is running")
        if self.autoreset_mode is AutoresetMode.DISABLED and resting.any():
            lanes = np.flatnonzero(resting).tolist()
            raise ResetNeeded(f"reset lanes {lanes} first: their episodes have ended")
        if not self._options.strict:
            return
        for i in np.flatnonzero(~resting).tolist():
            action = int(actions[i])
            if not (0 <= action < self.env_spec.actions and self._mask[i, action]):
                raise IllegalActionError(f"lane {i}: action {action} is illegal")


def _bad(field: str, fault: str, remedy: str) -> InputError:
    return InputError(fault, source="vector environment", field=field, remedy=remedy)


_FIELDS: Mapping[str, Any] = FRAME_HEAD.fields or {}
_TIME_AT = int(_FIELDS["time"][1])

__all__ = ["WorkflowSchedulingVectorEnv"]
