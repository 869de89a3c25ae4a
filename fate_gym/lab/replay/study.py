"""``python scripts/replay_study.py``: replays ten small workloads under three policies.

Five random workloads with three models are run on an exclusive and on a batching device whose
memory holds two of the models: prefixes are shared, contexts inherited, weights loaded and evicted.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from scipy.stats import kendalltau

from fate_gym import catalog
from fate_gym.catalog import Gpu
from fate_gym.lab.calibrate import report
from fate_gym.lab.cost_fit.errors import PAGE, put_into_page
from fate_gym.lab.cost_fit.figures import band
from fate_gym.lab.cost_fit.formulas import Frame
from fate_gym.lab.decoder.device import TorchDevice, open_device
from fate_gym.lab.decoder.shape import shape_of
from fate_gym.lab.provenance import git_sha, machine
from fate_gym.lab.replay.app import replay_script
from fate_gym.lab.replay.compare import PHASES
from fate_gym.lab.replay.script import script_of
from fate_gym.lab.report.figures.style import BASELINES, FATE, TEXT, canvas, save_figure
from fate_gym.lab.tables import markdown_table, number
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow
from fate_gym.sim import Simulator, Trace
from fate_gym.workloads.gpu_file import SEPARATOR, read_gpu
from policies import make_policy

POLICIES = ("round_robin", "heft", "fate_rollout")
EXECUTIONS = ("exclusive", "batching")
SEEDS = range(1, 6)
"""Seed 0 is left out: on the exclusive device all policies give the same schedule."""
MODELS = ("Llama-3.1-8B", "Qwen2.5-7B", "Gemma-2-9B")

_DIGITS = 9
"""Decimals of simulated seconds when schedules are ranked."""
_ROOM = 1.2
"""Ratio of usable device memory to the weights of the two largest of the three models."""


def problem_of(seed: int, execution: str, gpu: Gpu, scale: float) -> Problem:
    """Make a workload: two workflows of random stages, on one device that holds two models."""
    draw = random.Random(seed)
    models = [shape_of(catalog.model(name), scale).facts(name) for name in MODELS]
    share = catalog.execution().memory_utilisation
    sizes = sorted(model.weight_gb for model in models)
    small = gpu.model_copy(update={"memory_gb": _ROOM * sum(sizes[-2:]) / share})
    batching: dict[str, Any] = {"token_budget": 256, "max_sequences": 16}
    cluster = Cluster(
        id="one",
        devices=(Device(id="device", gpu=gpu.name),),
        gpus=(small,),
        execution="batching" if execution == "batching" else "exclusive",
        **(batching if execution == "batching" else {}),
    )
    flows = [_workflow(draw, number) for number in range(2)]
    return Problem.build(cluster, flows, models=models, id=f"{execution}-{seed}")


def _workflow(draw: random.Random, number: int) -> Workflow:
    stages, edges = [], []
    for i in range(4):
        model = draw.choice(MODELS)
        stages.append(
            Stage(
                id=f"s{i}",
                model=model,
                queries=draw.choice((1, 1, 2, 4)),
                prefix_group=f"system prompt of {model}",
                prefix_tokens=192,
                prompt_tokens=draw.randint(30, 160),
                output_tokens=draw.randint(4, 20),
            )
        )
        if i > 0 and draw.random() < 0.6:
            inherited = draw.choice((0, 64))
            parent = f"s{draw.randrange(i)}"
            edges.append(Edge(parent=parent, child=f"s{i}", bytes=1e4, inherited_tokens=inherited))
    arrival = 0.1 * number
    return Workflow(id=f"w{number}", stages=tuple(stages), edges=tuple(edges), arrival=arrival)


def run_study(device: TorchDevice, gpu: Gpu, scale: float, repeats: int) -> Frame:
    """Replay everything; return the rows with ``workload``, ``execution`` and ``policy``."""
    parts = []
    for execution in EXECUTIONS:
        for seed in SEEDS:
            problem = problem_of(seed, execution, gpu, scale)
            for policy in POLICIES:
                trace = _saved_and_loaded(Simulator(problem).run(make_policy(policy), seed=0))
                script = script_of(trace, None, problem.id)
                rows = replay_script(script, device, gpu=None, scale=1.0, repeats=repeats)
                parts.append(rows.assign(workload=seed, execution=execution, policy=policy))
                total = rows[rows.what == "makespan"].iloc[0]
                print(f"{problem.id}, {policy}: simulated {total.simulated_s:.3f} s, measured "
                      f"{total.measured_s:.3f} s", flush=True)  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _saved_and_loaded(trace: Trace) -> Trace:
    """Save and load a trace, so that it is as `fate-gym replay` reads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        trace.save(path)
        return Trace.load(path)


def agreement(rows: Frame) -> Frame:
    """Kendall's tau of the policies' simulated and measured makespans, for each workload."""
    makespans = rows[rows.what == "makespan"]
    # Equal schedules found in different ways differ in the last bits.
    makespans = makespans.assign(simulated_s=makespans.simulated_s.round(_DIGITS))
    groups = makespans.groupby(["execution", "workload"])
    return groups.apply(lambda one: kendalltau(one.simulated_s, one.measured_s).statistic)


