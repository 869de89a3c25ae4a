"""The state of a training on disk, from which a killed training resumes.

The state is written after each chunk into a new directory, which then replaces the previous one;
one of them is complete at any time.
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
"""Suffix of the files that torch writes into an archive; they are archives themselves."""


class Progress(BaseModel):
    """The progress of a training."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(0, ge=0)
    """Completed epochs of supervised learning."""
    chunks: int = Field(0, ge=0)
    """Completed chunks of reinforcement learning."""
    steps: int = Field(0, ge=0)
    updates: int = Field(0, ge=0)
    best: float | None = None
    """Mean latency ratio of the best validation so far; lower is better."""
    best_steps: int = 0
    since_best: int = 0
    """Validations of reinforcement learning since the best one."""
    seconds: float = 0.0
    curve: list[dict[str, float]] = []
    """One row per validation."""
    stopped: str | None = None
    """Why the training ended before its last step."""

    @field_validator("curve")
    @classmethod
    def _says_when_and_what(cls, curve: list[dict[str, float]]) -> list[dict[str, float]]:
        if not all({"steps", "latency_ratio"} <= row.keys() for row in curve):
            raise ValueError("a validation without steps or latency_ratio")
        return curve


def damaged(path: Path, directory: Path) -> InputError:
    """Return the error for a file of a training that is missing or cannot be read."""
    return InputError(
        "this file of the training is missing or damaged",
        source=path,
        remedy=f"delete {directory} to train anew",
    )


def check_stored(file: Path | IO[bytes], size: int) -> None:
    """Check that an archive unpacks to no more bytes than its file has.

    NumPy and torch do not compress here, and a few MB of compressed data can expand to gigabytes.

    Args:
        file: the archive, which may be part of another one.
        size: size of the file, bytes.

    Raises:
        ValueError: a part is compressed, or the parts are larger than the file.
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
    """Read the progress of a training; also return the directory of its state (None: not begun).

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
    """Write the progress and the files of ``save``, which is called with the new directory."""
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
