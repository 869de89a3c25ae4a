"""Files of measured GPUs, written by `fate-gym calibrate` and named by clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue

from fate_gym.catalog import Gpu
from fate_gym.catalog.given import Given
from fate_gym.errors import InputError, check_known
from fate_gym.problem.io import read_bytes
from fate_gym.workloads.config import parse, parse_yaml

SEPARATOR = "#"
"""Separates a file from the name of a GPU in it."""

GPU_FILE_VERSION = 1


class GpuFile(Given):
    """GPUs by name, and notes for people on how they were measured."""

    version: int
    gpus: dict[str, dict[str, JsonValue]] = Field(min_length=1)
    made: dict[str, JsonValue] = Field({}, description="date, command, device, versions")
    measured: dict[str, JsonValue] = Field({}, description="what no field of a GPU holds")
    residuals: list[dict[str, JsonValue]] = Field([], description="errors of the fit by part")


def read_gpu(reference: str, folder: Path) -> Gpu:
    """Read the GPU ``FILE.yaml#NAME``, with the file relative to a folder.

    Raises:
        InputError: the file is missing or bad, is of another version, or has no such GPU.
    """
    name, _, gpu = reference.partition(SEPARATOR)
    path = folder / name
    data = parse_yaml(read_bytes(path), path)
    _check_version(data, path)
    file = parse(data, GpuFile, source=path)
    check_known("unknown GPU", gpu, file.gpus, source=path)
    return parse({"name": gpu, **file.gpus[gpu]}, Gpu, source=path)


def _check_version(data: Any, path: Path) -> None:
    """Check the version first: other versions may have other fields."""
    version = data.get("version") if isinstance(data, dict) else None
    if version != GPU_FILE_VERSION:
        raise InputError(
            f"not a file of GPUs of version {GPU_FILE_VERSION}"
            + ("" if version is None else f", but of version {version!r}"),
            source=path,
            field="version",
            remedy="measure it anew with `fate-gym calibrate`",
        )
