"""``python scripts/train.py``: one training, or a sweep of them, through Hydra."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fate_gym.lab.hydra_app import run_hydra

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from fate_gym.lab.training.config import TrainConfig


def train_task(config: DictConfig) -> float:
    """The task that Hydra calls once a training. Returns its best validation (for sweepers)."""
    from hydra.core.hydra_config import HydraConfig

    from policies.learned.agent import missing_rl

    checked = _checked(config)
    try:
        import sb3_contrib  # noqa: F401
        import torch  # noqa: F401
    except ImportError:
        raise missing_rl("training") from None
    from fate_gym.lab.training.loop import BEST, train

    print(f"{checked.title}: {checked.directory}", flush=True)
    overrides = " ".join(
        shlex.quote(override)
        for override in HydraConfig.get().overrides.task
        if not override.startswith(("paths", "tracking", "name="))
    )
    result, directory = train(
        checked,
        command=f"python scripts/train.py {overrides}",
        say=lambda line: print(line, flush=True),
    )
    test = ""
    if result.test is not None:
        test = f"; test {result.test['normalised']:.4f}"
        if result.test["low"] is not None:
            test += f" [{result.test['low']:.4f}, {result.test['high']:.4f}]"
    print(
        f"{checked.title}: {result.best:.4f} x round_robin on the validation problems after "
        f"{result.best_steps} steps{test}; {result.seconds:.0f} s\n"
        f"checkpoint: {directory / BEST}",
        flush=True,
    )
    return result.best


def preview(config: DictConfig, extra_dirs: Sequence[str]) -> str:  # noqa: ARG001
    """What ``--dry-run`` says of a training."""
    from fate_gym.lab.training.progress import read_progress, read_train_result

    checked = _checked(config)
    progress, _ = read_progress(checked.directory)
    done = read_train_result(checked.directory) is not None
    state = "done" if done else f"{progress.epochs} epochs and {progress.steps} steps done"
    return f"{checked.title}: {state}, {checked.directory}"


def _checked(config: DictConfig) -> TrainConfig:
    from omegaconf import OmegaConf, open_dict

    from fate_gym.lab.training.config import parse_train_config

    with open_dict(config):
        config.pop("hydra", None)  # there when Hydra did not hand the configuration to a task
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return parse_train_config({str(name): value for name, value in values.items()})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with a command line (default: this process's); returns the exit code."""
    return run_hydra(
        train_task,
        sys.argv[1:] if arguments is None else arguments,
        config_name="train",
        preview=preview,
    )
