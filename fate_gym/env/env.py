"""The Gymnasium environment."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat, SupportsIndex

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from fate_gym.compiled import plain
from fate_gym.env import play
from fate_gym.env.docs import feature_tables
from fate_gym.env.layout import FRAME_HEAD, FrameView, frame_view
from fate_gym.env.observation import observe
from fate_gym.env.source import Instance, ProblemSource, Source
from fate_gym.env.spec import MASK, Spec, parse_options
from fate_gym.errors import IllegalActionError, InputError, near_matches
from fate_gym.sim import (
    Assignment,
    CompiledProblem,
    DecisionView,
    Retention,
    Simulator,
    Trace,
)
from fate_gym.sim.layout import Buffer, Log
from fate_gym.sim.simulator import MAX_SEED, Moment

Observation = dict[str, NDArray[Any]]
Reference = Callable[[Any, int], float]
"""From a compiled problem and the seed of the noise to a makespan to compare with, seconds."""

RENDER_MODES = ("ansi", "rgb_array", "human")
_METADATA: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 10}


@dataclass(frozen=True, eq=False)
class EnvState:
    """A moment of an episode, to go back to (`WorkflowSchedulingEnv.restore`)."""

    spec: Spec
    instance: Instance
    moment: Moment
    frame: Buffer
    random: Mapping[str, Any]


class WorkflowSchedulingEnv(gymnasium.Env[Observation, int]):
    """Place the ready stages of LLM workflows on the devices of a heterogeneous cluster.

    ## Description
    An episode is one `fate_gym.problem.Problem`: workflows, which are DAGs of stages, arrive at a
    cluster of GPUs that differ in speed, memory and links. Models have to be loaded before they
    can run, prompts that share a prefix or take over a context need less prefill where it is
    cached, and what is cached is evicted when memory runs out. The agent decides at events: it
    places ready stages, one a step and as many as it likes at one instant, or waits for the next
    event. What happens is computed by the simulator that plays every policy
    (docs/execution-model.md): the same decisions give the same trace.

    ## Action Space
    `Discrete(S P + 1)`. The *window* shows S ready stages; each has P = D + 3 (K - 1) candidate
    placements. Action `slot x P + position` places the stage of a slot:

    | position | placement |
    |---|---|
    | d < D | device d alone |
    | D + k - 2 | the k devices that finish first, queries split by speed, k = 2..K |
    | D + (K - 1) + k - 2 | the k holders of the stage's model that finish first |
    | D + 2 (K - 1) + k - 2 | the k devices of one node that finish first |

    The last action waits for the next event. The window holds the ready stages with the
    earliest latest start, at which their workflow would take twice as long as alone: inside a
    workflow those of largest upward rank. A stage beyond it moves up when others are placed.
    Nothing starves: waiting is illegal when no event lies ahead. (A run in which nothing is to be
    decided ends with the first wait.)

    The mask of legal actions is the observation `action_mask`, `info["action_mask"]` (both int8,
    as `Discrete.sample(mask=...)` takes it) and `action_masks()` (bool). An illegal action
    changes nothing, costs `invalid_penalty` and sets `info["invalid_action"]`; with `strict` it
    raises `IllegalActionError`.

    ## Observation Space
    A `Dict` of float32 boxes, bounded by 0 and 1 (`later`: -1 and 1); rows beyond what there is
    are 0.

    | key | shape | a row is |
    |---|---|---|
    | `stages` | (S, F) | a stage of the window |
    | `devices` | (D, F) | a device |
    | `candidates` | (S P, F) | a candidate placement, by action number |
    | `globals` | (F,) | the run: one row |
    | `action_mask` | (S P + 1,) int8 | 1: the action is legal |
    | `dag_nodes` | (N, F) | with `dag`: a stage of an arrived workflow |
    | `dag_edges` | (E, 2) int32 | with `dag`: parent and child, rows of `dag_nodes`; -1: none |

    Durations are estimates: nothing of the noise, of running stages' true ends, of choices not
    made yet, of failures to come or of workflows still to come is shown, but for the models of
    the problem, which are told apart by number. M is ``max_models``. Scalings: a *flag* is 0 or
    1; a *share* lies in [0, 1] by itself; *half at c* is ``x / (x + c)``; *signed, half at c* is
    ``x / (|x| + c)``.

    {features}

    ## Rewards
    In units of `reward_scale` seconds, by default an estimate of each problem's makespan.

    - `makespan`: minus the time that the step took. Return: minus the makespan.
    - `latency`: minus the time that workflows spent in the system, a mean over workflows.
      Return: minus the mean latency.
    - `shaped`: `makespan` with potential-based shaping (Ng, Harada and Russell 1999): minus the
      growth of the estimated makespan (`fate_gym.env.reward`). Return: minus (makespan - first
      estimate).

    ## Starting State
    The first instant at which a stage is ready. `reset(seed=s)` draws the problem, if there are
    several, and gives the noise on durations the seed s, as `Simulator(problem, seed=s)` does.

    ## Episode End
    Terminated when every stage of every workflow has ended. Never truncated.

    ## Information
    `action_mask`, `invalid_action`, `time` (simulated seconds); after the last step also
    `metrics`: `makespan`, `latency_mean` (seconds), `placements`, `waits`, `invalid_actions` and,
    with `reference`, `normalised_makespan`.

    ## Arguments
    ```python
    import gymnasium
    import fate_gym

    env = gymnasium.make("fate_gym/WorkflowScheduling-v0", problem="quick", reward="shaped")
    ```

    | argument | default | |
    |---|---|---|
    | `problem` | `"quick"` | problem, name of a suite, file, list of these, function of a seed |
    | `window` | 8 | S |
    | `max_shards` | 3 | K |
    | `max_devices`, `max_models` | as the problems need | D, and models told apart |
    | `observation` | all four groups | which of stages, devices, candidates, globals |
    | `dag` | False | show the graph |
    | `max_stages`, `max_edges` | as the problems need | N and E of the graph |
    | `reward` | `"makespan"` | or latency, shaped |
    | `reward_scale` | each problem's estimate | seconds |
    | `discount` | 1.0 | of the shaping; the learner's, if it discounts |
    | `invalid_penalty` | 0.1 | |
    | `strict` | False | illegal actions raise |
    | `time_scale` | 10.0 | seconds at which a time feature is 0.5 |
    | `uncertainty` | the problem's | sigma of the noise on durations |
    | `length_uncertainty` | the problem's | sigma of actual / estimated output tokens |
    | `arrivals` | the problem's | `fate_gym.workloads.Arrivals`, or its fields: drawn by the seed |
    | `record` | True | keep what `trace()` needs |
    | `reference` | None | function of (compiled problem, seed) to a makespan |
    | `render_mode` | None | ansi, rgb_array, human |

    `reset(options={"problem": ...})` sets the problem of one episode: a number of the list, or any
    problem that fits the spaces. Bad arguments raise `fate_gym.errors.InputError`.

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
        reference: Reference | None = None,
        **options: Any,
    ) -> None:
        self._options = parse_options(options)
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise InputError(
                f"unknown render mode {render_mode!r}",
                source="environment options",
                field="render_mode",
                remedy=near_matches(render_mode, RENDER_MODES),
            )
        if render_mode is not None and not record:
            raise InputError(
                "nothing is recorded that could be drawn",
                source="environment options",
                field="record",
                remedy="leave render_mode or record=False out",
            )
        self.render_mode = render_mode
        self.source = Source(problem, self._options)
        self.env_spec: Spec = self.source.spec
        self._first_head = self.env_spec.head(0, 1)
        self.observation_space = self.env_spec.observation_space()
        self.action_space = self.env_spec.action_space()
        self._reference = reference
        self._record = record
        self._instance: Instance | None = None
        # What `fate_gym.env.render` keeps from one frame to the next.
        self.chart: Any = None
        self.screen: Any = None

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
        self._take(instance, noise)
        out = self._new_output()
        play.enter(instance.compiled.buffer, instance.facts, self._state, self._frame, out)
        observation = self._observation(out)
        if self.render_mode == "human":
            self.render()
        return observation, self._info(observation)

    def step(
        self, action: SupportsIndex
    ) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Place a stage or wait.

        Raises:
            IllegalActionError: the action is illegal and ``strict`` is set.
            ResetNeeded: the episode has not begun or has ended.
        """
        instance = self._playing()
        number = _number(action)
        if self._options.strict:
            self._check(number)
        # Shards that are lost when a device fails need room in the log.
        self._simulator.extend_log()
        out = self._new_output()
        play.step(
            instance.compiled.buffer,
            instance.facts,
            self._state,
            self._frame,
            self._log,
            out,
            number,
        )
        return self._outcome(instance, out)

    def render(self) -> Any:
        """The run so far as text, picture or window, by ``render_mode``.

        ``ansi`` gives a text, ``rgb_array`` an array (H, W, 3) of the same size for a whole
        episode, ``human`` shows that in a window, or prints the text where there is no display.
        """
        from fate_gym.env.render import render

        self._playing(or_ended=True)
        return render(self)

    def close(self) -> None:
        if self.screen is not None:
            from fate_gym.env.render import close

            close(self)

    # --- beyond Gymnasium ---

    def action_masks(self) -> NDArray[np.bool_]:
        """(S P + 1,) the legal actions, as sb3-contrib asks for them."""
        self._playing(or_ended=True)
        frame = self._frame_view
        mask = np.zeros(self.env_spec.actions, np.bool_)
        shown = int(self._head["shown"])
        widths = frame.widths.reshape(self._options.window, -1)
        mask[: shown * self.env_spec.positions] = widths[frame.lines[:shown]].reshape(-1) > 0
        mask[-1] = self._head["can_wait"]
        return mask

    def place(
        self, assignment: Assignment, *retentions: Retention
    ) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """`step` for a placement that need not be among the actions.

        For policies that split queries in ways of their own, reach beyond the window, copy
        prefixes, or then rank what is cached: ``retentions`` take effect after the placement, at
        the same instant.

        Raises:
            IllegalActionError: the simulator does not allow it.
            ResetNeeded: the episode has not begun or has ended.
        """
        instance = self._playing()
        self._simulator.apply([assignment, *retentions])
        out = self._new_output()
        play.after(
            instance.compiled.buffer,
            instance.facts,
            self._state,
            self._frame,
            self._log,
            out,
            assignment.stage,
        )
        return self._outcome(instance, out)

    def retain(self, retention: Retention) -> None:
        """Evict by these values from now on (`Simulator.retain`); no time passes.

        Raises:
            IllegalActionError: an array has the wrong shape or a value that is not a number.
        """
        self._playing()
        self._simulator.retain(retention)

    def placement(self, action: int) -> Assignment | None:
        """What a legal action does: the stage and its devices; None: wait.

        Raises:
            IllegalActionError: the action is not legal now.
        """
        self._playing()
        self._check(action)
        if action == self.env_spec.actions - 1:
            return None
        return self._offered(action)

    def action_of(self, assignment: Assignment | None, *, exact: bool = False) -> int | None:
        """The action that does this; None if the window does not offer it. No assignment: wait.

        Args:
            assignment: what to do.
            exact: the action has to give the same trace: the same devices in the same order with
                the same counts. Otherwise any that uses these devices (with these counts, if
                there are some) is taken.
        """
        self._playing()
        if assignment is None:
            return self.env_spec.actions - 1 if self._head["can_wait"] else None
        slots = np.flatnonzero(self._frame_view.window == assignment.stage)
        if not slots.size or assignment.migrate_from is not None:
            return None
        wanted = _pairs(assignment, exact)
        first = int(slots[0]) * self.env_spec.positions
        for action in range(first, first + self.env_spec.positions):
            offered = self._offered(action)
            if offered is None:
                continue
            if assignment.counts is None:
                offered = Assignment(offered.stage, offered.devices)
            if _pairs(offered, exact) == wanted:
                return action
        return None

    @property
    def compiled(self) -> CompiledProblem:
        """The problem of the episode."""
        return self._playing(or_ended=True).compiled

    @property
    def noise_seed(self) -> int:
        """``Simulator(env.compiled, seed=env.noise_seed)`` meets the same noise."""
        self._playing(or_ended=True)
        return self._simulator.seed

    @property
    def window(self) -> list[int]:
        """The stages of the window, slot by slot; shorter than S when fewer are ready."""
        self._playing(or_ended=True)
        return [int(s) for s in self._frame_view.window if s >= 0]

    @property
    def reward_unit(self) -> float:
        """Seconds that one unit of reward stands for in this episode."""
        return self._playing(or_ended=True).unit

    @property
    def frame(self) -> Buffer:
        """The frame (`fate_gym.env.layout`), live: for compiled code that looks at placements."""
        self._playing(or_ended=True)
        return self._frame

    @property
    def ended(self) -> bool:
        """Whether the episode has terminated."""
        self._playing(or_ended=True)
        return self._ended

    @property
    def time(self) -> float:
        """Simulated seconds."""
        self._playing(or_ended=True)
        return self._simulator.now

    def view(self) -> DecisionView:
        """What a policy sees of this moment."""
        self._playing(or_ended=True)
        return self._simulator.view()

    def trace(self, policy: str = "") -> Trace:
        """What has happened so far; complete when the episode has terminated.

        Raises:
            InputError: the environment was made with ``record=False``.
        """
        self._playing(or_ended=True)
        if not self._record:
            raise InputError(
                "nothing was recorded", source="environment", remedy="make it with record=True"
            )
        return self._simulator.trace(policy)

    def state(self) -> EnvState:
        """A copy of this moment, random numbers included; for tree search."""
        return EnvState(
            self.env_spec,
            self._playing(or_ended=True),
            self._simulator.moment(),
            self._frame.copy(),
            self.np_random.bit_generator.state,
        )

    def restore(self, state: Any) -> tuple[Observation, dict[str, Any]]:
        """Go to a moment that `state` has kept; returns its observation and info.

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
        instance = state.instance
        self._take(instance, state.moment.seed, fresh=False)
        self._simulator.resume(state.moment)
        self._frame[:] = state.frame
        self.np_random.bit_generator.state = dict(state.random)
        self._ended = bool(self._head["ended"])
        out = self._new_output()
        observe(instance.compiled.buffer, instance.facts, self._state, self._frame, out)
        observation = self._observation(out)
        return observation, self._info(observation)

    # Views into buffers do not survive copying: what they show is kept, and they are made anew.

    def __getstate__(self) -> dict[str, Any]:
        kept = {
            key: value
            for key, value in self.__dict__.items()
            if key
            not in (
                "_instance", "_simulator", "_state", "_log",
                "_frame", "_frame_view", "_head", "_ended",
            )
        }  # fmt: skip
        saved = self.state() if self._instance is not None else None
        return kept | {"chart": None, "screen": None, "_saved": saved}

    def __setstate__(self, kept: Mapping[str, Any]) -> None:
        saved = kept["_saved"]
        self.__dict__.update({key: value for key, value in kept.items() if key != "_saved"})
        self._instance = None
        if saved is not None:
            self.restore(saved)

    # --- inside ---

    def _take(self, instance: Instance, seed: int, *, fresh: bool = True) -> None:
        """Have a simulator of the problem, and a frame; both at the start when ``fresh``."""
        if self._instance is not instance:
            self._simulator = Simulator(instance.compiled, seed=seed, record=self._record)
            self._simulator.play(self._adopt)
            self._frame = np.zeros(instance.sizes[3], np.uint8)
            self._frame[: FRAME_HEAD.itemsize] = self._first_head
            self._frame_view: FrameView = plain(frame_view)(self._frame, instance.compiled.view)
            self._head = self._frame[: FRAME_HEAD.itemsize].view(FRAME_HEAD)[0]
            self._instance = instance
        elif fresh:
            self._simulator.reset(seed)
            self._frame[:] = 0
            self._frame[: FRAME_HEAD.itemsize] = self._first_head
        self._simulator.seed = seed
        self._ended = False

    def _adopt(self, _: Buffer, state: Buffer, log: Log) -> float:
        self._state, self._log = state, log
        return 0.0

    def _new_output(self) -> Buffer:
        return np.empty(self.env_spec.bytes, np.uint8)

    def _observation(self, out: Buffer) -> Observation:
        return self.env_spec.arrays(out, None)

    def _outcome(
        self, instance: Instance, out: Buffer
    ) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """What `step` returns."""
        head = self._head
        self._ended = bool(head["ended"])
        observation = self._observation(out)
        info = self._info(observation)
        if self._ended:
            info["metrics"] = episode_metrics(head, instance, self._simulator.seed, self._reference)
        if self.render_mode == "human":
            self.render()
        return observation, float(head["gain"]), self._ended, False, info

    def _offered(self, action: int) -> Assignment | None:
        """The placement behind an action number, None if there is none."""
        return self.env_spec.placement(self._frame_view, self.compiled, action)

    def _info(self, observation: Observation) -> dict[str, Any]:
        return {
            MASK: observation[MASK].copy(),
            "invalid_action": bool(self._head["invalid"]),
            "time": float(self._head["time"]),
        }

    def _playing(self, *, or_ended: bool = False) -> Instance:
        if self._instance is None or (self._ended and not or_ended):
            raise ResetNeeded("call reset() first: no episode is running")
        return self._instance

    def _check(self, action: int) -> None:
        wait = self.env_spec.actions - 1
        if not 0 <= action <= wait:
            raise IllegalActionError(f"{action} is not an action: they are 0 to {wait}")
        if action == wait:
            if not self._head["can_wait"]:
                raise IllegalActionError(
                    "waiting is illegal when no event lies ahead: place a ready stage"
                )
            return
        if self._offered(action) is None:
            slot, position = divmod(action, self.env_spec.positions)
            raise IllegalActionError(
                f"action {action}: slot {slot} of the window has no placement {position}"
            )


