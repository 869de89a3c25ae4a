"""The sweeper of plain sweeps. Hydra takes plugins from this namespace package only."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, which runs every combination of the values that are given.

    Hydra composes every job twice, here to find mistakes and again where it runs. For hundreds of
    jobs the first takes longer than to start them, so only jobs with a value that no job before
    had are composed here: every value is checked, in one combination.
    """

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose enough jobs that every value occurs. Raises what Hydra raises."""
        seen: set[str] = set()
        chosen = []
        for overrides in batch:
            if not seen.issuperset(overrides):
                seen.update(overrides)
                chosen.append(overrides)
        super().validate_batch_is_legal(chosen)
