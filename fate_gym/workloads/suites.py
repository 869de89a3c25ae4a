"""Suites: fixed sets of problems on which policies are compared."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
from pydantic import (
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from fate_gym.catalog.agentic import Template, agentic_templates
from fate_gym.catalog.limits import (
    MOST_STAGES,
    MOST_WORKFLOWS,
    PositiveSeconds,
    Queries,
    Seconds,
    Stages,
    Workflows,
)
from fate_gym.catalog.longbench import longbench
from fate_gym.errors import InputError, check_known, near_matches
from fate_gym.problem import Cluster, Objective, Options, Problem, Workflow
from fate_gym.problem.problem import USUAL_OBJECTIVE, is_usual
from fate_gym.problem.workflow import Frozen, Name, Slo
from fate_gym.workloads import alibaba, wfcommons
from fate_gym.workloads.agent_traces import TraceSplit
from fate_gym.workloads.agentic import build_template
from fate_gym.workloads.agents import AgentSource, SizeClasses, WindowRules, draw_sessions
from fate_gym.workloads.arrivals import Arrivals, arrival_times, recorded_times
from fate_gym.workloads.config import parse, read_group
from fate_gym.workloads.files import FilesSuite
from fate_gym.workloads.load import capacity_per_s
from fate_gym.workloads.prefix_reuse import build_prefix_reuse
from fate_gym.workloads.requests import RequestDraw, draw_requests, session_starts
from fate_gym.workloads.roles import assign_roles, seeded
from fate_gym.workloads.stress import SHAPES, build_shape
from fate_gym.workloads.topology import Topology
from fate_gym.workloads.uncertain import Uncertain, draw_maps

TRAIN_FAMILIES = ("blast", "bwa", "cycles", "1000genome", "seismology", "montage")
TEST_FAMILIES = ("epigenomics", "soykb", "srasearch")

Sessions = Annotated[int, Field(ge=0, le=MOST_WORKFLOWS)]
Split = Literal["train", "test", "all"]
_FAMILIES: dict[Split, tuple[str, ...]] = {
    "train": TRAIN_FAMILIES,
    "test": TEST_FAMILIES,
    "all": TRAIN_FAMILIES + TEST_FAMILIES,
}


def _is_absent(value: Any) -> bool:
    return value is None


class _Suite(Frozen):
    """What the suites of all sources have in common."""

    origin: ClassVar[str]
    """What is real, measured or modelled in the workflows."""

    name: Name
    cluster: Name = Field(description="cluster of the suite unless a run names another")
    mode: Literal["alone", "stream"] = Field(
        "alone", description="each workflow is a problem of its own, or all arrive in one problem"
    )
    # Hashes of configurations name run directories: defaults are left out so that they stay valid.
    arrivals: Arrivals | None = Field(None, description="of a stream", exclude_if=_is_absent)
    uncertain: Uncertain | None = Field(
        None, description="what shows only as a run goes on", exclude_if=_is_absent
    )
    contention: bool = Field(
        False,
        description="transfers share the nodes' network interfaces",
        exclude_if=lambda contention: not contention,
    )
    slo: Slo | None = Field(
        None, description="objectives of the requests of every workflow", exclude_if=_is_absent
    )

    objective: Objective = Field(
        USUAL_OBJECTIVE, description="what planners minimise", exclude_if=is_usual
    )

    @model_validator(mode="after")
    def _streams_arrive(self) -> _Suite:
        if (self.mode == "stream") != (self.arrivals is not None):
            raise ValueError("mode stream needs arrivals, mode alone takes none")
        return self

    @property
    def options(self) -> Options:
        """The options of each problem."""
        options = self.uncertain.options() if self.uncertain else Options()
        rules = {"contention": self.contention, "objective": self.objective}
        return options.model_copy(update=rules)

    @property
    def branches(self) -> bool:
        """Whether branches and fan-outs are drawn as a run goes on."""
        return self.uncertain is not None and self.uncertain.branches

    @abstractmethod
    def workflows(self, seed: int) -> list[Workflow]:
        """Return a seed's workflows, named ``<instance>/s<seed>``, arriving as recorded or at 0."""

    def sessions(self, seed: int) -> list[list[Workflow]]:
        """Return a seed's workflows, grouped into sessions of those that follow one another."""
        return [[workflow] for workflow in self.workflows(seed)]

    def problems(self, cluster: Cluster, seed: int) -> list[Problem]:
        """Return the problems of a seed: one per workflow or session, or one stream."""
        sessions, options = self.sessions(seed), self.options
        if self.slo is not None:
            slo = {"slo": self.slo}
            sessions = [[turn.model_copy(update=slo) for turn in turns] for turns in sessions]
        if self.arrivals is None:
            return [
                Problem.build(cluster, turns, id=_without_turn(turns[0]), options=options)
                for turns in sessions
            ]
        generator = seeded(seed, self.name, "/arrivals")
        if self.arrivals.process != "trace":
            sessions = [sessions[place] for place in generator.permutation(len(sessions))]
        turns = list(chain.from_iterable(sessions))
        problem = Problem.build(cluster, turns, id=f"stream/s{seed}", options=options)
        capacity = capacity_per_s(problem, len(sessions)) if self.arrivals.load is not None else 0.0
        if self.arrivals.process == "trace":
            starts = np.array([turns[0].arrival for turns in sessions])
            times = recorded_times(starts, self.arrivals, capacity_per_s=capacity, of="workflows")
        else:
            times = arrival_times(self.arrivals, generator, len(sessions), capacity_per_s=capacity)
        arriving = tuple(
            turn.model_copy(update={"arrival": time})
            for turns, time in zip(sessions, times.tolist(), strict=False)
            for turn in turns
        )
        return [problem.model_copy(update={"workflows": arriving})]


