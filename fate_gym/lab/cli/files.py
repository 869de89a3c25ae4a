"""Verbs that take files: problems, workflows and traces, snapshots, measured times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from fate_gym.lab.cli.options import PATH


@click.command()
@click.argument("file", type=PATH)
def validate(file: Path) -> None:
    """Check a problem file and summarise it.

    FILE is a problem as JSON, e.g. docs/examples/agent.json.
    """
    from fate_gym.lab.describe.problem import validate as check

    check(file)


@click.command("import", short_help="Check a workflow or trace, and make a problem of it.")
@click.argument("file", type=PATH)
@click.option("--seed", default=0, show_default=True, help="Of the role mapping.")
@click.option("--roles", type=PATH, help="YAML with LLM attributes by task type.")
@click.option("--model", help="Of every task, where the file gives tokens.")
@click.option("--template", type=PATH, help="Only write a file for --roles to fill in.")
@click.option("--cluster", default="mixed_12", show_default=True, help="Of the problem.")
@click.option("-o", "--output", type=PATH, help="Write the problem as JSON.")
@click.option(
    "--no-inferred-prefixes", "infer_prefixes", flag_value=False, default=True,
    help="Prompts of traces that do not say what they share (OpenTelemetry) share nothing.",
)  # fmt: skip
def import_(file: Path, output: Path | None, template: Path | None, **options: Any) -> None:
    """Check a workflow or trace, and make a problem of it.

    FILE is of any format listed in docs/workloads.md; its content says which.
    """
    from fate_gym.lab.describe.problem import ImportOptions, import_file

    import_file(file, ImportOptions(**options), output=output, template=template)


@click.command()
def schema() -> None:
    """Print the JSON Schema of one line of an agent trace."""
    from fate_gym.workloads.formats.agent_traces import SCHEMA

    print(SCHEMA.read_text(encoding="utf-8"), end="")


@click.command()
@click.argument("file", type=PATH)
@click.option("--policy", default="fate_rollout", show_default=True, help="The planner.")
@click.option("--objective", help="Of the planner: makespan, latency, slowdown, p95, …")
def plan(file: Path, policy: str, objective: str | None) -> None:
    """Say what to start now, from a snapshot of a cluster; prints JSON.

    FILE is a snapshot as JSON, e.g. docs/examples/snapshot.json.
    """
    from policies.fate import plan as planned

    params = {} if objective is None else {"objective": objective}
    placements = planned(file, policy=policy, **params)
    print(json.dumps([placement.model_dump() for placement in placements], indent=1))


@click.command("fit-cost-model")
@click.argument("data", type=PATH)
@click.option("--write", is_flag=True, help="Write the fit into the catalogue.")
@click.option("--figures", type=PATH, help="Folder for pictures of predicted against measured.")
def fit_cost_model(data: Path, write: bool, figures: Path | None) -> None:
    """Fit the cost model to measured times.

    DATA is a folder of measured tables, e.g. tests/data/cost_model.
    """
    from fate_gym.lab.cost_fit.app import fit_and_show

    fit_and_show(data, write=write, figures=figures)
