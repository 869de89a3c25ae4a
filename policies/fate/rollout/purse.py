"""Budgets of searches whose smallest step may cost more than a decision has."""

from __future__ import annotations

MOST = 25_000
"""Work of the largest step: some 40 ms where states are too large for the caches of a processor."""


class Purse:
    """Saves the budgets of decisions until they pay for a step.

    So a decision costs what it may in the mean, and one step of at most `MOST` more. No clock is
    looked at: runs repeat.
    """

    def __init__(self) -> None:
        self._saved = 0

    def pay(self, budget: int, least: int) -> int:
        """What may be spent now, in work of plays; 0 if ``least`` is not saved yet, or too much.

        Args:
            budget: of this decision.
            least: what the search costs if it is begun at all.
        """
        if budget <= 0 or least > MOST:
            return 0
        self._saved += budget
        if self._saved < least:
            return 0
        spent, self._saved = self._saved, 0
        return spent
