"""What a training keeps on disk, so that it can be killed and go on.

The state is written after each chunk into a directory of its own that then takes the place of the
one before; at every moment one of them is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fate_gym.errors import InputError
from fate_gym.lab.results import write_text

STATE = "state"
PROGRESS = "progress.json"
RESULT = "training.json"


class Progress(BaseModel):
    """How far a training is."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = 0
    """Of imitation, done."""
    chunks: int = 0
    """Of learning, done."""
    steps: int = 0
    updates: int = 0
    best: float | None = None
    """Mean mark of the best validation so far; lower is better."""
    best_steps: int = 0
    since_best: int = 0
    """Validations since then."""
    seconds: float = 0.0
    curve: list[dict[str, float]] = []
    """One row a validation."""
    stopped: str | None = None
    """Why it ended before its last step."""


def read_progress(directory: Path) -> tuple[Progress, Path | None]:
    """The progress of a training, and the directory of its state; a new one without.

    Raises:
        InputError: the file is damaged.
    """
    for name in (STATE, f"{STATE}.old"):
        path = directory / name / PROGRESS
        if path.is_file():
            try:
                return Progress.model_validate_json(path.read_bytes()), path.parent
            except ValidationError as error:
                raise InputError(
                    f"not the progress of a training ({error.errors()[0]['msg']})",
                    source=path,
                    remedy=f"delete {directory} to train anew",
                ) from None
    return Progress(), None


def write_state(directory: Path, progress: Progress, save: Callable[[Path], None]) -> None:
    """Keep the progress, and what ``save`` writes into the directory that it is given."""
    new, place, old = (directory / f"{STATE}{suffix}" for suffix in (".new", "", ".old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save(new)
    write_text(new / PROGRESS, progress.model_dump_json())
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


class TrainResult(BaseModel):
    """The content of ``training.json``, written last."""

    model_config = ConfigDict(frozen=True)

    status: str
    title: str
    agent: str
    curriculum: str
    seed: int
    steps: int
    labelled_states: int
    best: float
    best_steps: int
    seconds: float
    stopped: str | None
    validation: dict[str, Any]
    test: dict[str, Any] | None
    config_hash: str
    versions: dict[str, str]
    git_sha: str | None
    machine: str


def read_train_result(directory: Path) -> TrainResult | None:
    """The result of a finished training, or None.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / RESULT
    if not path.is_file():
        return None
    try:
        return TrainResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"not the result of a training ({error.errors()[0]['msg']})",
            source=path,
            remedy="delete the file and run the same command again",
        ) from None


__all__ = [
    "RESULT",
    "STATE",
    "Progress",
    "TrainResult",
    "read_progress",
    "read_train_result",
    "write_state",
]