def _number(action: SupportsIndex) -> int:
    """The action as a number; -1 for those that 64 bits do not hold."""
    try:
        number = operator.index(action)
    except TypeError:
        raise InputError(
            f"{action!r} is not a whole number",
            source="environment",
            field="action",
            remedy="give one action of env.action_space",
        ) from None
    return number if abs(number) < 2**63 else -1


def _pairs(assignment: Assignment, ordered: bool) -> list[tuple[int, int]]:
    counts = assignment.counts or (0,) * len(assignment.devices)
    pairs = list(zip(assignment.devices, counts, strict=True))
    return pairs if ordered else sorted(pairs)


def choose_episode(
    source: Source,
    rng: np.random.Generator,
    seed: int | None,
    options: Mapping[str, Any] | None,
) -> tuple[Instance, int]:
    """The problem and the seed of the noise of a new episode.

    Raises:
        InputError: an unknown option, or a problem that does not fit the spaces.
    """
    given = dict(options or {})
    for name in given:
        if name != "problem":
            raise InputError(
                f"unknown option {name!r}",
                source="options of reset",
                remedy="the only option is 'problem'",
            )
    instance = source.choose(given["problem"]) if "problem" in given else source.draw(rng)
    noise = int(rng.integers(MAX_SEED)) if seed is None else seed & MAX_SEED
    return instance, noise


def episode_metrics(
    head: Any, instance: Instance, seed: int, reference: Reference | None
) -> dict[str, float]:
    """What a finished episode was worth; for more, `WorkflowSchedulingEnv.trace`."""
    workflows = instance.compiled.view.workflows
    makespan = float(head["time"]) - instance.first_arrival
    metrics = {
        "makespan": makespan,
        "latency_mean": float(head["ended_latency"]) / workflows.size,
        "placements": int(head["placements"]),
        "waits": int(head["waits"]),
        "invalid_actions": int(head["invalid_steps"]),
    }
    if reference is not None:
        metrics["normalised_makespan"] = makespan / reference(instance.compiled, seed)
    return metrics


if WorkflowSchedulingEnv.__doc__ is not None:  # python -OO strips docstrings
    WorkflowSchedulingEnv.__doc__ = WorkflowSchedulingEnv.__doc__.replace(
        "{features}", feature_tables().replace("\n", "\n    ")
    )

__all__ = ["EnvState", "Observation", "WorkflowSchedulingEnv", "choose_episode", "episode_metrics"]
