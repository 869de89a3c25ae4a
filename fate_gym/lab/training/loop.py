"""One training: supervised learning, reinforcement learning, validation, checkpoints.

Work is done in *chunks*: an epoch of supervised learning, or the steps between two validations.
At the start of each chunk, environments and all random numbers are seeded from (seed, chunk), so
that a training that was killed resumes after the last chunk and gives the same result.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from itertools import accumulate, chain
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import yaml

from fate_gym.env import WorkflowSchedulingEnv
from fate_gym.errors import InputError, printable
from fate_gym.files import flush_all, write_text
from fate_gym.lab import provenance
from fate_gym.lab.errors import JobFailedError, unwritable
from fate_gym.lab.files import write_table
from fate_gym.lab.jobs.directory import CONFIG, FAILED, last_line, mark_failed, prepare_directory
from fate_gym.lab.jobs.result import wandb_id
from fate_gym.lab.training import labels
from fate_gym.lab.training.agent_config import (
    ExpertIterationConfig,
    ImitationConfig,
    PpoConfig,
    SupervisedConfig,
)
from fate_gym.lab.training.card import write_card
from fate_gym.lab.training.config import TrainConfig
from fate_gym.lab.training.evaluation import EvaluationSet
from fate_gym.lab.training.imitation import imitate
from fate_gym.lab.training.learner import Learner, NotFiniteError
from fate_gym.lab.training.problems import build_problems, common_limits, env_arguments
from fate_gym.lab.training.result import RESULT, TrainResult, read_train_result
from fate_gym.lab.training.state import read_progress, write_state
from fate_gym.lab.training.wandb_curves import Curves, learning_curves
from policies.learned.checkpoint import Sizes, save_checkpoint
from policies.learned.policy import Learned, NotFiniteScoresError

BEST = "best"
STATES = "imitation.npz"

Say = Callable[[str], None]


def train(config: TrainConfig, *, command: str = "", say: Say = print) -> tuple[TrainResult, Path]:
    """Train or resume, unless the training is done; return the result and the directory.

    Args:
        config: configuration of the training.
        command: command line for the card, which reproduces the training.
        say: called with each line of progress.

    Raises:
        InputError: bad problems or options (nothing has been written), or a file that is damaged
            or cannot be written.
        JobFailedError: the training failed; the best checkpoint so far is kept, and the marker
            ``FAILED`` gives the reason.
    """
    directory = config.directory
    done = read_train_result(directory)
    if done is not None:
        say(f"{config.title}: done before, {directory}")
        return done, directory
    torch.set_num_threads(1)
    training = Training(config, say, command)
    prepare_directory(directory)
    resolved = config.model_dump(mode="json")
    write_text(directory / CONFIG, yaml.safe_dump(resolved, sort_keys=False))
    identity = {
        "name": f"train/{config.title}",
        "group": config.name,
        "id": wandb_id(config.name, f"train-{config.agent.name}-s{config.seed}-{config.hash}"),
        "tags": ["learned"],
    }
    try:
        with learning_curves(config.tracking, directory, identity, resolved) as curves:
            result = training.run(curves)
    except JobFailedError:
        raise
    except Exception as error:
        fault = unwritable(directory, error) if isinstance(error, OSError) else error
        text = str(fault) if isinstance(fault, InputError) else traceback.format_exc()
        mark_failed(directory, text)
        if isinstance(fault, InputError):
            raise fault from None
        why = f"{config.title} failed: {printable(last_line(text))} ({directory / FAILED})"
        raise JobFailedError(why, config.paths.runs) from error
    if curves.warning:
        say(f"warning: {curves.warning}")
    return result, directory


class Training:
    """A training, from the state on disk to its end.

    Args:
        config: configuration of the training.
        say: called with each line of progress.
        command: command line for the card.
    """

    def __init__(self, config: TrainConfig, say: Say, command: str = "") -> None:
        self._config, self._say, self._command = config, say, command
        self._directory = config.directory
        curriculum = config.curriculum
        self._groups = [build_problems(phase.problems, train=True) for phase in curriculum.phases]
        self._phases = [list(chain(*groups)) for groups in self._groups]
        validation = build_problems(curriculum.validation, train=True)
        self._limits = common_limits(chain(*self._phases, *validation))
        self._validation = EvaluationSet(validation)
        self._progress, self._kept = read_progress(self._directory)
        self._teachers: labels.PolicyLabeller | None = None

    def run(self, curves: Curves) -> TrainResult:
        """Do the work that is left; return the result."""
        self._curves, progress = curves, self._progress
        self._started = perf_counter() - progress.seconds
        self._learner = Learner(self._config, self._phases, self._limits, curves)
        if self._kept is not None:
            self._learner.load(self._kept, progress.steps, progress.updates)
            self._say(
                f"{self._config.title}: goes on after {progress.epochs} epochs and "
                f"{progress.steps} steps"
            )
        try:
            self._supervise()
            if progress.steps == 0:
                self._learner.set_anchor()
            if self._config.agent.learning is not None and progress.stopped is None:
                self._learn()
        except (NotFiniteError, NotFiniteScoresError):
            self._fail()
        return self._finish()

    def _rounds(self) -> list[SupervisedConfig]:
        """Return for each round of supervised learning the configuration that it is part of."""
        agent = self._config.agent
        parts = [part for part in (agent.imitation, agent.iteration) if part is not None]
        return [part for part in parts for _ in range(part.rounds)]

    def _supervise(self) -> None:
        """Label states and learn from them, round by round."""
        first = 0  # number of the round's first epoch
        for number, config in enumerate(self._rounds()):
            begin = self._progress.epochs - first
            first += config.epochs
            if begin >= config.epochs:
                continue
            data = labels.join([self._states(one) for one in self._kept_rounds(number)])
            for epoch in range(begin, config.epochs):
                done = self._progress.epochs
                seed = self._chunk_seed(done, learning=False)
                self._learner.seed(seed)
                rate = self._rate(number, config, epoch)
                policy, size = self._learner.model.policy, config.batch_size
                losses = imitate(policy, data, size, seed=seed, rate=rate)
                self._learner.check_finite()
                self._progress.epochs += 1
                self._close_chunk(losses, patient=False)

    def _rate(self, number: int, config: SupervisedConfig, epoch: int) -> float:
        """Return the learning rate; it falls towards a tenth over the rounds of a part."""
        rounds = self._rounds()
        done = (number - rounds.index(config)) * config.epochs + epoch
        return config.learning_rate * (1.0 - 0.9 * done / (config.rounds * config.epochs))

    def _kept_rounds(self, number: int) -> range:
        """Return the rounds, of the same part, whose states round ``number`` learns from."""
        rounds = self._rounds()
        config, first = rounds[number], rounds.index(rounds[number])
        if isinstance(config, ExpertIterationConfig):
            first = max(first, number + 1 - config.kept)
        return range(first, number + 1)

    def _states(self, number: int) -> labels.Arrays:
        """Return the labelled states of a round, created if they are not on disk."""
        path = self._states_path(number)
        if not path.exists():
            start = perf_counter()
            config = self._rounds()[number]
            seed = self._chunk_seed(number, learning=False)
            given = env_arguments(self._config.options, self._limits)
            labeller, explore = self._labeller(config, seed)
            labelled = labels.collect(
                WorkflowSchedulingEnv(self._phases[-1], record=False, **given),
                labeller,
                states=math.ceil(config.states / config.rounds),
                seed=seed,
                # In later rounds, the states are those that the present learner visits.
                learner=self._learner.agent() if number > 0 else None,
                explore=explore,
                discount=self._config.discount,
            )
            labels.save_states(path, labelled)
            self._say(
                f"  round {number + 1}: {labelled[labels.RETURNS].size} states labelled in "
                f"{perf_counter() - start:.0f} s"
            )
        return labels.load_states(path)

    def _labeller(self, config: SupervisedConfig, seed: int) -> tuple[labels.Labeller, float]:
        """Return the labeller of a round, and the probability of random actions."""
        if isinstance(config, ExpertIterationConfig):
            return labels.RolloutLabeller(config, seed), config.explore
        assert isinstance(config, ImitationConfig)
        if self._teachers is None:
            # Shared by all rounds: finding the best teachers takes time.
            self._teachers = labels.PolicyLabeller(config.teachers, self._groups[-1])
        return self._teachers, 0.0

    def _states_path(self, number: int) -> Path:
        return self._directory / f"{number}-{STATES}"

    def _learn(self) -> None:
        config, progress = self._config.agent.learning, self._progress
        assert config is not None
        every = self._config.validation.every
        if isinstance(config, PpoConfig):
            block = config.lanes * config.rollout
            every = max(1, round(every / block)) * block
        shares = [phase.share for phase in self._config.curriculum.phases]
        ends = [config.steps * part / sum(shares) for part in accumulate(shares)]
        while progress.chunks < math.ceil(config.steps / every):
            steps = progress.steps
            phase = next(i for i, end in enumerate(ends) if steps < end or end == ends[-1])
            self._learner.use_phase(phase)
            self._learner.seed(self._chunk_seed(progress.chunks, learning=True))
            self._curves.last.clear()
            self._learner.learn(config, min(every, config.steps - steps))
            progress.chunks += 1
            progress.steps, progress.updates = self._learner.steps, self._learner.updates
            losses = {k: v for k, v in self._curves.last.items() if k.startswith("train/")}
            self._close_chunk(losses, patient=True)
            if progress.stopped is not None:
                break

    def _chunk_seed(self, number: int, *, learning: bool) -> int:
        sequence = np.random.SeedSequence([self._config.seed, int(learning), number])
        return int(sequence.generate_state(1)[0] >> 1)

    def _close_chunk(self, losses: dict[str, float], *, patient: bool) -> None:
        """Validate, keep the best checkpoint, write the state; stop when patience runs out."""
        progress = self._progress
        policy = Learned.of_agent(self._learner.agent())
        ratio = self._validation.mean_ratio(policy)
        better = progress.best is None or ratio < progress.best
        if better:
            progress.best, progress.best_steps, progress.since_best = ratio, progress.steps, 0
        elif patient:
            progress.since_best += 1
        progress.seconds = perf_counter() - self._started
        row = {
            "epochs": progress.epochs,
            "steps": progress.steps,
            "seconds": progress.seconds,
            "latency_ratio": ratio,
            "return": self._learner.mean_return(),
        } | losses
        progress.curve.append({k: float(v) for k, v in row.items() if math.isfinite(v)})
        logged = {"validation/latency_ratio": ratio} | losses
        self._curves.log(logged, progress.steps + progress.epochs)
        done = f"epoch {progress.epochs}" if progress.steps == 0 else f"{progress.steps} steps"
        best = " (best)" if better else ""
        self._say(f"  {done}, {progress.seconds:.0f} s: latency / RoundRobin {ratio:.4f}{best}")
        if better:
            self._keep_best(ratio)
        if patient and progress.since_best >= self._config.validation.patience:
            progress.stopped = f"{progress.since_best} validations without a better one"
        write_state(self._directory, progress, self._learner.save)

    def _keep_best(self, ratio: float) -> None:
        config, progress = self._config, self._progress
        plain = config.model_dump(mode="json", include={"curriculum", "agent", "reward", "seed"})
        save_checkpoint(
            self._directory / BEST,
            self._learner.weights(),
            agent=config.agent.name,
            network=config.agent.network,
            env=config.options,
            sizes=Sizes(**self._limits._asdict()),
            values="q" if self._learner.is_dqn else "logits",
            training={"title": config.title, "config_hash": config.hash}
            | plain
            | progress.model_dump(include={"epochs", "steps"})
            | {"seconds": round(progress.seconds, 1), "validation": ratio}
            | provenance.made_with(),
        )
        flush_all(self._directory / BEST)

    def _fail(self) -> None:
        best = self._progress.best
        kept = (
            f"the best checkpoint before that ({best:.4f} at {self._progress.best_steps} steps) is "
            f"{self._directory / BEST}"
            if best is not None
            else "no checkpoint had been reached"
        )
        text = (
            f"training stopped: parameters are not finite after {self._learner.steps} steps; "
            f"{kept}; a lower learning rate may help"
        )
        mark_failed(self._directory, text)
        raise JobFailedError(f"{self._config.title}: {text}", self._config.paths.runs)

    def _finish(self) -> TrainResult:
        config, progress = self._config, self._progress
        assert progress.best is not None
        best = Learned(name=config.agent.name, checkpoint=self._directory / BEST)
        picture = self._directory / "gantt.png"
        self._validation.draw_schedules(best, picture)
        self._curves.picture("gantt", picture)
        test = None
        if config.test and config.curriculum.test is not None:
            test = EvaluationSet(build_problems(config.curriculum.test, train=False)).score(best)
        rounds = range(len(self._rounds()))
        states = (labels.load_states(self._states_path(number)) for number in rounds)
        result = TrainResult(
            status="ok",
            title=config.title,
            agent=config.agent.name,
            curriculum=config.curriculum.name,
            seed=config.seed,
            steps=progress.steps,
            labelled_states=sum(one[labels.RETURNS].size for one in states),
            best=progress.best,
            best_steps=progress.best_steps,
            seconds=progress.seconds,
            stopped=progress.stopped,
            validation=self._validation.score(best),
            test=test,
            config_hash=config.hash,
            **provenance.made_with(),
        )
        write_table(self._directory / "curve.parquet", progress.curve)
        write_card(self._directory / BEST, config, result, self._command)
        write_text(self._directory / RESULT, result.model_dump_json(indent=1) + "\n")
        return result
