"""What a policy is: the two calls that the simulator makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from numpy.typing import NDArray

from fate_gym.sim.view import DecisionView

if TYPE_CHECKING:
    from fate_gym.sim.simulator import Simulator


@dataclass(frozen=True, slots=True)
class Assignment:
    """Run ready stage ``stage`` on ``devices``; without ``counts`` in proportion to speed.

    Attributes:
        stage: stage number.
        devices: distinct device numbers, at most ``max_shards``.
        counts: queries of each device, positive, summing to the stage's queries.
        migrate_from: a device that sends what it caches of the stage's prefix to those of
            ``devices`` that cache less, before they prefill.
    """

    stage: int
    devices: tuple[int, ...]
    counts: tuple[int, ...] | None = None
    migrate_from: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Retention:
    """How much cached things are worth keeping. Replaces the LRU rule until the next one.

    When a shard needs room, the KV entry with the lowest value goes first, and when none is left
    the idle weights with the lowest value; among equals the least recently used. What is left
    out has the value 0, and so has everything before the first retention: that is LRU.

    Attributes:
        prefixes: (Q,) values of the prefix keys on every device, or (D, Q).
        contexts: (S,) values of the contexts that a stage's shards leave.
        models: (M,) values of weights on every device, or (D, M).
        until: (Q,) or (D, Q) simulated seconds; after them the value of the prefix key is 0.
            Without, and where it is inf, values of prefixes have no end.
    """

    prefixes: NDArray[Any] | None = None
    contexts: NDArray[Any] | None = None
    models: NDArray[Any] | None = None
    until: NDArray[Any] | None = None


Decision: TypeAlias = Assignment | Retention


@dataclass(frozen=True, slots=True)
class Candidate:
    """A placement that a policy compared with others.

    Attributes:
        stage: stage number.
        devices: device numbers.
        value: what it was compared by, smaller is better; inf: not worth it, or not tried.
    """

    stage: int
    devices: tuple[int, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a policy compared in one decision.

    Attributes:
        quantity: what the values are, in words, with their unit.
        candidates: of all stages that were decided on.
    """

    quantity: str
    candidates: Sequence[Candidate]


@runtime_checkable
class Policy(Protocol):
    """Decides where ready stages run. Keeps nothing from one run to the next after `reset`."""

    name: str

    def reset(self, view: DecisionView, seed: int) -> None:
        """Called once before a run. ``seed`` is for the policy's own random choices."""
        ...

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Assign ready stages; called at every event that leaves some ready.

        The decisions take effect in order, then the policy is asked again while stages are
        ready. An answer without an assignment means: wait for the next event.
        """
        ...


@runtime_checkable
class CountingPolicy(Policy, Protocol):
    """A policy that counts what it does; the counters stand in the trace and in results."""

    counters: dict[str, float]


@runtime_checkable
class ExplainingPolicy(Policy, Protocol):
    """A policy that can say what it compared.

    Asked only in runs that are traced, so `Policy.decide` need not keep what it can find again.
    """

    def explain(self, view: DecisionView) -> Explanation | None:
        """What the last `decide` compared; None if it compared nothing.

        Called right after it, before its decisions take effect.
        """
        ...


@runtime_checkable
class PlayingPolicy(Policy, Protocol):
    """A policy that can also play the rest of a run in one compiled call."""

    def play(self, simulator: Simulator) -> float:
        """Play from the live state to the end, as `Simulator.run` would; returns the last end."""
        ...