def table(rows: Frame) -> str:
    """Format errors by execution, and the rank agreement, as Markdown."""
    ranks = agreement(rows)
    lines = []
    for execution, part in rows.groupby("execution", sort=False):
        for what, name in [
            *(("phase", phase) for phase in PHASES),
            ("stage", ""),
            ("makespan", ""),
        ]:
            chosen = part[part.what == what]
            chosen = chosen[chosen.name == name] if name else chosen
            error = chosen.error.dropna()
            spread = ((chosen.high_s - chosen.low_s) / chosen.measured_s).median()
            lines.append(
                (
                    str(execution), f"{what} {name}".strip(), str(len(error)),
                    f"{error.abs().median():.1%}", f"{error.abs().quantile(0.9):.1%}",
                    f"{error.median():+.1%}", f"{spread:.1%}",
                )
            )  # fmt: skip
    heads = ("device", "what", "rows", "median error", "90th percentile", "bias", "spread")
    text = "\n".join(markdown_table(heads, lines, left=2))
    taus = ", ".join(
        f"{ranks[one].mean():.2f} on {one} devices "
        f"({', '.join(number(tau, '.2f') for tau in ranks[one])})"
        for one in EXECUTIONS
    )
    names = ", ".join(POLICIES)
    lengths = rows[rows.what == "makespan"].groupby(["execution", "workload"]).simulated_s
    apart = lengths.max() / lengths.min() - 1
    differences = " and ".join(
        f"{', '.join(f'{one:.0%}' for one in apart[execution])} on {execution} devices"
        for execution in EXECUTIONS
    )
    return (
        f"{text}\n\nKendall's τ of the makespans of {names}, simulated and measured, mean over "
        f"workloads (and each; – where all three are simulated to take equally long): {taus}. The "
        f"longest is simulated to take longer than the shortest by {differences}."
    )


def figure(rows: Frame) -> Figure:
    """Plot simulated against measured times: stages left, makespans with their range right."""
    drawn, (left, right) = canvas(9.2, 4.2, columns=2)
    colours = dict(zip(POLICIES, (BASELINES[0], BASELINES[1], FATE[0]), strict=True))
    for axes, what, title in ((left, "stage", "Stages"), (right, "makespan", "Makespans")):
        part = rows[rows.what == what].rename(columns={"simulated_s": "predicted_s"})
        band(axes, part)
        for policy, colour in colours.items():
            for execution, face in zip(EXECUTIONS, ("none", colour), strict=True):
                one = part[(part.policy == policy) & (part.execution == execution)]
                spread = np.array([one.measured_s - one.low_s, one.high_s - one.measured_s])
                axes.errorbar(one.measured_s, one.predicted_s, xerr=spread, fmt="none",
                              ecolor=colour, lw=0.6, alpha=0.6)  # fmt: skip
                axes.scatter(one.measured_s, one.predicted_s, s=16, edgecolors=colour,
                             facecolors=face, label=f"{policy}, {execution}")  # fmt: skip
        axes.set_title(title, fontsize=10, color=TEXT)
        axes.set_ylabel("simulated, s")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(StrMethodFormatter(""))
    right.legend(frameon=False, fontsize=7.5, loc="lower right")
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay and print; with ``--write`` also put tables and figures into docs."""
    parser = argparse.ArgumentParser(description="Replay ten workloads under three policies.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:NUMBER (default cpu)")
    parser.add_argument("--gpu", required=True, metavar="FILE.yaml#NAME", help="as calibrated")
    parser.add_argument("--scale", type=float, default=8.0, help="of the models (default 8)")
    parser.add_argument("--repeats", type=int, default=5, help="of a schedule (default 5)")
    parser.add_argument("--output", type=Path, help="write all rows as CSV")
    parser.add_argument("--write", action="store_true", help="into docs/cost-model.md")
    options = parser.parse_args(arguments)
    gpu = read_gpu(options.gpu, Path())
    device = open_device(options.device)
    rows = run_study(device, gpu, options.scale, options.repeats)
    print(table(rows))
    if options.output is not None:
        rows.to_csv(options.output, index=False, lineterminator="\n")
    if options.write:
        _write(rows, Path(options.gpu.partition(SEPARATOR)[0]).with_suffix(".csv"), device.name)


def _write(rows: Frame, calibrated: Path, device: str) -> None:
    """Write both tables and both figures into docs."""
    measured = pd.read_csv(calibrated)
    made = f"\n\nMade on machine: {machine()}; commit: {git_sha()}."
    put_into_page("calibrate", report.error_markdown(report.errors(measured)) + made)
    put_into_page("replay", table(rows) + made)
    images = PAGE.parent / "images"
    report.draw(measured, images / "calibrate.png", f"{device}: computed against measured")
    save_figure(figure(rows), images / "replay.png")
