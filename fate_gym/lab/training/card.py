"""The card of a trained checkpoint: what it is, how it was made, how good it is."""

from __future__ import annotations

from pathlib import Path

from fate_gym.lab.files import write_text
from fate_gym.lab.training.config import ProblemSet, TrainConfig
from fate_gym.lab.training.evaluation import Score
from fate_gym.lab.training.result import TrainResult
from policies.learned.checkpoint import CARD, load_checkpoint


def write_card(folder: Path, config: TrainConfig, result: TrainResult, command: str) -> None:
    """Put a card beside the weights of a finished training.

    Args:
        folder: the checkpoint.
        config: of the training.
        result: of the training.
        command: reproduces it.
    """
    checkpoint = load_checkpoint(folder)
    facts = checkpoint.facts
    numbers = sum(array.size for array in checkpoint.weights.values())
    params = ", ".join(f"{name} {value}" for name, value in facts.network.params.items())
    training = facts.training
    curriculum, options = config.curriculum, config.options
    lines = [
        f"# {config.agent.name}, seed {config.seed}",
        "",
        f"A network of kind `{facts.network.kind}` with {numbers:,} parameters ({params}).",
        f"Sees a window of {options.window} stages and up to {options.max_shards} devices a stage.",
        "",
        "```bash",
        command,
        "```",
        "",
        "| | |",
        "|---|---|",
    ]
    for i, phase in enumerate(curriculum.phases, 1):
        lines.append(f"| trained on, {i} | {_problems(phase)}, {phase.share:g} of the steps |")
    lines.append(f"| chosen on | {_problems(curriculum.validation)} |")
    if config.agent.imitation is not None:
        teacher = config.agent.imitation.teacher
        lines.append(f"| imitated | {teacher}: {result.labelled_states:,} labelled states |")
    if result.steps:
        lines.append(
            f"| steps | {result.steps:,}; the best checkpoint is of step {result.best_steps:,} |"
        )
    lines += [
        f"| wall time | {result.seconds / 60:.0f} minutes, one thread, {result.machine} |",
        f"| commit | {training.get('git_sha')} |",
        f"| validation | {_score(result.validation)} |",
    ]
    if result.test is not None and curriculum.test is not None:
        lines.append(f"| test | {_score(result.test)}, on {_problems(curriculum.test)} |")
    lines += [
        "",
        "Results are latency / RoundRobin: the mean latency of a problem's workflows over round",
        "robin's on the same problem; below 1 is faster.",
    ]
    write_text(folder / CARD, "\n".join(lines) + "\n")


def _problems(chosen: ProblemSet) -> str:
    seeds = chosen.seeds
    last = seeds.first + seeds.count - 1
    text = f"{', '.join(chosen.suites)}, " + (
        f"seed {seeds.first}" if seeds.count == 1 else f"seeds {seeds.first} to {last}"
    )
    if chosen.clusters:
        text += f" on {', '.join(chosen.clusters)}"
    return text + (f", up to {chosen.max_stages} stages" if chosen.max_stages else "")


def _score(score: Score) -> str:
    return f"{score.text} over {score.problems} problems"
