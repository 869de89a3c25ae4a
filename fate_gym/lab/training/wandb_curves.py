"""Learning curves: SB3's own numbers and ours, to W&B. The files of the training are the record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter

from fate_gym.lab.config import TrackingConfig
from fate_gym.lab.errors import first_line
from fate_gym.lab.tracking.wandb_run import start_run


class Curves(KVWriter):
    """SB3's logger writes here; a W&B run takes it, if there is one.

    Attributes:
        warning: what W&B said when it failed; nothing is sent after that.
        last: the last value of every number.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self.warning: str | None = None
        self.last: dict[str, float] = {}

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """What SB3 calls at each dump."""
        numbers = {k: float(v) for k, v in key_values.items() if isinstance(v, int | float)}
        self.log(numbers, step)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers at a step."""
        self.last.update(numbers)
        self._send(lambda run: run.log(dict(numbers) | {"steps": step}))

    def picture(self, name: str, path: Path) -> None:
        """A picture from a file."""

        def send(run: Any) -> None:
            import wandb

            run.log({name: wandb.Image(str(path))})

        self._send(send)

    def close(self) -> None:
        """SB3 closes its writers; the run ends with the training."""

    def _send(self, send: Callable[[Any], None]) -> None:
        if self._run is None or self.warning is not None:
            return
        try:
            send(self._run)
        except Exception as error:  # noqa: BLE001
            # Whatever a third-party client does, the training goes on.
            self.warning = f"W&B stopped: {first_line(error)}"


@contextmanager
def learning_curves(
    tracking: TrackingConfig,
    directory: Path,
    identity: Mapping[str, Any],
    config: Mapping[str, Any],
) -> Iterator[Curves]:
    """A W&B run for a training, or just its last numbers with mode ``none``.

    Args:
        tracking: where to.
        directory: everything that W&B writes goes there.
        identity: name, group, id and tags.
        config: the resolved configuration.
    """
    if tracking.mode == "none":
        yield Curves(None)
        return
    os.environ.setdefault("WANDB_DATA_DIR", str(directory / "wandb" / "data"))
    resume = "allow" if tracking.mode == "online" else None
    run, warning = None, None
    try:
        run = start_run(tracking, directory, config, job_type="train", resume=resume, **identity)
        run.define_metric("steps", hidden=True)
        run.define_metric("*", step_metric="steps")
        run.define_metric("validation/latency_ratio", step_metric="steps", summary="min")
    except Exception as error:  # noqa: BLE001
        warning = f"W&B did not start: {first_line(error)}"
    curves = Curves(run)
    curves.warning = warning
    try:
        yield curves
    finally:
        if run is not None:
            run.finish()
