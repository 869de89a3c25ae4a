"""The suite of the user's own files: problems, workflows and traces, alone or in one stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator

from fate_gym.errors import InputError
from fate_gym.problem import Cluster, Options, Problem, Workflow
from fate_gym.problem.faults import from_pydantic
from fate_gym.problem.io import read_bytes
from fate_gym.problem.problem import problem_from
from fate_gym.problem.workflow import Frozen, Name
from fate_gym.workloads.arrivals import Arrivals, arrival_times, recorded_times
from fate_gym.workloads.clusters import with_cluster
from fate_gym.workloads.formats import (
    Content,
    import_workflows,
    is_problem,
    problem_id,
    read_workload,
)
from fate_gym.workloads.load import capacity_per_s
from fate_gym.workloads.roles import seeded


class FilesSuite(Frozen):
    """Files of the user: problems, workflows and traces, each a problem of its own, or one stream.

    A problem file is taken as it is, the same for every seed. A workflow file gets its attributes
    from the role mapping, by seed, or from ``roles`` or ``model``, and runs on the suite's cluster.
    A stream puts the workflows of all files on the suite's cluster; sessions arrive as a whole.
    """

    origin: ClassVar[str] = "own files"
    """What is real, measured or modelled in the workflows: here only the files' author knows."""

    name: Name
    cluster: Name = Field(description="of workflow files unless a run names another")
    source: Literal["files"]
    mode: Literal["alone", "stream"] = Field(
        "alone", description="each file is a problem of its own, or all are one stream"
    )
    arrivals: Arrivals | None = Field(
        None,
        description="of a stream; None: the files' own",
        # Hashes of configurations name run directories: defaults are left out so that they stay
        # valid.
        exclude_if=lambda arrivals: arrivals is None,
    )
    contention: bool = Field(
        False,
        description="transfers share the nodes' network interfaces",
        exclude_if=lambda contention: not contention,
    )
    files: tuple[Name, ...] = Field(description="paths, or patterns such as traces/*.jsonl")
    roles: Name | None = Field(None, description="path of the sidecar with attributes by task type")
    model: Name | None = Field(
        None,
        description="instead of a sidecar: the model of every task",
        exclude_if=lambda model: model is None,
    )
    keep_clusters: bool = Field(
        True, description="problem files keep their own; choosing a cluster switches it off"
    )
    cluster_changes: dict[Name, Any] = Field(
        {},
        description="fields in place of those of the clusters that problem files keep",
        exclude_if=lambda changes: not changes,
    )

    @field_validator("files", mode="before")
    @classmethod
    def _one_or_several(cls, files: Any) -> Any:
        """Accept a single path without brackets."""
        return (files,) if isinstance(files, str) else files

    @model_validator(mode="after")
    def _streams_arrive(self) -> FilesSuite:
        if self.arrivals is not None and self.mode == "alone":
            raise ValueError("arrivals are those of mode stream")
        return self

    def problems(self, cluster: Cluster, seed: int) -> list[Problem]:
        """Return one problem per file, or one stream. Raises `InputError` naming the file."""
        files = self._paths()
        if self.mode == "stream":
            return [self._stream(files, cluster, seed)]
        problems = [self._problem(file, cluster, seed) for file in files]
        ids = [problem.id for problem in problems]
        # Results are identified by problem: repeated ids are replaced by the paths.
        return [
            problem.model_copy(update={"id": file}) if ids.count(problem.id) > 1 else problem
            for file, problem in zip(files, problems, strict=True)
        ]

    def contents_hash(self) -> str:
        """Return a hash of the files' contents. Raises `InputError` if one cannot be read."""
        digest = hashlib.sha256()
        for file in (*self._paths(), *([self.roles] if self.roles else [])):
            content = Content(file, read_bytes(file))
            digest.update(hashlib.sha256(content.data).digest())
            if file != self.roles:
                digest.update(_named_cluster(content))
        return digest.hexdigest()

    def _paths(self) -> list[str]:
        """Return the files in order, with patterns replaced by the files that match."""
        if not self.files:
            raise InputError("no files are given", field="files", remedy="add suite.files=[PATH]")
        found: dict[str, None] = {}
        for file in self.files:
            paths = [file]
            if has_magic(file) and not Path(file).exists():
                # Path.glob does not accept absolute patterns.
                matches = glob(file, recursive=True)  # noqa: PTH207
                paths = sorted(path for path in matches if Path(path).is_file())
                if not paths:
                    raise InputError(
                        f"no file matches {file!a}",
                        field="files",
                        remedy=f"correct the pattern; it is looked up from {Path.cwd()}",
                    )
            found.update(dict.fromkeys(paths))
        return list(found)

    def _problem(self, file: str, cluster: Cluster, seed: int) -> Problem:
        content = Content.of(file)
        if is_problem(content):
            return problem_from(self._changed(content.json, file, cluster), file)
        name, workflows = self._imported(content, seed)
        try:
            options = Options(contention=self.contention)
            return Problem.build(cluster, workflows, id=name, options=options)
        except InputError as error:
            raise error.at(file) from None

    def _changed(self, data: dict[str, Any], file: str, cluster: Cluster) -> dict[str, Any]:
        """Return a file's problem with the suite's settings applied."""
        if not self.keep_clusters:
            data = {**data, "cluster": cluster.model_dump(mode="json")}
        data = with_cluster(data, file)
        if isinstance(data.get("cluster"), Mapping):
            data = {**data, "cluster": {**data["cluster"], **self.cluster_changes}}
        options = data.get("options", {})
        if self.contention and isinstance(options, Mapping):
            data = {**data, "options": {**options, "contention": True}}
        return data

    def _imported(self, content: Content, seed: int) -> tuple[str, tuple[Workflow, ...]]:
        _, found = read_workload(content)
        try:
            workflows = import_workflows(found, seed, roles=self.roles, model=self.model)
        except InputError as error:
            raise error.at(content.source) from None
        return problem_id(found, workflows), workflows

    def _stream(self, files: Sequence[str], cluster: Cluster, seed: int) -> Problem:
        given = [self._workflows(file, cluster, seed) for file in files]
        ids = [workflow.id for workflows in given for workflow in workflows]
        if len({*ids}) < len(ids):
            pairs = zip(files, given, strict=True)
            given = [[_renamed(w, file) for w in workflows] for file, workflows in pairs]
        options = Options(contention=self.contention)
        problem = Problem.build(
            cluster,
            (workflow for workflows in given for workflow in workflows),
            id=f"stream/s{seed}",
            options=options,
        )
        if self.arrivals is None:
            return problem
        generator = seeded(seed, self.name, "/arrivals")
        arriving = _arriving(problem, self.arrivals, generator)
        return problem.model_copy(update={"workflows": arriving})

    def _workflows(self, file: str, cluster: Cluster, seed: int) -> list[Workflow]:
        content = Content.of(file)
        if not is_problem(content):
            return list(self._imported(content, seed)[1])
        problem = problem_from(with_cluster(content.json, file), file)
        for field in ("options", "gpus", "models"):
            if getattr(problem, field) != Problem.model_fields[field].default:
                raise InputError(
                    "a problem file of a stream gives workflows alone",
                    source=file,
                    field=field,
                    remedy="remove it, or use suite.mode=alone",
                )
        try:
            Problem.build(cluster, problem.workflows)
        except InputError as error:
            raise error.at(file) from None
        return list(problem.workflows)


