"""The summary of a finished job, ``result.json``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fate_gym.errors import InputError
from fate_gym.files import write_text
from fate_gym.lab.files import checksum, read_text
from fate_gym.lab.jobs.directory import RESULT

_ID_CHARACTERS = 110


class OtherVersionError(InputError):
    """A result written by another version: not damaged, so it is never overwritten."""


class JobResult(BaseModel):
    """The summary of a finished job, as in ``result.json``. Times in seconds.

    ``means`` are over columns of ``workflows.parquet``; ``counters`` are the policy's counters,
    summed over the problems.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[2] = 2
    status: Literal["ok"] = "ok"
    name: str
    suite: str
    cluster: str
    # Results from before devices could batch lack this field; their devices are exclusive.
    execution: Literal["exclusive", "batching", "several"] = "exclusive"
    policy: str
    family: str
    seed: int
    params: dict[str, Any]
    config_hash: str
    suite_hash: str
    workload_hash: str
    problems: int
    workflows: int
    means: dict[str, float]
    counters: dict[str, float] = {}
    decision_ms_p50: float
    decision_ms_p99: float
    seconds: dict[str, float]
    overrides: list[str]
    versions: dict[str, str]
    git_sha: str | None
    machine: str
    checksums: dict[str, str] = {}
    """Checksums of the other files, by name; older results have none."""
    checksum: str = ""
    """Checksum of the rest of the result."""

    @property
    def sealed(self) -> JobResult:
        """A copy with the checksum filled in."""
        text = self.model_dump_json(exclude={"checksum"})
        return self.model_copy(update={"checksum": checksum(text.encode())})

    @property
    def title(self) -> str:
        """``suite/policy/s<seed>``, the name of the job in output and in W&B.

        Followed by the execution unless all devices are exclusive.
        """
        title = f"{self.suite}/{self.policy}/s{self.seed}"
        return title if self.execution == "exclusive" else f"{title} ({self.execution})"

    @property
    def run_id(self) -> str:
        """The job's W&B run id, the same on every machine."""
        return wandb_id(self.name, f"{self.suite}-{self.policy}-s{self.seed}-{self.config_hash}")


def wandb_id(name: str, job: str) -> str:
    """Make the W&B id of a job of a sweep, with the allowed characters and length.

    If that changes the name, a hash is added, so that ``a.b`` and ``a-b`` get different ids.
    """
    whole = f"{name}-{job}"
    plain = re.sub(r"[^\w-]", "-", whole)[-_ID_CHARACTERS:]
    return plain if plain == whole else f"{plain}-{checksum(whole.encode())[:8]}"


def write_result(directory: Path, result: JobResult) -> None:
    """Write ``result.json``, which marks the job as finished; write all other files before."""
    write_text(directory / RESULT, result.sealed.model_dump_json(indent=1) + "\n")


def read_result(directory: Path) -> JobResult | None:
    """Read the result of a finished job; None: there is none.

    Raises:
        OtherVersionError: another version of fate-gym wrote it.
        InputError: the file exists but is not a valid result.
    """
    path = directory / RESULT
    if not path.exists():
        return None
    text = read_text(path)
    try:
        result = JobResult.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        version = first["loc"] == ("schema_version",) and isinstance(first["input"], int)
        raise (OtherVersionError if version else InputError)(
            f"not a result of this version ({first['msg']})",
            source=path,
            field=".".join(str(part) for part in first["loc"]) or None,
            remedy="delete the file and run the job again",
        ) from None
    if result.checksum not in ("", result.sealed.checksum):
        raise InputError("its checksum does not hold", source=path)
    return result


def total_counters(counters: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sum the finite values by name, in the order in which names first appear."""
    totals: dict[str, float] = {}
    for one in counters:
        for name, value in one.items():
            if math.isfinite(value):
                totals[name] = totals.get(name, 0.0) + value
    return totals
