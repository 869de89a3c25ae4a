"""``fate-gym train``: one training, or a sweep of them, through Hydra."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fate_gym.lab.sweep.compose import plain
from fate_gym.lab.sweep.hydra_main import run_hydra
from fate_gym.lab.training.config import parse_train_config
from fate_gym.lab.training.result import read_train_result
from fate_gym.lab.training.state import read_progress
from policies.learned.agent import missing_rl


def train_task(config: DictConfig) -> float:
    """Run one training for Hydra; return its best validation latency ratio (for sweepers)."""
    checked = parse_train_config(plain(config))
    try:
        import sb3_contrib  # noqa: F401
        import torch  # noqa: F401
    except ImportError:
        raise missing_rl("training") from None
    from fate_gym.lab.training.loop import BEST, train

    print(f"{checked.title}: {checked.directory}", flush=True)
    overrides = [
        override
        for override in HydraConfig.get().overrides.task
        if not override.startswith(("paths", "tracking", "name="))
    ]
    command = shlex.join(["fate-gym", "train", *overrides])
    result, directory = train(checked, command=command, say=lambda line: print(line, flush=True))
    test = f"; test {result.test.text}" if result.test is not None else ""
    print(
        f"{checked.title}: latency / RoundRobin {result.best:.4f} on the validation problems after "
        f"{result.best_steps} steps{test}; {result.seconds:.0f} s\n"
        f"checkpoint: {directory / BEST}",
        flush=True,
    )
    return result.best


def check(config: DictConfig, extra_dirs: Sequence[str]) -> None:  # noqa: ARG001
    """Raise `InputError` for a training that cannot run."""
    parse_train_config(plain(config))


def preview(config: DictConfig, extra_dirs: Sequence[str]) -> str:  # noqa: ARG001
    """Return the line that ``--dry-run`` prints for a training."""
    checked = parse_train_config(plain(config))
    progress, _ = read_progress(checked.directory)
    done = read_train_result(checked.directory) is not None
    state = "done" if done else f"{progress.epochs} epochs and {progress.steps} steps done"
    return f"{checked.title}: {state}, {checked.directory}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with a command line (default: this process's); return the exit code."""
    return run_hydra(
        train_task,
        sys.argv[1:] if arguments is None else arguments,
        config_name="train",
        preview=preview,
        check=check,
    )