def _without_turn(workflow: Workflow) -> str:
    """Return the name of a problem: that of its session, or of its only workflow."""
    if workflow.session is None:
        return workflow.id
    return f"{workflow.session}/{workflow.id.rsplit('/', 1)[-1]}"


class _Sized(Frozen):
    """Limits on the number of stages."""

    min_stages: Stages = 1
    max_stages: Stages | None = None

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.max_stages is not None and self.max_stages < self.min_stages:
            raise ValueError("max_stages is below min_stages")
        return self

    def fits(self, stages: int) -> bool:
        """Return whether a number of stages is within the limits."""
        return self.min_stages <= stages <= (self.max_stages or stages)


class WfCommonsSuite(_Suite, _Sized):
    """Real topologies with modelled attributes.

    The seed of a run changes roles and lengths, never which topologies are chosen.
    """

    origin: ClassVar[str] = "real topology, modelled attributes"

    source: Literal["wfcommons"] = "wfcommons"
    split: Split = Field("all", description="split by family")
    families: tuple[Name, ...] | None = Field(None, description="only these families of the split")
    per_family: Workflows | None = Field(
        None, description="topologies per family, evenly spread over the order by size; None: all"
    )
    instances: tuple[Name, ...] | None = Field(
        None, description="exactly these topologies; split, families and sizes do not apply then"
    )
    most_models: Annotated[int, Field(ge=1)] | None = Field(
        None, description="that a workflow uses; None: as its roles draw", exclude_if=_is_absent
    )

    def workflows(self, seed: int) -> list[Workflow]:
        workflows = [
            assign_roles(topology, seed, most_models=self.most_models)
            for topology in select_topologies(self)
        ]
        return [draw_maps(workflow) if self.branches else workflow for workflow in workflows]


class AgenticSuite(_Suite):
    """Runs of agentic applications by several tenants."""

    origin: ClassVar[str] = "published shapes of agents, modelled lengths"

    source: Literal["agentic"]
    split: Split = Field("all", description="split by family of templates")
    families: tuple[Name, ...] | None = Field(None, description="only these families of the split")
    tenants: Workflows = Field(1, description="deployments of each template")
    runs: Workflows = Field(1, description="workflows of each deployment")

    def workflows(self, seed: int) -> list[Workflow]:
        templates = self.templates()
        if len(templates) * self.tenants * self.runs > MOST_WORKFLOWS:
            raise InputError(
                f"{len(templates)} templates, {self.tenants} tenants and {self.runs} runs make "
                f"more than {MOST_WORKFLOWS:,} workflows",
                field="tenants",
                remedy="lower tenants or runs",
            )
        return [
            build_template(
                template, seed, run=run, tenant=f"tenant{tenant}", branches=self.branches
            )
            for template in templates
            for tenant in range(self.tenants)
            for run in range(self.runs)
        ]

    def templates(self) -> list[Template]:
        """Return the templates of the suite. Raises `InputError` for an unknown family."""
        every = agentic_templates().values()
        known = list(dict.fromkeys(t.family for t in every if self.split in ("all", t.split)))
        wanted = _wanted(self.families, known, self.split)
        return [template for template in every if template.family in wanted]


class PrefixReuseSuite(_Suite):
    """Layers of stages, a controlled share of which reads the same document."""

    origin: ClassVar[str] = "modelled workflows over documents of measured lengths"

    source: Literal["prefix_reuse"]
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=1)
    tasks: tuple[Name, ...] | None = Field(None, description="of LongBench; None: all")
    layers: Stages = 4
    width: Stages = 6
    queries: Queries = Field(4, description="questions of a stage")

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.layers * self.width > MOST_STAGES:
            raise ValueError(f"layers x width is more than {MOST_STAGES:,} stages")
        return self

    def workflows(self, seed: int) -> list[Workflow]:
        known = longbench().tasks
        for task in self.tasks or ():
            check_known("unknown task", task, known, field="tasks")
        return [
            build_prefix_reuse(
                task, share, seed, layers=self.layers, width=self.width, queries=self.queries
            )
            for share in self.shares
            for task in self.tasks or known
        ]


