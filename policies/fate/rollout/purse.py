"""Budgets of searches whose smallest step may cost more than a decision has."""

from __future__ import annotations


class Purse:
    """Saves the budgets of decisions until they pay for a step.

    So a decision costs what is at stake in the mean, and at most one step more; runs repeat, as no
    clock is looked at.
    """

    def __init__(self) -> None:
        self._saved = 0

    def pay(self, budget: int, least: int) -> int:
        """What may be spent now, in work of plays; 0 as long as ``least`` is not saved.

        Args:
            budget: of this decision.
            least: what the search costs if it is begun at all.
        """
        if budget <= 0:
            return 0
        self._saved += budget
        if self._saved < least:
            return 0
        spent, self._saved = self._saved, 0
        return spent
