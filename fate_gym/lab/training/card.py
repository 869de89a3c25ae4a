"""The model card of a checkpoint: its network, training and results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fate_gym.files import write_text
from fate_gym.lab.tables import markdown_table
from fate_gym.lab.training.config import ProblemSet, TrainConfig
from fate_gym.lab.training.evaluation import Score
from fate_gym.lab.training.result import TrainResult
from policies.learned.checkpoint import CARD, load_checkpoint


def write_card(folder: Path, config: TrainConfig, result: TrainResult, command: str) -> None:
    """Write the card of a finished training next to its weights.

    Args:
        folder: directory of the checkpoint.
        config: configuration of the training.
        result: result of the training.
        command: command line that reproduces it.
    """
    checkpoint = load_checkpoint(folder)
    network, curriculum, options = checkpoint.facts.network, config.curriculum, config.options
    numbers = sum(array.size for array in checkpoint.weights.values())
    params = ", ".join(f"{name} {value}" for name, value in network.params.items())
    agent = config.agent
    facts = {}
    for i, phase in enumerate(curriculum.phases, 1):
        share = f", {phase.share:g} of the steps" if agent.learning is not None else ""
        facts[f"trained on, {i}"] = _problems(phase.problems) + share
    facts["chosen on"] = _problems(curriculum.validation)
    if agent.imitation is not None:
        facts["imitated"] = (
            f"{', '.join(agent.imitation.teachers)}: {agent.imitation.states:,} states"
        )
    if agent.iteration is not None:
        rounds = f"{agent.iteration.rounds} rounds of expert iteration"
        facts["improved by"] = f"{rounds}: {agent.iteration.states:,} states labelled by rollouts"
    if result.steps:
        best = f"the best checkpoint is of step {result.best_steps:,}"
        facts["steps"] = f"{result.steps:,}; {best}"
    facts["wall time"] = f"{result.seconds / 60:.0f} minutes, one thread, {result.machine}"
    facts["commit"] = str(checkpoint.facts.training.get("git_sha"))
    facts["validation"] = _score(result.validation)
    if result.test is not None and curriculum.test is not None:
        facts["test"] = f"{_score(result.test)}, on {_problems(curriculum.test)}"
    lines = [
        f"# {config.agent.name}, seed {config.seed}",
        "",
        f"A network of kind `{network.kind}` with {numbers:,} parameters ({params}).",
        f"Sees a window of {options.window} stages and up to {options.max_shards} devices a stage.",
        "",
        "```bash",
        command,
        "```",
        "",
        *markdown_table(("", ""), list(facts.items()), left=2),
        "",
        "Results are latency / RoundRobin: the mean latency of a problem's workflows over round",
        "robin's on the same problem; below 1 is faster. Each kind of problems (suite, load,",
        "cluster, execution) counts the same.",
    ]
    write_text(folder / CARD, "\n".join(lines) + "\n")


def _problems(sets: Iterable[ProblemSet]) -> str:
    return "; ".join(map(_problem_set, sets))


def _problem_set(chosen: ProblemSet) -> str:
    seeds = chosen.seeds
    last = seeds.first + seeds.count - 1
    text = f"{', '.join(chosen.suites)}, " + (
        f"seed {seeds.first}" if seeds.count == 1 else f"seeds {seeds.first} to {last}"
    )
    if chosen.clusters:
        text += f" on {', '.join(chosen.clusters)}"
    if chosen.loads:
        noun = "load" if len(chosen.loads) == 1 else "loads"
        text += f" at {noun} {', '.join(map('{:g}'.format, chosen.loads))}"
    if chosen.executions:
        text += f" ({', '.join(chosen.executions)})"
    return text + (f", up to {chosen.max_stages} stages" if chosen.max_stages else "")


def _score(score: Score) -> str:
    return f"{score.text} over {score.problems} problems"
