"""How far the parts of a script have come: the same for computed and for measured times."""

from __future__ import annotations

from fate_gym.lab.replay.script import Close, Open, Operation, Pass, Script


class Progress:
    """Prompt tokens that are computed, and output tokens that are made, of the open parts."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.done: dict[int, int] = {}
        self.made: dict[int, int] = {}

    def context(self, number: int) -> int:
        """Tokens that the next token of each query of a part attends to."""
        return self.script.parts[number].prompt + self.made[number]

    def completes(self, number: int, tokens: int) -> bool:
        """Whether so many more tokens complete the prompt of a part."""
        return self.done[number] + tokens >= self.script.parts[number].tokens

    def follow(self, operation: Operation) -> None:
        """Count what an operation has done."""
        if isinstance(operation, Open):
            self.done[operation.part] = self.made[operation.part] = 0
        elif isinstance(operation, Close):
            del self.done[operation.part], self.made[operation.part]
        elif isinstance(operation, Pass):
            for number, tokens in operation.chunks:
                completes = self.completes(number, tokens)
                self.done[number] += tokens
                if completes and self.script.parts[number].first_comes_with_prompt:
                    self.made[number] += 1
            for number in operation.steps:
                self.made[number] += 1
