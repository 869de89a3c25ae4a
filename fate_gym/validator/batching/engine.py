"""A batching device: its queue, its waves, its iterations."""

from __future__ import annotations

import math
from collections.abc import Callable

from fate_gym.validator.batching.waves import Job, Wave, slack
from fate_gym.validator.costs import Rates
from fate_gym.validator.state import Memory, State


class Engine:
    """One batching device. Its borders are in `border.py` and the modules that it calls."""

    def __init__(self, state: State, number: int, on_end: Callable[[Job, float], None]) -> None:
        self.state, self.number, self.on_end = state, number, on_end
        self.machine = state.world.machines[number]
        self.serving = state.world.problem.cluster.serving
        self.clear()

    def clear(self) -> None:
        """Reset all, as a failure does."""
        self.state.memories[self.number] = Memory()
        self.queue: list[Job] = []
        self.admitted: list[Wave] = []
        """Admitted waves, in the order of admission."""
        self.prompts: list[Wave] = []
        """Waves whose prompt was not complete at the last border, in the order of their joins."""
        self.decoding: list[Wave] = []
        """Decoding waves, in the order in which they began to decode."""
        self.loaded: dict[int, float] = {}
        """When the weights of each resident model were or will be loaded."""
        self.border = 0.0
        """The last border at which something happened."""
        self.until = math.inf
        """The end of the iteration under way; inf if there is none."""
        self.rest = 0.0
        """The rounding error of the sum of iterations up to `until` (Kahan 1965)."""
        self.chunks: dict[Wave, int] = {}
        """Prompt tokens of the iteration under way."""
        self.steps: list[Wave] = []
        """Waves that make a token in the iteration under way."""

    @property
    def memory(self) -> Memory:
        return self.state.memories[self.number]

    @property
    def pinned(self) -> set[tuple[int, int]]:
        """The prefix entries that admitted waves use."""
        return {piece.key for wave in self.admitted for piece in wave.path}

    @property
    def reserved(self) -> float:
        """Bytes of the KV of admitted waves, without their prefixes."""
        return math.fsum(wave.reserved for wave in self.admitted)

    @property
    def runs(self) -> bool:
        """Whether an iteration is under way."""
        return self.until < math.inf

    @property
    def about_to_run(self) -> bool:
        """Whether the device is at a border from which an iteration will start."""
        return not self.runs and bool(self.prompts or self.decoding)

    @property
    def fixed(self) -> Job | None:
        """The fixed stage that has joined, None if there is none."""
        job = self.prompts[0].job if self.prompts else None
        return job if job is not None and job.seconds is not None else None

    @property
    def next_border(self) -> float:
        """The next border known without further commits; inf if its iteration has yet to start."""
        if self.runs or self.about_to_run:
            return self.until
        return max(self.border, min((wave.there for wave in self.admitted), default=math.inf))

    def start(self) -> None:
        """Start an iteration at the border."""
        if self.fixed is not None and self.fixed.seconds is not None:
            self.chunks, self.steps = {self.prompts[0]: self.prompts[0].tokens}, []
            self.until = self._after(self.fixed.seconds)
            return
        self.steps, self.chunks = list(self.decoding), {}
        room = self.serving.token_budget
        if not self.serving.prefill_first:
            room -= sum(wave.queries for wave in self.steps)
            for wave in self.prompts:
                taken = min(room, wave.tokens - wave.done)
                if taken > 0:
                    self.chunks[wave] = taken
                    room -= taken
        elif self.prompts:
            self.steps = []
            for wave in self.prompts:
                if self.chunks and wave.tokens > room:
                    break
                self.chunks[wave] = wave.tokens
                room -= wave.tokens
        self.until = self._after(self._seconds())

    def finish(self) -> None:
        """End the iteration: count the tokens that it has made."""
        for wave, tokens in self.chunks.items():
            wave.done += tokens
        for wave in self.steps:
            wave.made += 1
        self.border, self.until = self.until, math.inf

    def _after(self, seconds: float) -> float:
        """Return the time ``seconds`` after the border, with rounding errors compensated."""
        exact = seconds + self.rest
        time = self.border + exact
        self.rest = exact - (time - self.border)
        return time

    def _seconds(self) -> float:
        """Return the seconds of the iteration, noise included."""
        parts = [(wave, tokens) for wave, tokens in self.chunks.items()]
        parts += [(wave, wave.queries) for wave in self.steps]
        tokens = sum(count for _, count in parts)
        model = parts[0][0].job.node.model
        assert model is not None
        rates = Rates(model, self.machine)
        yielding = [wave for wave, c in self.chunks.items() if wave.done + c >= wave.tokens]
        outputs = sum(wave.queries for wave in [*self.steps, *yielding])
        pairs = sum(wave.pairs * c / wave.tokens for wave, c in self.chunks.items())
        contexts = sum(wave.queries * wave.context for wave in self.steps)
        seconds = rates.linear(tokens, outputs) + rates.attending(pairs)
        seconds += rates.recalling(contexts) + rates.between(tokens)
        return seconds * sum(wave.job.noise * count for wave, count in parts) / tokens

    def is_there(self, wave: Wave) -> bool:
        """Return whether the inputs of a wave are there at the border."""
        return wave.there <= self.border + slack(self.border)
