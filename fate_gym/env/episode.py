"""How episodes begin, what they achieved, and moments of them to return to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fate_gym.catalog.limits import MOST_SEED
from fate_gym.env.faults import bad
from fate_gym.env.named import is_name_of_object, named_object
from fate_gym.env.schema import EpisodeArrays, Run
from fate_gym.env.source import Instance, Source
from fate_gym.env.spec import Spec
from fate_gym.kernel.placements import Placements
from fate_gym.sim.simulator import Moment

Reference = Callable[[Any, int], float]
"""Function of a compiled problem and the seed of the noise; returns a makespan, seconds."""


@dataclass(frozen=True, eq=False)
class EnvState:
    """A moment of an episode to return to (`WorkflowSchedulingEnv.restore`)."""

    spec: Spec
    instance: Instance
    moment: Moment
    episode: EpisodeArrays
    placements: Placements
    random: Mapping[str, Any]


def choose_episode(
    source: Source,
    rng: np.random.Generator,
    seed: int | None,
    options: Mapping[str, Any] | None,
) -> tuple[Instance, int]:
    """Return the problem and the noise seed of a new episode.

    Raises:
        InputError: an unknown option, or a problem that does not fit the spaces.
    """
    given = dict(options or {})
    for name in given:
        if name != "problem":
            remedy = "the only option is 'problem'"
            raise bad("options of reset", None, f"unknown option {name!r}", remedy)
    instance = source.choose(given["problem"], rng) if "problem" in given else source.draw(rng)
    noise = int(rng.integers(MOST_SEED)) if seed is None else seed & MOST_SEED
    return instance, noise


def named_reference(reference: Reference | str | None) -> Reference | None:
    """Return a reference, resolving a name ``"module:function"``. Raises `InputError`."""
    found: Any = named_object(reference, "reference") if is_name_of_object(reference) else reference
    assert not isinstance(found, str)
    return found


def times_so_far(reference: Reference | None) -> dict[str, float]:
    """Return the time metrics of an episode that has not terminated: inf, not known yet."""
    times = {"makespan": math.inf, "latency_mean": math.inf}
    return times if reference is None else times | {"makespan_ratio": math.inf}


def times_of(
    run: Run, instance: Instance, seed: int, reference: Reference | None
) -> dict[str, float]:
    """Return the time metrics of a terminated episode; its trace has more."""
    episode = run.episode
    makespan = run.state.now - run.facts.first_arrival
    times = {
        "makespan": makespan,
        "latency_mean": episode.ended_latency / episode.workflows.size,
    }
    if reference is not None:
        times["makespan_ratio"] = makespan / reference(instance.compiled, seed)
    return times
