"""The checked configuration of a job, as Hydra composes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator

from fate_gym.catalog.limits import Seed
from fate_gym.errors import InputError, near_matches
from fate_gym.lab.config import NAME, Config, PathsConfig, ReportConfig, TrackingConfig
from fate_gym.lab.errors import not_chosen
from fate_gym.lab.provenance import digest
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

_Named = TypeVar("_Named", SuiteSpec, PolicySpec)


class EvaluateConfig(Config):
    """One job: a suite on a cluster, a policy and a seed."""

    name: str = Field("default", pattern=NAME, description="of the sweep; names its directory")
    suite: SuiteSpec = Field(description="which problems")
    cluster: Cluster = Field(description="the devices; the suite's own unless one is chosen")
    policy: PolicySpec = Field(description="as in conf/policy")
    seed: Seed = Field(0, description="of the workload's draws, of noise and of the policy")
    charge_planning_time: bool = Field(
        False,
        description="let the time that the policy takes to decide pass in the simulated world too",
    )
    report: ReportConfig = ReportConfig()
    trace: bool = Field(
        False,
        description="also keep every problem's schedule with what was compared in each decision "
        "(explained.json, for the report), and trace.json in Chrome's trace format",
    )
    tracking: TrackingConfig = TrackingConfig()
    paths: PathsConfig = PathsConfig()

    @field_validator("suite", "policy")
    @classmethod
    def _names_a_directory(cls, spec: _Named) -> _Named:
        if not re.fullmatch(NAME, spec.name):
            raise ValueError(f"the name {spec.name!r} cannot name a directory")
        return spec

    @property
    def title(self) -> str:
        """``suite/policy/s<seed>``, followed by the cluster's execution unless it is exclusive."""
        title = f"{self.suite.name}/{self.policy.name}/s{self.seed}"
        execution = self.cluster.execution
        return title if execution == "exclusive" else f"{title} ({execution})"

    @property
    def suite_hash(self) -> str:
        """Hash (8 hex digits) of what defines the problems, except the seed."""
        return digest(self.model_dump(mode="json", include={"suite", "cluster"}) | self._contents)

    @property
    def hash(self) -> str:
        """Hash (8 hex digits) of everything that affects results: not paths, name or tracking."""
        policy = {"name", "target", "params"}
        values = self.model_dump(
            mode="json", include={"suite": True, "cluster": True, "policy": policy, "seed": True}
        )
        # Only if it is on, so that the hashes and directories of other jobs do not change.
        charged = {"charge_planning_time": True} if self.charge_planning_time else {}
        return digest(values | self._contents | charged)

    @property
    def _contents(self) -> dict[str, str]:
        """What the problems depend on in addition to the configuration."""
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

    If no cluster is chosen, given options of ``cluster`` override those of the suite's own.

    Args:
        values: the composed configuration.
        extra_dirs: configuration directories searched before the package's own.

    Raises:
        InputError: naming the first option at fault.
    """
    for group in ("suite", "policy"):
        if not isinstance(values.get(group), Mapping):
            raise not_chosen(group)
    kind = suite_class(values["suite"], source="suite")
    suite, options = dict(values["suite"]), dict(values.get("cluster") or {})
    given = {name: value for name, value in options.items() if value is not None}
    if given.keys() & {"name", "nodes"}:
        cluster = build_cluster(parse(given, ClusterSpec, source="cluster"))
        if kind is FilesSuite:
            suite["keep_clusters"] = False
    else:
        cluster = load_cluster(str(suite.get("cluster")), extra_dirs, **given)
        if kind is FilesSuite:
            suite["cluster_changes"] = given
    try:
        return EvaluateConfig.model_validate({**values, "suite": suite, "cluster": cluster})
    except ValidationError as error:
        raise _option_error(error, kind) from None


def _option_error(error: ValidationError, suite: type[BaseModel]) -> InputError:
    """Report the first fault of a configuration, by the option that caused it."""
    first = error.errors()[0]
    location = first["loc"]
    if location[0] == "suite":
        location = (location[0], *location[2:])  # without the source, which tags the union
    option = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        remedy = near_matches(str(location[-1]), _siblings(location, suite))
        return InputError(f"unknown option {option!r}", remedy=remedy)
    got = "" if first["type"] == "missing" else f" (got {first['input']!r})"
    fault = first["msg"].removeprefix("Value error, ")
    return InputError(f"option {option!r}: {fault}{got}", remedy=f"correct {option}=VALUE")


def _siblings(location: tuple[int | str, ...], suite: type[BaseModel]) -> list[str]:
    """List the options beside the one at ``location``, for a suite of the given class."""
    model: type[BaseModel] = EvaluateConfig
    for place, part in enumerate(location[:-1]):
        inner = (
            suite if place == 0 and part == "suite" else model.model_fields[str(part)].annotation
        )
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
