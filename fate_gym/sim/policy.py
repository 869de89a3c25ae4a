"""The interface of a policy: the calls that the simulator makes."""

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
    """Run ready stage ``stage`` on ``devices``; without ``counts``, split in proportion to speed.

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
    """How much cached data is worth keeping. Replaces LRU, until the next retention.

    When a shard needs room, the KV entry with the lowest value goes first, and when none is left
    the idle weights with the lowest value; among equals, the least recently used. Whatever is not
    given has value 0; before the first retention everything has, which is LRU.

    Attributes:
        prefixes: (Q,) values of the prefix keys on every device, or (D, Q).
        contexts: (S,) values of the contexts that a stage's shards leave.
        models: (M,) values of weights on every device, or (D, M).
        until: (Q,) or (D, Q) simulated seconds after which the value of the prefix key is 0. If not
            given, or where it is inf, the values of prefixes do not expire.
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
        value: the value compared, smaller is better; inf: not worth it, or not tried.
    """

    stage: int
    devices: tuple[int, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a policy compared in one decision.

    Attributes:
        quantity: what the values mean, in words, with their unit.
        candidates: of all stages that were decided on.
    """

    quantity: str
    candidates: Sequence[Candidate]


@runtime_checkable
class Policy(Protocol):
    """Decides where ready stages run. Carries nothing over from one run to the next."""

    name: str

    def reset(self, view: DecisionView, seed: int) -> None:
        """Prepare for a run; called once before it. ``seed`` is for the policy's random choices."""
        ...

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Assign ready stages; called at every event that leaves some ready.

        The decisions take effect in order, then the policy is asked again while stages are
        ready. An answer without an assignment means: wait for the next event.
        """
        ...


@runtime_checkable
class CountingPolicy(Policy, Protocol):
    """A policy that counts what it does; trace and results contain the counters."""

    counters: dict[str, float]


@runtime_checkable
class ExplainingPolicy(Policy, Protocol):
    """A policy that can tell what it compared.

    Only traced runs ask for it, so `Policy.decide` need not keep what can be recomputed.
    """

    def explain(self, view: DecisionView) -> Explanation | None:
        """Return what the last `decide` compared; None if it compared nothing.

        Called right after `decide`, before its decisions take effect.
        """
        ...


@runtime_checkable
class PlayingPolicy(Policy, Protocol):
    """A policy that can also play the rest of a run in one compiled call."""

    def play(self, simulator: Simulator) -> float:
        """Play from the live state to the end, as `Simulator.run` would; returns the last end."""
        ...
