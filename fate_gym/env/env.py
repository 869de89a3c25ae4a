"""The Gymnasium environment."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, SupportsFloat, SupportsIndex

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from fate_gym.env import actions, play
from fate_gym.env.episode import (
    EnvState,
    Reference,
    choose_episode,
    named_reference,
    times_of,
    times_so_far,
)
from fate_gym.env.faults import bad
from fate_gym.env.named import JsonSpec
from fate_gym.env.options import parse_options
from fate_gym.env.output import Observation, Words
from fate_gym.env.render import RENDER_MODES, Renderer
from fate_gym.env.schema import Run
from fate_gym.env.source import Instance, ProblemSource, Source
from fate_gym.env.spec import MASK
from fate_gym.errors import InputError, near_matches
from fate_gym.sim import Assignment, CompiledProblem, DecisionView, Retention, Simulator, Trace

_OPTIONS = "environment options"
Step = tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]
Direct = tuple[Assignment, tuple[Retention, ...]]
# The entries skip the argument checks.
_ENTER: Any = play.enter
_STEP: Any = play.step
_METADATA: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 10}


class WorkflowSchedulingEnv(JsonSpec, gymnasium.Env[Observation, int]):
    """Place the ready stages of LLM workflows on the devices of a heterogeneous cluster.

    ## Description
    An episode is one `fate_gym.problem.Problem`: workflows, which are DAGs of stages, arrive at a
    cluster of GPUs that differ in speed, memory and links. Models have to be loaded before they can
    run; prompts that share a prefix or inherit a context need less prefill where it is cached; and
    cached data is evicted when memory runs out. The agent decides at events: it places ready
    stages, one per step and as many as it likes at one instant, or waits for the next event. The
    simulator that plays every policy computes what happens (docs/execution-model.md): the same
    decisions give the same trace.

    ## Action Space
    `Discrete(S P + 1)`. The *window* shows S ready stages; each has P = D + 3 (K - 1) candidate
    placements. Action `slot x P + position` places the stage of a slot:

    | position | placement |
    |---|---|
    | d < D | device d alone |
    | D + k - 2 | the k devices that finish first, queries split by speed, k = 2..K |
    | D + (K - 1) + k - 2 | the k holders of the stage's model that finish first |
    | D + 2 (K - 1) + k - 2 | the k devices of one node that finish first |

    The last action waits for the next event. The window holds the ready stages that go first in
    FDWS (Arabnejad, Barbosa and Suter 2014): within a workflow, those of largest upward rank; among
    several workflows, in rounds, the workflow nearest its end first. A stage beyond the window
    moves up when others are placed. Nothing starves: waiting is illegal when no event lies ahead.
    (A run in which nothing is to be decided ends with the first wait.)

    The mask of legal actions is the observation `action_mask` and `action_masks()` (both bool, as
    networks and most libraries take it) and `info["action_mask"]` (int8, as
    `Discrete.sample(mask=...)` takes it). In the last observation of an episode only waiting is
    legal, so that no mask is empty. An illegal action costs `invalid_penalty` and sets
    `info["invalid_action"]`; otherwise it has no effect, except that `max_invalid_actions` of them
    in a row truncate the episode. With `strict` it raises `IllegalActionError`.

    ## Observation Space
    A `Dict` of float32 boxes, bounded by 0 and 1 (signed features by -1 and 1); surplus rows are 0.

    | key | shape | content |
    |---|---|---|
    | `stages` | (S, F) | the stages of the window |
    | `devices` | (D, F) | the devices |
    | `candidates` | (S P, F) | the candidate placements, by action number |
    | `globals` | (F,) | the run: one row |
    | `action_mask` | (S P + 1,) bool | whether each action is legal |
    | `invalid_streak` | (1,) | illegal actions in a row up to now / `max_invalid_actions` |
    | `dag_nodes` | (N, F) | with `dag`: the stages of arrived workflows |
    | `dag_edges` | (E, 2) int32 | with `dag`: parent and child, rows of `dag_nodes`; -1: none |

    Durations are estimates. Observations do not reveal noise, actual ends of running stages, open
    choices, future failures or workflows that have not arrived, except the number of models in the
    problem. For every feature, with index, meaning, unit, scaling and range, see "Features" in
    docs/environment.md, or `fate_gym.env.docs.feature_tables`.

    ## Rewards
    In units of `reward_scale` seconds, by default an estimate of each problem's makespan.

    - `makespan`: minus the time that the step took. Return: minus the makespan.
    - `latency`: minus the time that workflows spent in the system, a mean over workflows.
      Return: minus the mean latency.
    - `shaped`: `makespan` with potential-based shaping (Ng, Harada and Russell 1999): minus the
      growth of the estimated makespan (`fate_gym.env.reward`). Return: minus (makespan - first
      estimate). Set `discount` to the learner's gamma: another value favours other policies.
    - `shaped_latency`: `latency`, shaped likewise: minus the growth of the estimated mean latency.
      It has its own unit, so that one placement changes about as much in a small workflow as in a
      long stream. Return: minus (mean latency - first estimate). `discount` applies likewise.

    A function defines a custom reward: it is called with these four rewards of a legal step
    (`fate_gym.env.StepRewards`) and the environment. A tuple of names and functions makes the
    reward a vector with one element for each, as in mo-gymnasium (`reward_space`).

    ## Starting State
    The first instant at which a stage is ready. `reset(seed=s)` draws the problem, if there are
    several, and seeds the noise on durations with s, as `Simulator(problem, seed=s)` does.

    ## Episode End
    Terminated when every stage of every workflow has ended. Truncated after
    `max_invalid_actions` illegal actions in a row, which the observation `invalid_streak` counts,
    and by `gymnasium.make` and `make_vec` after `max_episode_steps` steps, 100,000 unless given.

    ## Information
    `action_mask`, `invalid_action`, `time` (simulated seconds), `direct_placement` (a policy has
    played a placement of its own instead of the action, see `PolicyAdapter`) and `metrics`:
    `makespan`, `latency_mean` (seconds), `placements`, `waits`, `invalid_actions` and, with
    `reference`, `makespan_ratio`. All are always present; times are inf until the episode has
    terminated.

    ## Arguments
    ```python
    import gymnasium
    import fate_gym

    env = gymnasium.make("fate_gym/WorkflowScheduling-v0", problem="quick", reward="shaped")
    ```

    | argument | default | |
    |---|---|---|
    | `problem` | `"quick"` | problem, name of a suite, file, list of these, function of a seed |
    | `cluster` | each suite's | cluster, or its name, for suites by name |
    | `seed` | 0 | seed of the problems of suites by name |
    | `window` | 8 | S |
    | `max_shards` | 3 | K |
    | `max_devices`, `max_models` | as the problems need | D, and models told apart |
    | `observation` | all four groups | which of stages, devices, candidates, globals |
    | `dag` | False | show the graph |
    | `max_stages`, `max_edges` | as the problems need | N and E of the graph |
    | `reward` | `"makespan"` | name of a reward, a function, or a tuple of these |
    | `reward_scale` | each problem's estimate | seconds per unit of reward |
    | `discount` | 1.0 | gamma of the shaping; the learner's, if it discounts |
    | `invalid_penalty` | 0.1 | cost of an illegal action |
    | `max_invalid_actions` | 100 | illegal actions in a row that truncate the episode |
    | `strict` | False | illegal actions raise |
    | `time_scale` | 10.0 | seconds at which a time feature is 0.5 |
    | `uncertainty` | the problem's | sigma of the noise on durations |
    | `length_uncertainty` | the problem's | sigma of actual / estimated output tokens |
    | `arrivals` | the problem's | `fate_gym.workloads.Arrivals`, or its fields: drawn by the seed |
    | `record` | True | keep what `trace()` needs |
    | `reference` | None | function of (compiled problem, seed) to a makespan |
    | `render_mode` | None | ansi, rgb_array, human |

    `reset(options={"problem": ...})` sets the problem of one episode: a number of the list, or any
    problem that fits the spaces. Bad values raise `fate_gym.errors.InputError`, unknown arguments a
    `TypeError`. Functions may be given by name, as `"module:function"`; `env.spec.to_json()` writes
    them that way.

    ## Version History
    - v0: first version.
    """

    metadata = _METADATA

    def __init__(
        self,
        problem: ProblemSource = "quick",
        *,
        render_mode: str | None = None,
        record: bool = True,
        reference: Reference | str | None = None,
        **options: Any,
    ) -> None:
        self._options, suites = parse_options(options, type(self).__name__)
        if render_mode is not None and render_mode not in RENDER_MODES:
            remedy = near_matches(render_mode, RENDER_MODES)
            raise bad(_OPTIONS, "render_mode", f"unknown render mode {render_mode!r}", remedy)
        if render_mode is not None and not record:
            remedy = "leave render_mode or record=False out"
            raise bad(_OPTIONS, "record", "nothing is recorded that could be drawn", remedy)
        self.render_mode = render_mode
        self.source = Source(problem, self._options, suites)
        self.env_spec = self.source.spec
        self.observation_space = self.env_spec.observation_space()
        self.action_space = self.env_spec.action_space()
        self.reward_space = self.env_spec.rewards.space()
        self._output = self.env_spec.output()
        self._reference = named_reference(reference)
        self._times = times_so_far(self._reference)
        self._record = record
        self._instance: Instance | None = None
        self._direct: Direct | None = None
        self._renderer = Renderer(render_mode, _METADATA["render_fps"])

    # --- Gymnasium ---

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: draws the problem and seeds the noise; None: both follow from the last seed.
            options: ``{"problem": ...}`` sets the problem.

        Raises:
            InputError: an unknown option, or a problem that does not fit the spaces.
        """
        super().reset(seed=seed)
        instance, noise = choose_episode(self.source, self.np_random, seed, options)
        if self._instance is instance:
            self._simulator.reset(noise)
            self._ended = False
        else:
            self._take(instance, noise)
        self._direct = None
        buffer = self._output.new()
        _ENTER.entry(self._run, buffer, 0)
        observation = self._output.observation(buffer)
        if self.render_mode == "human":
            self.render()
        return observation, self._info(observation, self.time, False, 0, 0, 0)

    def step(self, action: SupportsIndex) -> Step:
        """Place a stage or wait.

        Raises:
            IllegalActionError: the action is illegal and ``strict`` is set.
            ResetNeeded: the episode has not begun or has ended.
        """
        self._playing()
        number = _number(action)
        if self._direct is not None:
            assignment, retentions = self._direct
            self._direct = None
            return self.place(assignment, *retentions)
        if self._options.strict:
            actions.check_action(self._run, number)
        # Shards lost when a device fails need room in the log.
        self._simulator.extend_log()
        buffer = self._output.new()
        outcome = _STEP.entry(self._run, self._simulator.log, buffer, number)
        return self._outcome(buffer, outcome)

    def render(self) -> Any:
        """Render the run so far as text, picture or window, by ``render_mode``.

        ``ansi`` returns a text; ``rgb_array`` returns an array (H, W, 3) of one size for a whole
        episode; ``human`` shows that picture in a window, or prints the text if there is no
        display.
        """
        self._playing(or_ended=True)
        return self._renderer.render(self)

    def close(self) -> None:
        self._renderer.close()

    # --- beyond Gymnasium ---

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the (S P + 1,) mask of legal actions, the method that sb3-contrib calls."""
        return actions.legal_actions(self.arrays)

    def place(self, assignment: Assignment, *retentions: Retention) -> Step:
        """Make a step with a placement that need not be among the actions.

        For policies that split queries differently, reach beyond the window, copy prefixes, or then
        rank what is cached: ``retentions`` take effect after the placement, at the same instant.

        Raises:
            IllegalActionError: the simulator does not allow it.
            ResetNeeded: the episode has not begun or has ended.
        """
        self._playing()
        self._simulator.apply([assignment, *retentions])
        buffer = self._output.new()
        outcome = play.after(self._run, self._simulator.log, buffer, assignment.stage)
        step = self._outcome(buffer, outcome)
        step[4]["direct_placement"] = True
        return step

    def place_next(self, assignment: Assignment, *retentions: Retention) -> None:
        """Let the next step `place` this, whatever its action, so that wrappers see the step."""
        self._playing()
        self._direct = (assignment, retentions)

    def retain(self, retention: Retention) -> None:
        """Evict by these values from now on (`Simulator.retain`); no time passes.

        Raises:
            IllegalActionError: an array has the wrong shape or contains NaN.
        """
        self._playing()
        self._simulator.retain(retention)

    def placement(self, action: int) -> Assignment | None:
        """Return the stage and devices of a legal action; None: wait.

        Raises:
            IllegalActionError: the action is not legal now.
        """
        self._playing()
        actions.check_action(self._run, action)
        return actions.placement_of(self._run, action)

    def action_of(self, assignment: Assignment | None, *, exact: bool = False) -> int | None:
        """Return the action for an assignment (None: wait); None if the window does not offer it.

        Args:
            assignment: what to do.
            exact: only accept an action that gives the same trace: the same devices in the same
                order with the same counts. Otherwise accept any action that uses these devices
                (with these counts, if given).
        """
        self._playing()
        return actions.action_of(self._run, assignment, exact=exact)

    @property
    def compiled(self) -> CompiledProblem:
        """The problem of the episode."""
        return self._playing(or_ended=True).compiled

    @property
    def noise_seed(self) -> int:
        """The seed with which ``Simulator(env.compiled, seed=...)`` meets the same noise."""
        self._playing(or_ended=True)
        return self._simulator.seed

    @property
    def arrays(self) -> Run:
        """The live arrays of the run, for compiled code that looks at placements."""
        self._playing(or_ended=True)
        return self._run

    @property
    def window(self) -> list[int]:
        """The stages of the window, slot by slot; fewer than S if fewer are ready."""
        episode = self.arrays.episode
        return [int(s) for s in episode.window[: episode.shown]]

    @property
    def reward_unit(self) -> float:
        """Seconds that one unit of reward stands for in this episode."""
        return self.arrays.facts.unit

    @property
    def ended(self) -> bool:
        """Whether the episode has terminated or was truncated."""
        self._playing(or_ended=True)
        return self._ended

    @property
    def time(self) -> float:
        """Simulated seconds."""
        return self.arrays.state.now

    def view(self) -> DecisionView:
        """Return what a policy sees at this moment."""
        self._playing(or_ended=True)
        return self._simulator.view()

    def trace(self, policy: str = "") -> Trace:
        """Return the trace so far; it is complete when the episode has terminated.

        Raises:
            InputError: the environment was made with ``record=False``.
        """
        self._playing(or_ended=True)
        if not self._record:
            raise bad("environment", None, "nothing was recorded", "make it with record=True")
        return self._simulator.trace(policy)

    def state(self) -> EnvState:
        """Return a copy of this moment, random number generator included; for tree search."""
        return EnvState(
            self.env_spec,
            self._playing(or_ended=True),
            self._simulator.moment(),
            self._run.episode.copy(),
            self._run.placements.copy(),
            self.np_random.bit_generator.state,
        )

    def restore(self, state: Any) -> tuple[Observation, dict[str, Any]]:
        """Go to a moment that `state` returned; return its observation and info.

        Raises:
            InputError: it comes from an environment with other options.
        """
        if not isinstance(state, EnvState) or not state.spec.same_as(self.env_spec):
            raise InputError(
                "the state is of an environment with other options",
                source="environment",
                item="restore",
                remedy="restore a state that an environment made alike has given",
            )
        if self._instance is not state.instance:
            self._take(state.instance, state.moment.seed)
        self._simulator.resume(state.moment)
        episode = self._run.episode
        episode.buffer[:] = state.episode.buffer
        self._run.placements.buffer[:] = state.placements.buffer
        self.np_random.bit_generator.state = dict(state.random)
        self._ended = bool(episode.ended or episode.truncated)
        self._direct = None
        buffer = self._output.new()
        play.look(self._run, buffer, 0)
        observation = self._output.observation(buffer)
        counts = episode.placements, episode.waits, episode.invalid_steps
        info = self._info(observation, self.time, bool(episode.invalid), *counts)
        if episode.ended:
            info["metrics"] |= self._final_times()
        return observation, info

    # Compiled code uses the addresses of arrays: a copy of the environment has its own arrays.

    def __getstate__(self) -> dict[str, Any]:
        run = ("_instance", "_simulator", "_run", "_ended", "_renderer", "_direct")
        kept = {key: value for key, value in self.__dict__.items() if key not in run}
        return kept | {"_saved": self.state() if self._instance is not None else None}

    def __setstate__(self, kept: Mapping[str, Any]) -> None:
        saved = kept["_saved"]
        self.__dict__.update({key: value for key, value in kept.items() if key != "_saved"})
        self._renderer = Renderer(self.render_mode, _METADATA["render_fps"])
        self._instance = None
        self._direct = None
        if saved is not None:
            self.restore(saved)

    # --- inside ---

    def _take(self, instance: Instance, seed: int) -> None:
        """Switch to another problem."""
        self._simulator = Simulator(instance.compiled, seed=seed, record=self._record)
        self._run = instance.run(self._simulator.state)
        self._instance = instance
        self._ended = False

    def _outcome(self, buffer: Words, outcome: play.Outcome) -> Step:
        """Return the result of `step`."""
        reward: Any
        reward, time, terminated, truncated, invalid, *counts = outcome
        self._ended = terminated or truncated
        observation = self._output.observation(buffer)
        info = self._info(observation, time, invalid, *counts)
        if terminated:
            info["metrics"] |= self._final_times()
        plan = self.env_spec.rewards
        if not plan.plain:
            reward = plan.of_step(self._run.episode.rewards, self, invalid=invalid)
        if self.render_mode == "human":
            self.render()
        return observation, reward, terminated, truncated, info

    def _info(
        self,
        observation: Observation,
        time: float,
        invalid: bool,
        placements: int,
        waits: int,
        illegal: int,
    ) -> dict[str, Any]:
        return {
            MASK: observation[MASK].view(np.int8),
            "invalid_action": invalid,
            "direct_placement": False,
            "time": time,
            "metrics": {
                **self._times,
                "placements": placements,
                "waits": waits,
                "invalid_actions": illegal,
            },
        }

    def _final_times(self) -> dict[str, float]:
        instance = self._playing(or_ended=True)
        return times_of(self._run, instance, self._simulator.seed, self._reference)

    def _playing(self, *, or_ended: bool = False) -> Instance:
        if self._instance is None or (self._ended and not or_ended):
            raise ResetNeeded("call reset() first: no episode is running")
        return self._instance


def _number(action: SupportsIndex) -> int:
    """Return the action as a number; -1 if it does not fit in 64 bits."""
    try:
        number = operator.index(action)
    except TypeError:
        fault = f"{action!r} is not a whole number"
        raise bad("environment", "action", fault, "give one action of env.action_space") from None
    return number if abs(number) < 2**63 else -1
