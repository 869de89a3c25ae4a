"""``fate-gym validate`` and ``fate-gym import``: problem files, and WfFormat files."""

from __future__ import annotations

from pathlib import Path

from fate_gym.errors import InputError
from fate_gym.lab.errors import unwritable
from fate_gym.lab.files import write_text
from fate_gym.problem import Cluster, Problem, dump_problem, load_problem
from fate_gym.workloads import import_workflow, load_cluster, load_wfformat


def validate(file: Path) -> None:
    """Check a problem file and print what it holds. Raises `InputError`."""
    _print_problem(file, load_problem(file))


def import_file(
    file: Path, *, seed: int, roles: Path | None, cluster: str, output: Path | None
) -> None:
    """Check a WfFormat file, print what it holds, and write it as a problem.

    Args:
        file: in WfFormat JSON 1.3, 1.4 or 1.5.
        seed: of the role mapping.
        roles: YAML with LLM attributes by task type.
        cluster: name of the problem's cluster.
        output: where to write the problem as JSON.

    Raises:
        InputError: a bad file, or a place that cannot be written.
    """
    devices = load_cluster(cluster)
    workflow = import_workflow(load_wfformat(file), seed, roles=roles)
    try:
        problem = Problem.build(devices, [workflow], id=workflow.id)
    except InputError as error:
        raise error.at(file) from None
    if output is not None:
        try:
            write_text(output, dump_problem(problem) + "\n")
        except OSError as error:
            raise unwritable(output, error, remedy="choose another place") from None
    _print_problem(file, problem)
    if output is not None:
        print(f"problem: {output}")


def _print_problem(file: Path, problem: Problem) -> None:
    queries = sum(s.queries for w in problem.workflows for s in w.stages if s.kind != "tool")
    edges = sum(len(workflow.edges) for workflow in problem.workflows)
    models = sorted({s.model for w in problem.workflows for s in w.stages if s.model})
    print(f"{file}: valid")
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
