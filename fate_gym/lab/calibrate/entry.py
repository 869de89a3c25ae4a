"""The file of a measured GPU, which clusters refer to as ``FILE.yaml#NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import fate_gym
from fate_gym.catalog import Gpu
from fate_gym.errors import InputError
from fate_gym.files import write_text
from fate_gym.lab.errors import unwritable
from fate_gym.workloads.gpu_file import GPU_FILE_VERSION, SEPARATOR

_HEADER = """\
# A GPU as `fate-gym calibrate` measured it. A cluster names it, in place of a GPU type of the
# catalogue, as {reference}, from the folder of the cluster's file (docs/cost-model.md).
"""


def check_place(path: Path) -> None:
    """Raise `InputError` unless a file may be written there; call this before measuring."""
    remedy = "choose another file with --output"
    if path.suffix not in (".yaml", ".yml"):
        raise InputError("the file of a GPU ends in .yaml", source=path, remedy=remedy)
    package = Path(fate_gym.__file__).resolve().parent
    if package in path.resolve().parents:
        raise InputError(
            "that is inside the installed package, whose catalogue stays as published",
            source=path,
            remedy=remedy,
        )
    if not path.resolve().parent.is_dir():
        raise InputError("its folder does not exist", source=path, remedy=remedy)


def write_entry(
    path: Path,
    gpu: Gpu,
    *,
    made: Mapping[str, Any],
    measured: Mapping[str, float],
    residuals: list[dict[str, Any]],
) -> str:
    """Write the file of a GPU; return the reference to it.

    Args:
        path: path of the file.
        gpu: the fitted GPU.
        made: date, command, device and versions.
        measured: measured rates for which a GPU has no field.
        residuals: errors of the fit, by part.
    """
    fields = gpu.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    data = {
        "version": GPU_FILE_VERSION,
        "made": dict(made),
        "gpus": {gpu.name: fields},
        "measured": dict(measured),
        "residuals": residuals,
    }
    reference = f"{path.name}{SEPARATOR}{gpu.name}"
    text = _HEADER.format(reference=reference)
    text += yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    try:
        write_text(path, text)
    except OSError as error:
        raise unwritable(path, error, "choose another file with --output") from None
    return reference