class StressSuite(_Suite):
    """Shapes that are hard to schedule, in given sizes."""

    origin: ClassVar[str] = "modelled workflows"

    source: Literal["stress"]
    shapes: tuple[Name, ...] | None = Field(None, description="None: all")
    sizes: tuple[Annotated[int, Field(ge=3, le=MOST_STAGES)], ...] = Field(
        min_length=1, description="stages of a workflow, about"
    )

    def workflows(self, seed: int) -> list[Workflow]:
        return [
            build_shape(shape, size, seed) for shape in self.shapes or SHAPES for size in self.sizes
        ]


class AlibabaSuite(_Suite, _Sized):
    """Consecutive jobs of the Alibaba 2018 trace; the seed chooses where they begin."""

    origin: ClassVar[str] = "real topology and arrivals, modelled attributes"

    source: Literal["alibaba"]
    split: Split = Field("all", description="split by application: jobs of the same typed DAG")
    jobs: Workflows = Field(60, description="workflows of a seed")
    file: Name | None = Field(None, description="a trace; None: that of the extra `traces`")

    def workflows(self, seed: int) -> list[Workflow]:
        path = alibaba.trace_file() if self.file is None else Path(self.file)
        chosen = [
            job
            for job in alibaba.read_jobs(path)
            if self.fits(len(job.tasks)) and self.split in ("all", job.split)
        ]
        if len(chosen) < self.jobs:
            raise InputError(
                f"{len(chosen)} jobs for {self.jobs} workflows",
                field="jobs",
                remedy="ask for fewer, or widen split or sizes",
            )
        first = int(seeded(seed, self.name, "/jobs").integers(len(chosen) - self.jobs + 1))
        window = chosen[first : first + self.jobs]
        # Times count from the first job; in mode alone, each workflow arrives at time 0.
        return [
            alibaba.job_workflow(
                job, seed, job.arrival - window[0].arrival if self.mode == "stream" else 0.0
            )
            for job in window
        ]


class AgentsSuite(_Suite):
    """Sessions of real agents: windows of their turns, each turn after the one before.

    With arrivals ``trace``, sessions begin as chats do in a part of Mooncake's hour.
    """

    origin: ClassVar[str] = "measured sessions of agents, models mapped"

    source: Literal["agents"]
    split: TraceSplit = Field("all", description="split by session, or by task where it has runs")
    counts: dict[AgentSource, Sessions] = Field(
        min_length=1, description="how many sessions of each source a seed draws"
    )
    models: SizeClasses
    turns: Workflows = Field(4, description="of a session, at most")
    calls: Stages = Field(20, description="of models, of a session, at most; the rest is left out")
    think_cap_s: Seconds = Field(60.0, description="longest time to think between turns")
    tool_cap_s: Seconds = Field(60.0, description="longest tool, or gap for tools")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if sum(self.counts.values()) == 0:
            raise ValueError("counts are all 0")
        return self

    def workflows(self, seed: int) -> list[Workflow]:
        return list(chain.from_iterable(self.sessions(seed)))

    def sessions(self, seed: int) -> list[list[Workflow]]:
        rules = WindowRules(self.models, self.turns, self.calls, self.think_cap_s, self.tool_cap_s)
        drawn = draw_sessions(rules, self.counts, self.split, seed)
        if self.arrivals is None or self.arrivals.process != "trace":
            return drawn
        # Sessions of one source are adjacent, so it is drawn which session begins when.
        order = seeded(seed, self.name, "/order").permutation(len(drawn)).tolist()
        times = session_starts(self.split, len(drawn), seed, self.name)
        return [
            [turn.model_copy(update={"arrival": time}) for turn in drawn[place]]
            for place, time in zip(order, times, strict=True)
        ]


class RequestsSuite(_Suite):
    """Requests of a real hour of chats, one workflow each, with their arrivals."""

    origin: ClassVar[str] = "measured requests and arrivals, models mapped"

    source: Literal["requests"]
    mode: Literal["stream"] = "stream"
    split: TraceSplit = Field("all", description="split by time: parts of the hour")
    requests: Workflows = Field(200, description="workflows of a seed")
    seconds: PositiveSeconds = Field(600.0, description="of the hour that they are drawn from")
    models: tuple[Name, ...] = Field(min_length=1, description="of the chats, each as likely")

    @model_validator(mode="after")
    def _as_recorded(self) -> Self:
        if self.arrivals is not None and self.arrivals.process != "trace":
            raise ValueError("requests arrive as recorded: arrivals.process has to be trace")
        return self

    def workflows(self, seed: int) -> list[Workflow]:
        draw = RequestDraw(self.models, self.requests, self.seconds)
        return draw_requests(draw, self.split, seed)


