"""Budgets for searches whose smallest step may exceed the budget of one decision."""

from __future__ import annotations

MOST = 25_000
"""Largest step allowed, in work: 10 to 20 ms."""


class SavedBudget:
    """Saves the budgets of decisions until they cover a step.

    So decisions keep within their budget on average, and any one exceeds it by at most one step of
    `MOST`. No clock is read, so runs are repeatable.
    """

    def __init__(self) -> None:
        self._saved = 0

    def withdraw(self, budget: int, least: int) -> int:
        """Return the work that may be spent now; 0: ``least`` is not saved yet, or over `MOST`.

        Args:
            budget: work granted by this decision.
            least: work that the search needs to be worth starting.
        """
        if budget <= 0 or least > MOST:
            return 0
        self._saved += budget
        if self._saved < least:
            return 0
        spent, self._saved = self._saved, 0
        return spent
