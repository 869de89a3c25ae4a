"""Progress of a script's parts, for predicting as well as for executing."""

from __future__ import annotations

from fate_gym.lab.replay.script import Close, Open, Operation, Pass, Script


class Progress:
    """Prompt tokens computed and output tokens generated so far by the open parts."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.done: dict[int, int] = {}
        self.made: dict[int, int] = {}

    def context(self, number: int) -> int:
        """Return the number of tokens that a part's next token attends to, per query."""
        return self.script.parts[number].prompt + self.made[number]

    def completes(self, number: int, tokens: int) -> bool:
        """Whether ``tokens`` more prompt tokens complete the prompts of a part."""
        return self.done[number] + tokens >= self.script.parts[number].tokens

    def follow(self, operation: Operation) -> None:
        """Update the counts after an operation."""
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
