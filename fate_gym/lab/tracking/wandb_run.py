"""Starts W&B runs that write nothing outside a given directory.

Offline by default, which needs neither account nor network; ``wandb sync
DIRECTORY/wandb/offline-run-*`` uploads a run later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fate_gym.lab.config import TrackingConfig

TIMEOUT_SECONDS = 20
"""Timeout for the server's answer to a login or a new run."""


def start_run(
    tracking: TrackingConfig, directory: Path, config: Mapping[str, Any], **identity: Any
) -> Any:
    """Start a W&B run, or resume the one with the same id.

    Args:
        tracking: settings; the mode must not be ``none``.
        directory: directory for all files that W&B writes.
        config: configuration of the run.
        identity: name, group, id, tags and so on, passed to `wandb.init`.
    """
    import wandb

    assert tracking.mode != "none"
    settings = wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        init_timeout=TIMEOUT_SECONDS,
        login_timeout=TIMEOUT_SECONDS,
        # A killed run loses unflushed data; the default interval is 15 s.
        x_transaction_log_flush_interval=2.0,
    )
    return wandb.init(
        project=tracking.project,
        entity=tracking.entity,
        mode=tracking.mode,
        dir=str(directory),
        config=dict(config),
        settings=settings,
        **identity,
    )


@contextmanager
def wandb_inside(directory: Path) -> Iterator[None]:
    """Keep everything that W&B writes inside a directory, by setting its environment variables."""
    wanted = {"WANDB_DIR": str(directory), "WANDB_DATA_DIR": str(directory / "wandb" / "data")}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
