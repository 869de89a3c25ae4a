"""The composed configuration as checked models; what each field means stands beside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fate_gym.errors import InputError, near_matches
from fate_gym.lab.hydra_app import not_chosen
from fate_gym.lab.results import dump_json
from fate_gym.problem import Cluster
from fate_gym.workloads import (
    ClusterSpec,
    FilesSuite,
    SuiteSpec,
    build_cluster,
    load_cluster,
    suite_class,
)
from fate_gym.workloads.config import parse
from policies.registry import PolicySpec

_NAME = r"^[A-Za-z0-9][\w.+-]*$"


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrackingConfig(_Config):
    """Weights & Biases. It mirrors the result files and is never the record."""

    mode: Literal["offline", "online", "none"] = Field(
        "offline", description="offline: written beside the results, `wandb sync` sends it later"
    )
    project: str = Field("fate-gym", description="W&B project")
    entity: str | None = Field(None, description="W&B user or team; None: the account's own")
    gantt: bool = Field(True, description="also log a picture of the schedule")


class PathsConfig(_Config):
    """Where files go."""

    runs: Path = Field(Path("runs"), description="directory of all sweeps")


class ReportConfig(_Config):
    """What the report of a sweep shows beside the summary that every report has."""

    title: str | None = Field(None, description="of the report; None: the name of the sweep")
    reference: str | None = Field(
        None,
        description="policy whose variants are compared with it, pair by pair, e.g. in an ablation",
    )
    axis: str | None = Field(
        None,
        description="column of workflows.parquet, or option of the jobs such as "
        "policy.params.horizon, to draw the results over",
    )
    figures: tuple[str, ...] | None = Field(
        None, description="only these figures, in this order; None: all"
    )


class EvaluateConfig(_Config):
    """One job: a suite on a cluster, a policy and a seed."""

    name: str = Field("default", pattern=_NAME, description="of the sweep; names its directory")
    suite: SuiteSpec = Field(description="which problems")
    cluster: Cluster = Field(description="the devices; the suite's own unless one is chosen")
    policy: PolicySpec = Field(description="as in conf/policy")
    seed: int = Field(0, ge=0, description="of the workload's draws, of noise and of the policy")
    charge_planning_time: bool = Field(
        False,
        description="let the time that the policy takes to decide pass in the simulated world too",
    )
    report: ReportConfig = ReportConfig()
    trace: bool = Field(False, description="also write trace.json in Chrome's trace format")
    tracking: TrackingConfig = TrackingConfig()
    paths: PathsConfig = PathsConfig()

    @field_validator("policy")
    @classmethod
    def _names_a_directory(cls, policy: PolicySpec) -> PolicySpec:
        if not re.fullmatch(_NAME, policy.name):
            raise ValueError(f"the name {policy.name!r} cannot name a directory")
        return policy

    @property
    def title(self) -> str:
        """``suite/policy/s<seed>``, as lines of text and W&B name the job."""
        return f"{self.suite.name}/{self.policy.name}/s{self.seed}"

    @property
    def suite_hash(self) -> str:
        """8 hex digits of what defines the problems, seed aside."""
        return _digest(self.model_dump(mode="json", include={"suite", "cluster"}) | self._contents)

    @property
    def hash(self) -> str:
        """8 hex digits of everything that changes the results: not paths, name, or tracking."""
        return _digest(
            self.model_dump(
                mode="json",
                include={
                    "suite": True,
                    "cluster": True,
                    "policy": {"name", "target", "params"},
                    "seed": True,
                },
            )
            | self._contents
            # Only where it is on: hashes of other jobs, and so their directories, stay.
            | ({"charge_planning_time": True} if self.charge_planning_time else {})
        )

    @property
    def _contents(self) -> dict[str, str]:
        """What the problems depend on beside the configuration."""
        if isinstance(self.suite, FilesSuite):
            return {"contents": self.suite.contents_hash()}
        return {}

    @property
    def sweep_directory(self) -> Path:
        return self.paths.runs / self.name

    @property
    def run_directory(self) -> Path:
        """``<runs>/<name>/<suite>/<policy>/s<seed>-<hash>``."""
        place = self.sweep_directory / self.suite.name / self.policy.name
        return place / f"s{self.seed}-{self.hash}"


def parse_config(values: Mapping[str, Any], *, extra_dirs: Sequence[str] = ()) -> EvaluateConfig:
    """Check a composed configuration, and fill in the suite's own cluster if none is chosen.

    Args:
        values: the composed configuration.
        extra_dirs: configuration directories that come before the package's own.

    Raises:
        InputError: naming the first option at fault.
    """
    for group in ("suite", "policy"):
        if not isinstance(values.get(group), Mapping):
            raise not_chosen(group)
    kind = suite_class(values["suite"], source="suite")
    chosen = values.get("cluster")
    suite = dict(values["suite"])
    if chosen is not None:
        cluster = build_cluster(parse(chosen, ClusterSpec, source="cluster"))
        if kind is FilesSuite:
            suite["keep_clusters"] = False
    else:
        cluster = load_cluster(str(suite.get("cluster")), extra_dirs)
    try:
        return EvaluateConfig.model_validate({**values, "suite": suite, "cluster": cluster})
    except ValidationError as error:
        first = error.errors()[0]
        location = first["loc"]
        if location[0] == "suite":
            location = (location[0], *location[2:])  # without the source, which tags the union
        option = ".".join(str(part) for part in location)
        if first["type"] == "extra_forbidden":
            raise InputError(
                f"unknown option {option!r}",
                remedy=near_matches(str(location[-1]), _siblings(location, kind)),
            ) from None
        got = "" if first["type"] == "missing" else f" (got {first['input']!r})"
        raise InputError(
            f"option {option!r}: {first['msg'].removeprefix('Value error, ')}{got}",
            remedy=f"correct {option}=VALUE",
        ) from None


def _siblings(location: tuple[int | str, ...], suite: type[BaseModel]) -> list[str]:
    """The options that stand beside one, with a suite of the given class."""
    model: type[BaseModel] = EvaluateConfig
    for place, part in enumerate(location[:-1]):
        inner = (
            suite if place == 0 and part == "suite" else model.model_fields[str(part)].annotation
        )
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _digest(value: Any) -> str:
    return hashlib.sha256(dump_json(value).encode()).hexdigest()[:8]