def _named_cluster(content: Content) -> bytes:
    """Return the devices of a cluster that a problem file names, as bytes; empty for others."""
    # Large files that name no cluster need not be parsed.
    if b'"cluster"' not in content.data or not is_problem(content):
        return b""
    named = with_cluster(content.json, content.source)
    return b"" if named is content.json else json.dumps(named["cluster"], sort_keys=True).encode()


def _renamed(workflow: Workflow, file: str) -> Workflow:
    """Return a workflow with its file's path in all names, to tell it from other files' ones."""
    names = {"id": f"{file}/{workflow.id}"}
    if workflow.follows is not None:
        names["follows"] = f"{file}/{workflow.follows}"
    if workflow.session is not None:
        names["session"] = f"{file}/{workflow.session}"
    try:
        return Workflow.model_validate(workflow.model_dump() | names)
    except ValidationError as error:
        raise from_pydantic(error, None, file) from None


def _arriving(
    problem: Problem, arrivals: Arrivals, generator: np.random.Generator
) -> tuple[Workflow, ...]:
    """Return the workflows with new arrivals; sessions move as a whole, in a new order."""
    sessions = _sessions(problem.workflows)
    capacity = 0.0
    if arrivals.load is not None:
        capacity = capacity_per_s(problem, len(sessions))
    if arrivals.process == "trace":
        starts = np.array([session[0].arrival for session in sessions])
        times = recorded_times(starts, arrivals, capacity_per_s=capacity, of="files")
    else:
        sessions = [sessions[place] for place in generator.permutation(len(sessions))]
        times = arrival_times(arrivals, generator, len(sessions), capacity_per_s=capacity)
    return tuple(
        workflow.model_copy(
            update={"arrival": max(workflow.arrival - session[0].arrival, 0.0) + time}
        )
        for session, time in zip(sessions, times.tolist(), strict=False)
        for workflow in session
    )


def _sessions(workflows: Sequence[Workflow]) -> list[list[Workflow]]:
    """Group workflows that follow one another into sessions, first turn first."""
    after: dict[str | None, list[Workflow]] = {}
    for workflow in workflows:
        after.setdefault(workflow.follows, []).append(workflow)
    sessions = []
    for root in after.get(None, []):
        session = [root]
        for turn in session:
            session += after.get(turn.id, [])
        sessions.append(session)
    return sessions
