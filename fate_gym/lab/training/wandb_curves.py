"""Logs learning curves, SB3's numbers and ours, to W&B.

The training's own files are the authoritative record.
"""

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
    """Receives what SB3's logger writes, and logs it to a W&B run if there is one.

    Attributes:
        warning: the error of W&B if it failed; nothing is logged to it after that.
        last: latest value of every number.
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
        """Log the numbers of a dump; called by SB3."""
        numbers = {k: float(v) for k, v in key_values.items() if isinstance(v, int | float)}
        self.log(numbers, step)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log numbers at a step."""
        self.last.update(numbers)
        self._send(lambda run: run.log(dict(numbers) | {"steps": step}))

    def picture(self, name: str, path: Path) -> None:
        """Log a picture from a file."""

        def send(run: Any) -> None:
            import wandb

            run.log({name: wandb.Image(str(path))})

        self._send(send)

    def close(self) -> None:
        """Do nothing: SB3 closes its writers, but the W&B run lasts until the training ends."""

    def _send(self, send: Callable[[Any], None]) -> None:
        if self._run is None or self.warning is not None:
            return
        try:
            send(self._run)
        except Exception as error:  # noqa: BLE001
            # A failure of a third-party client must not end the training.
            self.warning = f"W&B stopped: {first_line(error)}"


@contextmanager
def learning_curves(
    tracking: TrackingConfig,
    directory: Path,
    identity: Mapping[str, Any],
    config: Mapping[str, Any],
) -> Iterator[Curves]:
    """Yield a training's `Curves`, which with mode ``none`` only keep the last numbers.

    Args:
        tracking: mode and destination of W&B.
        directory: directory of the training, to which W&B writes its files.
        identity: name, group, id and tags of the run.
        config: resolved configuration.
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
