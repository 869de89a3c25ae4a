"""The sweeper of plain sweeps. Hydra takes plugins from this namespace package only."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from fate_gym.lab.sweep.grid import Settings, grid_jobs


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, which runs every combination of the values that are given.

    With ``settings``, sets of options by name, it runs all of them with each set: options that
    change together, where a product would have far too many jobs.

    Hydra composes every job twice, here to find mistakes and again where it runs. For hundreds of
    jobs the first takes longer than to start them, so only jobs with a value that no job before
    had are composed here: every value is checked, in one combination.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.settings = settings

    def split_arguments(  # type: ignore[override] # Hydra calls it on the object
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The overrides of every job, in batches."""
        jobs = grid_jobs(overrides, self.settings)
        return list(self.split_overrides_to_chunks(jobs, max_batch_size))

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose enough jobs that every value occurs. Raises what Hydra raises."""
        seen: set[str] = set()
        chosen = []
        for overrides in batch:
            if not seen.issuperset(overrides):
                seen.update(overrides)
                chosen.append(overrides)
        super().validate_batch_is_legal(chosen)
