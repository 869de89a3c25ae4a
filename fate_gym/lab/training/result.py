"""The result of a finished training, ``training.json``."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fate_gym.errors import InputError
from fate_gym.lab.files import read_bytes
from fate_gym.lab.training.evaluation import Score

RESULT = "training.json"
Model = TypeVar("Model", bound=BaseModel)


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
    validation: Score
    test: Score | None
    config_hash: str
    versions: dict[str, str]
    git_sha: str | None
    machine: str


def read_train_result(directory: Path) -> TrainResult | None:
    """Read the result of a training; None if it is not finished.

    Raises:
        InputError: the file is damaged.
    """
    remedy = "delete the file and re-run the same command"
    return read_model(directory / RESULT, TrainResult, "result", remedy)


def read_model(path: Path, model: type[Model], what: str, remedy: str) -> Model | None:
    """Read and validate a file of a training; None if it does not exist.

    Args:
        path: the file.
        model: its content.
        what: name of the content in errors.
        remedy: remedy that errors suggest.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return model.model_validate_json(read_bytes(path))
    except ValidationError as error:
        fault = f"not the {what} of a training ({error.errors()[0]['msg']})"
        raise InputError(fault, source=path, remedy=remedy) from None
