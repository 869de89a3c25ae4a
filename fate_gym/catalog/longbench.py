"""The average lengths of LongBench's tasks."""

from __future__ import annotations

from functools import cache

from pydantic import PositiveFloat, PositiveInt

from fate_gym.catalog.loader import _Fact, read_yaml
from fate_gym.catalog.roles import Lengths


class LongBenchTask(_Fact):
    """One task: average words of its documents, and the limit of generated tokens."""

    name: str
    category: str
    words: PositiveInt
    output: PositiveInt


class LongBench(_Fact):
    """The tasks, and the factors that turn them into token counts."""

    tasks: dict[str, LongBenchTask]
    tokens_per_word: PositiveFloat
    question: Lengths

    def document_tokens(self, task: str) -> int:
        """Return the tokens of an average document of a task."""
        return round(self.tasks[task].words * self.tokens_per_word)


@cache
def longbench() -> LongBench:
    """Return the catalogue's LongBench figures."""
    rows = read_yaml("longbench.yaml")
    return LongBench(
        tasks={name: LongBenchTask(name=name, **row) for name, row in rows["tasks"].items()},
        tokens_per_word=rows["tokens_per_word"]["value"],
        question=Lengths(**rows["question"]),
    )
