"""Shards, and the waves in which they run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fate_gym.validator.costs import wave_limit
from fate_gym.validator.state import Fetch, Hits, Row
from fate_gym.validator.world import Machine, Node, Piece


def slack(time: float) -> float:
    """Return the seconds around ``time`` that count as the same moment: 1e-9, plus rounding."""
    return 1e-9 + 1e-12 * abs(time)


@dataclass
class Found:
    """The replayed values of a shard: the columns of its row."""

    start: float = math.inf
    load: float = 0.0
    transfer: float = 0.0
    first: float = math.inf
    prefix: int | None = None
    """Prefix tokens that needed no computing at the first join; None before."""
    context_hit: float = 0.0
    context_new: float = 0.0
    copied: int = 0
    bytes_moved: float = 0.0
    preempted: int = 0


@dataclass(eq=False)
class Job:
    """A committed shard."""

    node: Node
    row: Row
    batch: int
    """Queries of a full wave."""
    noise: float
    target: int
    """Tokens that each query makes in the end."""
    seconds: float | None
    """Given seconds of a fixed stage, noise included."""
    left: int
    """Queries of waves that were never admitted."""
    paused: Wave | None = None
    """The preempted wave that waits for readmission."""
    end: float | None = None
    is_void: bool = False
    """Whether its stage has lost a shard, so that what it computes is thrown away."""
    found: Found = field(default_factory=Found)

    @classmethod
    def of(
        cls, node: Node, row: Row, machine: Machine, most: int, drawn: tuple[float, float]
    ) -> Job:
        """Return a row's shard, given the most queries at once, and its noise and length."""
        noise, length = drawn
        target, batch, seconds = node.stage.output_tokens, row["queries"], None
        if node.stage.seconds_on is not None:
            target, seconds = 0, node.stage.seconds_on[machine.name] * noise
        else:
            batch = wave_limit(node, machine, most)
            if target > 0:
                target = max(1, math.floor(target * length + 0.5))
        return cls(node, row, batch, noise, target, seconds, left=row["queries"])

    @property
    def waves(self) -> int:
        return math.ceil(int(self.row["queries"]) / self.batch)

    @property
    def next_wave(self) -> Wave:
        """The wave to be admitted next."""
        return self.paused or Wave(self, min(self.batch, self.left), self.node.stage.output_tokens)

    @property
    def kv(self) -> float:
        """KV bytes of one token."""
        return self.node.model.kv_bytes_per_token if self.node.model else 0

    @property
    def growth(self) -> int:
        """Tokens per query for which a wave reserves more when it grows."""
        return max(16, math.ceil(self.node.stage.output_tokens / 8))


@dataclass(eq=False)
class Wave:
    """Queries of a shard that are admitted, computed and ended together."""

    job: Job
    queries: int
    room: int
    """Output tokens per query for which KV is reserved."""
    made: int = 0
    """Output tokens per query made so far."""
    path: list[Piece] = field(default_factory=list)
    """The prefix entries that it pins, the last of the path first."""
    there: float = math.inf
    """When its inputs are there."""
    hits: Hits = field(default_factory=lambda: Hits(0, {}))
    """What the admission found; for the prefix, the tokens cached then plus those copied."""
    fetch: Fetch | None = None
    lacks: set[tuple[int, int]] = field(default_factory=set)
    """The entries that lacked some tokens at the admission, until these are computed."""
    joined: bool = False
    known: int = 0
    """Prefix tokens that needed no computing at the join."""
    tokens: int = 0
    """Prompt tokens to compute."""
    pairs: float = 0.0
    done: int = 0
    """Prompt tokens computed so far."""

    @property
    def reserved(self) -> float:
        """Bytes of KV reserved for the wave itself, without its prefix."""
        node = self.job.node
        each = node.query_tokens - node.stage.output_tokens + self.room
        return self.queries * each * self.job.kv

    @property
    def context(self) -> int:
        """Tokens that a query attends to, cached or not."""
        stage = self.job.node.stage
        return stage.prefix_tokens + stage.prompt_tokens + self.job.node.inherited + self.made

    @property
    def in_prompt(self) -> bool:
        """Whether its prompt is not complete yet."""
        return self.joined and self.done < self.tokens
