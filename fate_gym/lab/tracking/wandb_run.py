"""Starts a W&B run that writes nothing outside a directory.

Offline by default: no account, no network. ``wandb sync DIRECTORY/wandb/offline-run-*`` sends a run
later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fate_gym.lab.config import TrackingConfig

TIMEOUT_SECONDS = 20
"""For the server's answer to a login or to a new run."""


def start_run(
    tracking: TrackingConfig, directory: Path, config: Mapping[str, Any], **identity: Any
) -> Any:
    """A new W&B run, or the one with the same id.

    Args:
        tracking: where to; not mode ``none``.
        directory: everything that W&B writes goes there.
        config: what the run is a run of.
        identity: name, group, id, tags and the like, as `wandb.init` takes them.
    """
    import wandb

    assert tracking.mode != "none"
    settings = wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        init_timeout=TIMEOUT_SECONDS,
        login_timeout=TIMEOUT_SECONDS,
        # A killed run loses what is not flushed; the default is 15 s.
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
    """Keep everything that W&B writes inside a directory: it reads these from the environment."""
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