_SUITES: dict[str, type[_Suite] | type[FilesSuite]] = {
    "wfcommons": WfCommonsSuite,
    "agentic": AgenticSuite,
    "prefix_reuse": PrefixReuseSuite,
    "stress": StressSuite,
    "alibaba": AlibabaSuite,
    "agents": AgentsSuite,
    "requests": RequestsSuite,
    "files": FilesSuite,
}


def _source(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get("source", "wfcommons")
    return getattr(value, "source", None)


SuiteSpec: TypeAlias = Annotated[
    Annotated[WfCommonsSuite, Tag("wfcommons")]
    | Annotated[AgenticSuite, Tag("agentic")]
    | Annotated[PrefixReuseSuite, Tag("prefix_reuse")]
    | Annotated[StressSuite, Tag("stress")]
    | Annotated[AlibabaSuite, Tag("alibaba")]
    | Annotated[AgentsSuite, Tag("agents")]
    | Annotated[RequestsSuite, Tag("requests")]
    | Annotated[FilesSuite, Tag("files")],
    Discriminator(_source),
]
"""The content of a file in the config group ``suite``; ``source`` decides its fields."""


def suite_class(data: Any, *, source: str | Path) -> type[_Suite] | type[FilesSuite]:
    """Return the class of suite that a mapping describes.

    Raises:
        InputError: for an unknown source.
    """
    kind = _source(data) if isinstance(data, Mapping) else "wfcommons"
    if not isinstance(kind, str) or kind not in _SUITES:
        raise InputError(
            f"unknown source {kind!r}",
            source=source,
            field="source",
            remedy=near_matches(str(kind), _SUITES),
        )
    return _SUITES[kind]


def parse_suite(data: Any, *, source: str | Path) -> SuiteSpec:
    """Return a suite from plain data. Raises `InputError` naming ``source`` and the field."""
    return parse(data, suite_class(data, source=source), source=source)  # type: ignore[return-value]


def build_suite(spec: SuiteSpec, cluster: Cluster, seed: int) -> list[Problem]:
    """Return the problems of a suite, named ``<instance>/s<seed>``; files keep their names.

    Raises:
        InputError: for an unknown family or instance, an empty selection, a negative seed, a stage
            that no device of the cluster can host, or a bad file.
    """
    try:
        return spec.problems(cluster, seed)
    except InputError as error:
        raise error.at(f"suite {spec.name!r}") from None


def select_topologies(spec: WfCommonsSuite) -> list[Topology]:
    """Return a suite's topologies, by family and size; duplicates only if named as instances.

    Raises:
        InputError: for an unknown family or instance, or when nothing is selected.
    """
    try:
        chosen = _select(spec)
        if not chosen:
            raise InputError("no topology is selected", remedy="widen families, split or sizes")
    except InputError as error:
        raise error.at(f"suite {spec.name!r}") from None
    return chosen


def load_suite(name: str, extra_dirs: Sequence[str | Path] = ()) -> SuiteSpec:
    """Load the suite of ``conf/suite/NAME.yaml``; ``extra_dirs`` are searched first.

    Raises:
        InputError: for an unknown name (with near matches) or a bad file.
    """
    data, source = read_group("suite", name, extra_dirs)
    return parse_suite(data, source=source)


def _select(spec: WfCommonsSuite) -> list[Topology]:
    every = {topology.name: topology for topology in wfcommons.topologies()}
    if spec.instances is not None:
        for name in spec.instances:
            check_known("unknown instance", name, every, field="instances")
        return [every[name] for name in spec.instances]
    chosen: list[Topology] = []
    for family in _wanted(spec.families, _FAMILIES[spec.split], spec.split):
        candidates = [
            topology
            for topology in every.values()
            if topology.family == family
            and topology.duplicate_of is None
            and spec.fits(len(topology))
        ]
        chosen += _spread(candidates, spec.per_family)
    return chosen


def _wanted(families: Sequence[str] | None, known: Sequence[str], split: Split) -> list[str]:
    """Return the known families that are wanted, in the order of the known ones."""
    if families is None:
        return list(known)
    for family in families:
        if family not in known:
            raise InputError(
                f"unknown family {family!r} in split {split!r}",
                field="families",
                remedy=near_matches(family, known),
            )
    return [family for family in known if family in families]


def _spread(ordered: Sequence[Topology], most: int | None) -> list[Topology]:
    """Return at most ``most`` of a sequence: both ends, and evenly spaced places between."""
    if most is None or len(ordered) <= most:
        return list(ordered)
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
    return [ordered[place] for place in places.tolist()]
