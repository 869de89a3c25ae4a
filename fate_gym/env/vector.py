"""Many environments that step in one compiled call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from fate_gym.env import play
from fate_gym.env.episode import Reference, choose_episode, named_reference, times_of, times_so_far
from fate_gym.env.faults import bad
from fate_gym.env.lanes import LaneMoment, Lanes
from fate_gym.env.named import JsonSpec
from fate_gym.env.options import parse_options
from fate_gym.env.output import Observation, Words
from fate_gym.env.schema import LaneArrays, Run
from fate_gym.env.source import ProblemSource, Source
from fate_gym.env.spec import MASK, Spec
from fate_gym.errors import IllegalActionError
from fate_gym.kernel.schema import ProblemArrays, StateArrays

_SOURCE = "vector environment"
_COUNTS = {"placements": "placements", "waits": "waits", "invalid_actions": "invalid_steps"}
"""Metrics of an episode under way, and their columns in the table of lanes."""
_METADATA: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}


@dataclass(frozen=True, eq=False)
class VectorEnvState:
    """A moment of all lanes to return to (`WorkflowSchedulingVectorEnv.restore`)."""

    spec: Spec
    lanes: tuple[LaneMoment, ...]
    table: LaneArrays
    over: tuple[int, ...]
    random: tuple[Mapping[str, Any], ...]


class WorkflowSchedulingVectorEnv(
    JsonSpec, VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]
):
    """B independent `WorkflowSchedulingEnv`, stepped together.

    Lane i behaves like a single environment made with the same arguments: the same problems, noise,
    observations and rewards when both are reset with the same seed. Lanes may play different
    problems. Infos are batched as in Gymnasium's vector environments: an array for each key, and a
    mask ``_key`` of the lanes that have it.

    Args:
        num_envs: B.
        problem: as for the single environment.
        autoreset_mode: what happens to a lane whose episode has ended; a member or value of
            `gymnasium.vector.AutoresetMode`. NextStep: the next step resets it, whatever its
            action. SameStep: it is reset at once; ``infos["final_obs"]`` and
            ``infos["final_info"]`` have the end. Disabled: reset it yourself, with
            ``reset(options={"reset_mask": ...})``.
        max_episode_steps: steps that truncate an episode, as Gymnasium's `TimeLimit` does for a
            single environment; None or -1: no limit. `gymnasium.make_vec` and `fate_gym.make_vec`
            set the registered limit.
        reference: as for the single environment.
        options: as for the single environment.

    Raises:
        InputError: bad values.
        TypeError: unknown arguments.
    """

    metadata = _METADATA

    def __init__(
        self,
        num_envs: int = 1,
        problem: ProblemSource = "quick",
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: None = None,
        reference: Reference | str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if num_envs < 1:
            raise bad(_SOURCE, "num_envs", f"{num_envs} environments", "make one or more")
        if render_mode is not None:
            remedy = "render a single environment"
            raise bad(_SOURCE, "render_mode", "a batch cannot be drawn", remedy)
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            names = ", ".join(repr(mode.value) for mode in AutoresetMode)
            remedy = f"choose one of {names}"
            raise bad(
                _SOURCE, "autoreset_mode", f"unknown mode {autoreset_mode!r}", remedy
            ) from None
        self.metadata = _METADATA | {"autoreset_mode": self.autoreset_mode}
        limit = None if max_episode_steps == -1 else max_episode_steps
        if limit is not None and limit < 1:
            remedy = "give 1 or more, or -1 for no limit"
            raise bad(_SOURCE, "max_episode_steps", f"a limit of {limit} steps", remedy)
        self._options, suites = parse_options(options, type(self).__name__)
        self.source = Source(problem, self._options, suites)
        self.env_spec: Spec = self.source.spec
        self.num_envs = num_envs
        self.single_observation_space = self.env_spec.observation_space()
        self.single_action_space = self.env_spec.action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.reward_space = self.env_spec.rewards.space()
        self._reference = named_reference(reference)
        self._times = list(times_so_far(self._reference))
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._lanes = Lanes(num_envs, len(self.env_spec.rewards.objectives), limit)
        self._unstarted = True
        self._over: list[int] = []
        self._output = self.env_spec.output(num_envs)
        self._all = np.ones(num_envs, np.bool_)
        # The environment's own copy: agents may write to the masks that they get.
        self._mask = np.zeros((num_envs, self.env_spec.actions), np.bool_)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode in every lane, or in those of ``options["reset_mask"]``.

        Args:
            seed: lane i takes ``seed + i``; or a sequence with a seed for each lane.
            options: as for the single environment; a list of B problems gives one to each lane, and
                ``reset_mask`` is a (B,) bool array.

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
                raise bad(_SOURCE, "seed", f"{len(seeds)} seeds", f"give one, or {self.num_envs}")
        episodes = []
        for i, lane in zip(
            np.flatnonzero(chosen).tolist(), self._lane_options(given, chosen), strict=False
        ):
            if seeds[i] is not None:
                self._rngs[i] = seeding.np_random(seeds[i])[0]
            episodes.append((i, *choose_episode(self.source, self._rngs[i], seeds[i], lane)))
        buffer = self._output.new()
        for episode in episodes:
            self._lanes.begin(*episode, buffer)
        for i in np.flatnonzero(~chosen).tolist():
            play.look(self._run(i), buffer, i)
        self._over = [i for i in self._over if not chosen[i]]
        observation = self._observation(buffer)
        invalid = np.zeros(self.num_envs, np.bool_)
        return observation, self._infos(invalid, [], chosen)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[
        Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Play one action in every lane.

        The rewards are (B,), or (B, objectives) if there are several.

        Raises:
            IllegalActionError: an action is illegal and ``strict`` is set.
            ResetNeeded: a lane has no episode, and is not reset automatically.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            remedy = f"give ({self.num_envs},) whole numbers"
            raise bad(_SOURCE, "actions", f"{actions.dtype} of shape {actions.shape}", remedy)
        self._check(actions)
        table, resting = self._lanes.table, self._over
        table.action[:] = actions
        buffer = self._output.new()
        count = self._lanes.step(buffer)
        invalid, plan = table.invalid.copy(), self.env_spec.rewards
        rewards = table.rewards[:, 0].copy() if plan.plain else self._rewards(invalid, resting)
        terminated, truncated = table.terminated.copy(), table.truncated.copy()
        ended = np.flatnonzero(terminated).tolist() if count else []
        over = self._over = np.flatnonzero(terminated | truncated).tolist() if count else []
        for i in resting:
            self._restart(i, buffer)
        observation = self._observation(buffer)
        if over and self.autoreset_mode is AutoresetMode.SAME_STEP:
            infos = self._finish(over, ended, buffer, observation, invalid)
        else:
            infos = self._infos(invalid, ended)
        return observation, rewards, terminated, truncated, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the (B, S P + 1) mask of legal actions."""
        return self._mask.copy()

    def state(self) -> VectorEnvState:
        """Return a copy of this moment of all lanes, random generators included; for tree search.

        Raises:
            ResetNeeded: a lane has no episode yet.
        """
        return VectorEnvState(
            self.env_spec,
            tuple(self._lanes.moment(i, self._run(i)) for i in range(self.num_envs)),
            self._lanes.table.copy(),
            tuple(self._over),
            tuple(rng.bit_generator.state for rng in self._rngs),
        )

    def restore(self, state: Any) -> tuple[Observation, dict[str, Any]]:
        """Go to a moment that `state` returned; return its observation and infos.

        Raises:
            InputError: it comes from an environment with other options or another number of lanes.
        """
        good = isinstance(state, VectorEnvState) and state.spec.same_as(self.env_spec)
        if not good or len(state.lanes) != self.num_envs:
            fault = "the state is of a vector environment with other options or lanes"
            remedy = "restore a state that a vector environment made alike has given"
            raise bad(_SOURCE, "restore", fault, remedy)
        for i, moment in enumerate(state.lanes):
            self._lanes.resume(i, moment)
        self._lanes.recall(state.table)
        for rng, random in zip(self._rngs, state.random, strict=True):
            rng.bit_generator.state = dict(random)
        self._over = list(state.over)
        buffer = self._output.new()
        for i in range(self.num_envs):
            play.look(self._run(i), buffer, i)
        observation = self._observation(buffer)
        table = self._lanes.table
        return observation, self._infos(
            table.invalid.copy(), np.flatnonzero(table.terminated).tolist()
        )

    def lane_state(self, lane: int) -> tuple[StateArrays, ProblemArrays]:
        """Return a copy of a lane's simulator state, and its problem.

        Raises:
            ResetNeeded: the lane has no episode yet.
        """
        run = self._run(lane)
        return run.state.copy(), run.problem

    # --- inside ---

    def _restart(self, i: int, buffer: Words) -> None:
        """Start another episode in lane ``i``."""
        self._lanes.begin(i, *choose_episode(self.source, self._rngs[i], None, None), buffer)

    def _rewards(self, invalid: NDArray[np.bool_], resting: list[int]) -> NDArray[np.float64]:
        return self.env_spec.rewards.of_lanes(self._lanes.table.rewards, self, invalid, resting)

    def _finish(
        self,
        over: list[int],
        ended: list[int],
        buffer: Words,
        observation: Observation,
        invalid: NDArray[np.bool_],
    ) -> dict[str, Any]:
        """Record the ends of lanes and restart them (SameStep).

        ``observation`` has the arrays of ``buffer``.
        """
        finals: dict[str, Any] = {}
        table = self._lanes.table
        for i in over:
            times = self._final_times(i) if i in ended else dict.fromkeys(self._times, math.inf)
            final = {
                MASK: observation[MASK][i].astype(np.int8),
                "invalid_action": bool(invalid[i]),
                "direct_placement": False,
                "time": table.time[i].item(),
                "metrics": times
                | {name: int(getattr(table, at)[i]) for name, at in _COUNTS.items()},
            }
            last = {key: value[i].copy() for key, value in observation.items()}
            finals = self._add_info(finals, {"final_obs": last, "final_info": final}, i)
            self._restart(i, buffer)
        self._mask[over] = observation[MASK][over]
        invalid[over] = False
        self._over = []
        return finals | self._infos(invalid, [])

    def _run(self, i: int) -> Run:
        """Return the run of a lane. Raises `ResetNeeded` if it has no episode yet."""
        run = self._lanes.runs[i]
        if run is None:
            raise ResetNeeded(f"lane {i} has no episode yet: reset it too")
        return run

    def _final_times(self, i: int) -> dict[str, float]:
        instance = self._lanes.instances[i]
        assert instance is not None
        return times_of(self._run(i), instance, self._lanes.seeds[i], self._reference)

    def _metrics(self, ended: list[int], shown: NDArray[np.bool_]) -> dict[str, Any]:
        """Return the metrics of all lanes, as `_add_info` would make them lane by lane."""
        infos: dict[str, Any] = {name: np.full(self.num_envs, np.inf) for name in self._times}
        for i in ended:
            for name, value in self._final_times(i).items():
                infos[name][i] = value
        for name, column in _COUNTS.items():
            infos[name] = getattr(self._lanes.table, column).copy()
        return infos | {f"_{name}": shown.copy() for name in infos}

    def _observation(self, buffer: Words) -> Observation:
        observation = self._output.observation(buffer)
        self._mask = observation[MASK].copy()
        return observation

    def _infos(
        self,
        invalid: NDArray[np.bool_],
        ended: list[int],
        lanes: NDArray[np.bool_] | None = None,
    ) -> dict[str, Any]:
        """Return the infos of some lanes, or of all; lanes that have ``ended`` get their times."""
        shown = self._all if lanes is None else lanes
        infos = {
            MASK: self._mask.astype(np.int8),
            "invalid_action": invalid,
            "direct_placement": np.zeros(self.num_envs, np.bool_),
            "time": self._lanes.table.time.copy(),
            "metrics": self._metrics(ended, shown),
        }
        return infos | {f"_{name}": shown.copy() for name in infos}

    def _reset_mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        good = isinstance(mask, np.ndarray) and mask.shape == (self.num_envs,)
        if not good or mask.dtype != np.bool_ or not mask.any():
            remedy = f"give ({self.num_envs},) bools, one true"
            raise bad(_SOURCE, "reset_mask", "not a mask of lanes", remedy)
        return np.asarray(mask)

    def _lane_options(
        self, given: dict[str, Any], chosen: NDArray[np.bool_]
    ) -> Iterator[dict[str, Any]]:
        """Yield the options of each lane that is reset."""
        problems = given.get("problem")
        if isinstance(problems, list | tuple):
            if len(problems) != self.num_envs:
                remedy = f"give one, or {self.num_envs}"
                raise bad(_SOURCE, "problem", f"{len(problems)} problems", remedy)
            return (given | {"problem": problems[i]} for i in np.flatnonzero(chosen).tolist())
        return (given for _ in range(self.num_envs))

    def _check(self, actions: NDArray[Any]) -> None:
        if self._unstarted:
            self._unstarted = None in self._lanes.runs
        if self._unstarted:
            raise ResetNeeded("call reset() first: no episode is running")
        if self.autoreset_mode is AutoresetMode.DISABLED and self._over:
            raise ResetNeeded(f"reset lanes {self._over} first: their episodes have ended")
        if not self._options.strict:
            return
        for i, action in enumerate(actions.tolist()):
            if i not in self._over and not (
                0 <= action < self.env_spec.actions and self._mask[i, action]
            ):
                raise IllegalActionError(f"lane {i}: action {action} is illegal")
