"""Suites: fixed sets of problems that policies are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from fate_gym.errors import InputError, near_matches
from fate_gym.problem import Cluster, Problem
from fate_gym.problem.workflow import Frozen, Name
from fate_gym.workloads import wfcommons
from fate_gym.workloads.config import read_group
from fate_gym.workloads.roles import assign_roles
from fate_gym.workloads.topology import Topology

TRAIN_FAMILIES = ("blast", "bwa", "cycles", "1000genome", "seismology", "montage")
TEST_FAMILIES = ("epigenomics", "soykb", "srasearch")


class SuiteSpec(Frozen):
    """What a file of the config group ``suite`` says.

    The seed of a run changes roles and lengths, never which topologies are chosen.
    """

    name: Name
    cluster: Name = Field(description="cluster of the suite unless a run names another")
    source: Literal["wfcommons"] = "wfcommons"
    mode: Literal["alone"] = Field("alone", description="each workflow is a problem of its own")
    split: Literal["train", "test", "all"] = Field("all", description="split by family")
    families: tuple[Name, ...] | None = Field(None, description="only these families of the split")
    min_stages: PositiveInt = 1
    max_stages: PositiveInt | None = None
    per_family: PositiveInt | None = Field(
        None, description="topologies a family, evenly spread over the order by size; None: all"
    )
    instances: tuple[Name, ...] | None = Field(
        None, description="exactly these topologies; split, families and sizes do not apply then"
    )

    @model_validator(mode="after")
    def _sizes(self) -> SuiteSpec:
        if self.max_stages is not None and self.max_stages < self.min_stages:
            raise ValueError("max_stages is below min_stages")
        return self


def build_suite(spec: SuiteSpec, cluster: Cluster, seed: int) -> list[Problem]:
    """The problems of a suite, named ``<topology>/s<seed>``.

    Raises:
        InputError: for an unknown family or instance, a selection that is empty, a negative seed,
            or a stage that no device of the cluster can host.
    """
    problems = []
    for topology in select_topologies(spec):
        workflow = assign_roles(topology, seed)
        try:
            problems.append(Problem.build(cluster, [workflow], id=workflow.id))
        except InputError as error:
            raise error.at(f"suite {spec.name!r}") from None
    return problems


def select_topologies(spec: SuiteSpec) -> list[Topology]:
    """The topologies of a suite, by family and size; duplicates only when named as instances.

    Raises:
        InputError: for an unknown family or instance, or when nothing is selected.
    """
    source = f"suite {spec.name!r}"
    if spec.instances is not None:
        try:
            chosen = [wfcommons.topology(name) for name in spec.instances]
        except InputError as error:
            raise InputError(
                error.fault, source=source, field="instances", remedy=error.remedy
            ) from None
    else:
        chosen = [
            topology
            for family in _families(spec, source)
            for topology in _spread(_of_family(spec, family), spec.per_family)
        ]
    if not chosen:
        raise InputError(
            "no topology is selected", source=source, remedy="widen families, split or sizes"
        )
    return chosen


def load_suite(name: str, extra_dirs: Sequence[str | Path] = ()) -> SuiteSpec:
    """The suite of ``conf/suite/NAME.yaml``; ``extra_dirs`` are searched first.

    Raises:
        InputError: for an unknown name (with near matches) or a bad file.
    """
    return read_group("suite", name, SuiteSpec, extra_dirs)


def _families(spec: SuiteSpec, source: str) -> list[str]:
    splits = {
        "train": TRAIN_FAMILIES,
        "test": TEST_FAMILIES,
        "all": TRAIN_FAMILIES + TEST_FAMILIES,
    }
    known = splits[spec.split]
    if spec.families is None:
        return list(known)
    for family in spec.families:
        if family not in known:
            raise InputError(
                f"unknown family {family!r} in split {spec.split!r}",
                source=source,
                field="families",
                remedy=near_matches(family, known),
            )
    return [family for family in known if family in spec.families]


def _of_family(spec: SuiteSpec, family: str) -> list[Topology]:
    return [
        topology
        for topology in wfcommons.topologies()
        if topology.family == family
        and topology.duplicate_of is None
        and spec.min_stages <= len(topology) <= (spec.max_stages or len(topology))
    ]


def _spread(ordered: Sequence[Topology], most: int | None) -> list[Topology]:
    """At most ``most`` of a sequence, both ends and evenly spaced places between them."""
    if most is None or len(ordered) <= most:
        return list(ordered)
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
    return [ordered[place] for place in places.tolist()]
