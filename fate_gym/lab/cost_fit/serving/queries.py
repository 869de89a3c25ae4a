"""What both engines share: options, requests, the queue of a closed loop, and what was served."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from fate_gym.errors import InputError


@dataclass(frozen=True)
class Engine:
    """How an engine batches.

    ``kv_tokens`` is the KV that its memory has room for. ``launch_s`` passes from the submission of
    a query until it can be admitted (the host prepares it; the batch goes on meanwhile).
    """

    kv_tokens: int
    prefill: Literal["chunked", "first"] = "chunked"
    token_budget: int = 8192
    max_sequences: int = 256
    launch_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("token_budget", "max_sequences"):
            if getattr(self, name) < 1:
                raise InputError("must be at least 1", field=name)


@dataclass(frozen=True)
class Request:
    """Tokens of a query."""

    prompt: int
    output: int

    @property
    def kv_tokens(self) -> int:
        """What is reserved at admission: the query at full length."""
        return self.prompt + self.output


@dataclass
class Query:
    """A request on its way through an engine."""

    request: Request
    submitted: float
    order: int = -1  # of admission
    prefilled: int = 0  # tokens of the prompt
    first_token: float = 0.0
    end: float = 0.0

    @property
    def missing(self) -> int:
        """Prompt tokens still to be computed."""
        return self.request.prompt - self.prefilled

    @property
    def ttft(self) -> float:
        """Seconds from submission to the first token, queueing included."""
        return self.first_token - self.submitted

    @property
    def seconds(self) -> float:
        """Seconds from submission to the last token."""
        return self.end - self.submitted

    @property
    def tpot(self) -> float:
        """Seconds of a token after the first one."""
        return (self.end - self.first_token) / max(1, self.request.output - 1)


@dataclass
class Run:
    """What an engine has served, in the order of ends.

    ``rounds`` counts passes of the engine's main loop: iterations, or changes of the batch.
    """

    queries: list[Query] = field(default_factory=list)
    iterations: int = 0
    rounds: int = 0


class ClosedLoop:
    """The queue in front of an engine, filled by clients that wait for one answer at a time.

    All clients submit at time 0; a client whose query has ended submits the next request at once.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request], clients: int) -> None:
        for request in requests:
            if request.kv_tokens > engine.kv_tokens:
                message = f"{request.kv_tokens} tokens of KV, room for {engine.kv_tokens}"
                raise InputError(message, field="kv_tokens")
        self.engine = engine
        self.now = 0.0
        self.run = Run()
        self._todo = iter(requests)
        self._queue: deque[Query] = deque()
        self._running = 0
        self._reserved = 0
        self._admitted = 0
        for _ in range(clients):
            self._submit()

    def _submit(self) -> None:
        request = next(self._todo, None)
        if request is not None:
            self._queue.append(Query(request, self.now))

    def next_arrival(self) -> float | None:
        """When the head of the queue can be admitted, unless it has to wait for another's end."""
        if not self._queue or not self._fits(self._queue[0]):
            return None
        return self._queue[0].submitted + self.engine.launch_s

    def _fits(self, query: Query) -> bool:
        reserved = self._reserved + query.request.kv_tokens
        return self._running < self.engine.max_sequences and reserved <= self.engine.kv_tokens

    def admit(self) -> list[Query]:
        """Admit from the head of the queue what fits, first come first served.

        An engine that runs nothing waits for the head of the queue.
        """
        arrival = self.next_arrival()
        if arrival is not None and not self._running:
            self.now = max(self.now, arrival)
        admitted = []
        while arrival is not None and arrival <= self.now:
            query = self._queue.popleft()
            query.order = self._admitted
            self._admitted += 1
            self._running += 1
            self._reserved += query.request.kv_tokens
            admitted.append(query)
            arrival = self.next_arrival()
        return admitted

    @property
    def over(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self._running and not self._queue

    def finish(self, query: Query) -> None:
        """Take out a query that has ended now; its client submits the next request."""
        query.end = self.now
        self._running -= 1
        self._reserved -= query.request.kv_tokens
        self.run.queries.append(query)
        self._submit()


Chunk = tuple[Query, int]


def chunks(prompts: Sequence[Query], engine: Engine, decoding: int) -> list[Chunk]:
    """Prompt tokens of the next iteration, first come first served.

    Chunked: what decoding queries leave of the budget, prompts cut at its end. First: whole prompts
    as long as the budget holds them, and at least one.
    """
    first = engine.prefill == "first"
    left = engine.token_budget - (0 if first else decoding)
    plan: list[Chunk] = []
    for query in prompts:
        tokens = query.missing
        if first and plan and tokens > left:
            break
        if not first:
            tokens = min(tokens, left)
        if tokens <= 0:
            break
        plan.append((query, tokens))
        left -= tokens
    return plan


def pairs(plan: Sequence[Chunk]) -> float:
    """Pairs of tokens that the chunks attend to: what is there of their prompt, and themselves."""
    return sum(tokens * (query.prefilled + tokens / 2) for query, tokens in plan)
