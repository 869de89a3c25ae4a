"""What a training keeps on disk, so that it can be killed and go on.

The state is written after each chunk into a directory of its own that then takes the place of the
one before; at every moment one of them is whole.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fate_gym.errors import InputError
from fate_gym.files import flush, flush_all, write_text
from fate_gym.lab.training.result import read_model

STATE = "state"
PROGRESS = "progress.json"
_TORCH = ".pth"
"""Ends the names of what torch has written into an archive: archives again."""


class Progress(BaseModel):
    """How far a training is."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(0, ge=0)
    """Of imitation, done."""
    chunks: int = Field(0, ge=0)
    """Of learning, done."""
    steps: int = Field(0, ge=0)
    updates: int = Field(0, ge=0)
    best: float | None = None
    """Mean latency ratio of the best validation so far; lower is better."""
    best_steps: int = 0
    since_best: int = 0
    """Validations since then."""
    seconds: float = 0.0
    curve: list[dict[str, float]] = []
    """One row a validation."""
    stopped: str | None = None
    """Why it ended before its last step."""

    @field_validator("curve")
    @classmethod
    def _says_when_and_what(cls, curve: list[dict[str, float]]) -> list[dict[str, float]]:
        if not all({"steps", "latency_ratio"} <= row.keys() for row in curve):
            raise ValueError("a validation without steps or latency_ratio")
        return curve


def damaged(path: Path, directory: Path) -> InputError:
    """The error for a file of a training that is missing or cannot be read."""
    return InputError(
        "this file of the training is missing or damaged",
        source=path,
        remedy=f"delete {directory} to train anew",
    )


def check_stored(file: Path | IO[bytes], size: int) -> None:
    """Check that an archive takes no more memory than its file has bytes.

    NumPy and torch compress nothing, and a few MB of what is compressed can hold gigabytes.

    Args:
        file: of the archive, or a part of one.
        size: of the file, bytes.

    Raises:
        ValueError: a part is compressed, or parts share their bytes.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("a part is compressed")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("the parts are larger than the file")
        for entry in entries:
            if entry.filename.endswith(_TORCH):
                with archive.open(entry) as part:
                    check_stored(part, entry.file_size)


def read_progress(directory: Path) -> tuple[Progress, Path | None]:
    """The progress of a training, and the directory of its state; a new one without.

    Raises:
        InputError: the file is damaged.
    """
    for name in (STATE, f"{STATE}.old"):
        path = directory / name / PROGRESS
        found = read_model(path, Progress, "progress", f"delete {directory} to train anew")
        if found is not None:
            return found, path.parent
    return Progress(), None


def write_state(directory: Path, progress: Progress, save: Callable[[Path], None]) -> None:
    """Keep the progress, and what ``save`` writes into the directory that it is given."""
    new, place, old = (directory / f"{STATE}{suffix}" for suffix in (".new", "", ".old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save(new)
    write_text(new / PROGRESS, progress.model_dump_json())
    flush_all(new)
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    flush(directory)
    shutil.rmtree(old, ignore_errors=True)
