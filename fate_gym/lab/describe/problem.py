"""``fate-gym validate`` (problem files) and ``fate-gym import`` (workflows and traces)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fate_gym.errors import InputError
from fate_gym.files import write_text
from fate_gym.lab.errors import unwritable
from fate_gym.problem import Cluster, Problem, dump_problem
from fate_gym.workloads import (
    Content,
    import_workflows,
    load_cluster,
    load_problem_file,
    read_workload,
)
from fate_gym.workloads.formats import format_of, is_problem, problem_id
from fate_gym.workloads.formats import template as sidecar_template


def validate(file: Path) -> None:
    """Check a problem file and print what it holds. Raises `InputError`."""
    try:
        problem = load_problem_file(file)
    except InputError as error:
        _refuse_workflow(file)
        raise error from None
    print(f"{file}: valid")
    _print_problem(problem)


@dataclass(frozen=True)
class ImportOptions:
    """How a file becomes a problem.

    Args:
        seed: seed of the role mapping.
        roles: YAML file with LLM attributes by task type.
        model: instead of ``roles``, the model of every task.
        cluster: name of the problem's cluster.
        infer_prefixes: whether prompts in traces without sharing information are assumed to
            continue earlier ones.
    """

    seed: int = 0
    roles: Path | None = None
    model: str | None = None
    cluster: str = "mixed_12"
    infer_prefixes: bool = True


def import_file(
    file: Path, options: ImportOptions, *, output: Path | None = None, template: Path | None = None
) -> None:
    """Check a file, print its format and contents, and write it as a problem.

    Args:
        file: a workflow or trace, in a format of `fate_gym.workloads.formats`.
        options: how the file becomes a problem.
        output: where to write the problem as JSON.
        template: where to write a sidecar to be filled in; if given, nothing else is done.

    Raises:
        InputError: a bad file, or an output path that cannot be written.
    """
    form, found = read_workload(Content.of(file))
    if template is not None:
        _write(template, sidecar_template(found))
        print(f"{file}: {form}\nsidecar to fill in: {template}")
        return
    devices = load_cluster(options.cluster)
    try:
        workflows = import_workflows(
            found,
            options.seed,
            roles=options.roles,
            model=options.model,
            infer_prefixes=options.infer_prefixes,
        )
        problem = Problem.build(devices, workflows, id=problem_id(found, workflows))
    except InputError as error:
        raise error.at(file) from None
    if output is not None:
        _write(output, dump_problem(problem) + "\n")
    print(f"{file}: valid {form}")
    _print_problem(problem)
    if output is not None:
        print(f"problem: {output}")


def _refuse_workflow(file: Path) -> None:
    """Raise an `InputError` that names the right verb if the file is meant for another one."""
    content = Content.of(file)
    if is_problem(content):
        if "state" in content.json:
            raise InputError("is a snapshot", source=file, remedy="use fate-gym plan FILE")
        return
    try:
        form = format_of(content)
    except InputError:
        return
    raise InputError(
        f"is not a problem but a workflow or trace ({form.name})",
        source=file,
        remedy="use fate-gym import FILE",
    )


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise unwritable(path, error, remedy="choose another place") from None


def _print_problem(problem: Problem) -> None:
    queries = sum(s.queries for w in problem.workflows for s in w.stages if s.kind != "tool")
    edges = sum(len(workflow.edges) for workflow in problem.workflows)
    models = sorted({s.model for w in problem.workflows for s in w.stages if s.model})
    print(f"  problem    {problem.id}")
    print(
        f"  workflows  {len(problem.workflows)}: {problem.stage_count} stages, {edges} edges, "
        f"{queries} queries"
    )
    print(f"  models     {', '.join(models) or 'none'}")
    cluster = problem.cluster
    print(f"  cluster    {cluster.id}: {len(cluster.devices)} devices, {_execution(cluster)}")


def _execution(cluster: Cluster) -> str:
    serving = cluster.serving
    if not serving.batching:
        return cluster.execution
    return (
        f"{cluster.execution} ({'prompts first' if serving.prefill_first else 'chunked prefill'}, "
        f"{serving.token_budget} tokens, {serving.max_sequences} sequences)"
    )
