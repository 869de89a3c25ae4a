"""One training: labelled states, imitation, learning, validation, checkpoints.

Work is done in *chunks*: an epoch of imitation, or as many steps as lie between two validations.
At the start of each, environments and all random numbers are seeded from (seed, chunk), so that a
training that was killed goes on from the last chunk as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import yaml
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed

from fate_gym.env import WorkflowSchedulingVectorEnv
from fate_gym.env.spec import EnvOptions, Limits
from fate_gym.lab import provenance, results
from fate_gym.lab.hydra_app import JobFailedError
from fate_gym.lab.training.card import write_card
from fate_gym.lab.training.config import DqnConfig, PpoConfig, TrainConfig
from fate_gym.lab.training.curves import Curves, learning_curves
from fate_gym.lab.training.imitation import (
    RETURNS,
    Arrays,
    Labeller,
    collect,
    imitate,
    join,
    load_data,
    save_data,
)
from fate_gym.lab.training.lanes import Lanes
from fate_gym.lab.training.problems import Exam, build_problems, common_limits
from fate_gym.lab.training.progress import (
    RESULT,
    TrainResult,
    read_progress,
    read_train_result,
    write_state,
)
from fate_gym.metrics import bootstrap_ci
from fate_gym.sim import CompiledProblem
from policies.learned.agent import Agent, PointerAgent, TorchAgent
from policies.learned.checkpoint import Sizes, save_checkpoint
from policies.learned.policy import Learned
from policies.learned.sb3 import CandidatePolicy, CandidateQPolicy, MaskedDQN

BEST = "best"
DATA = "imitation.npz"
MODEL = "model.zip"
BUFFER = "buffer.pkl"

Say = Callable[[str], None]


class NotFiniteError(Exception):
    """A parameter is not a finite number any more."""


def train(config: TrainConfig, *, command: str = "", say: Say = print) -> tuple[TrainResult, Path]:
    """Train, or go on, or find that all is done; returns the result and the directory.

    Args:
        config: what to do.
        command: what the card says of how to do it again.
        say: called with a line now and then.

    Raises:
        InputError: bad problems or options; nothing has been written.
        JobFailedError: the training broke down; the best checkpoint before that is kept.
    """
    directory = config.directory
    done = read_train_result(directory)
    if done is not None:
        say(f"{config.title}: done before, {directory}")
        return done, directory
    torch.set_num_threads(1)
    training = Training(config, say, command)
    results.prepare_directory(directory)
    resolved = config.model_dump(mode="json")
    results.write_text(directory / results.CONFIG, yaml.safe_dump(resolved, sort_keys=False))
    identity = {
        "name": f"train/{config.title}",
        "group": config.name,
        "id": f"train-{config.agent.name}-s{config.seed}-{config.hash}",
        "tags": ["learned"],
    }
    with learning_curves(config.tracking, directory, identity, resolved) as curves:
        result = training.run(curves)
    if curves.warning:
        say(f"warning: {curves.warning}")
    return result, directory


class Training:
    """A training between two states on disk.

    Args:
        config: what to do.
        say: called with a line now and then.
        command: for the card.
    """

    def __init__(self, config: TrainConfig, say: Say, command: str = "") -> None:
        self._config, self._say, self._command = config, say, command
        self._directory = config.directory
        curriculum = config.curriculum
        self._phases = [build_problems(phase, train=True) for phase in curriculum.phases]
        validation = build_problems(curriculum.validation, train=True)
        self._limits = common_limits([*self._phases, validation])
        self._exam = Exam(validation)
        self._options = config.options
        self._progress, self._kept = read_progress(self._directory)
        self._model: Any = None
        self._model_phase = -1
        self._data: Arrays | None = None
        self._rounds_loaded = 0
        self._started = perf_counter()

    def run(self, curves: Curves) -> TrainResult:
        """Do what is left."""
        self._curves = curves
        self._started = perf_counter() - self._progress.seconds
        self._use_phase(0)
        if self._kept is not None:
            self._load(self._kept)
        try:
            if self._config.agent.imitation is not None:
                self._imitate()
            if self._config.agent.learning is not None and self._progress.stopped is None:
                self._learn()
        except NotFiniteError:
            self._fail()
        return self._finish()

    # --- imitation ---

    def _imitate(self) -> None:
        config = self._config.agent.imitation
        assert config is not None
        total = config.rounds * config.epochs
        while self._progress.epochs < total:
            epoch = self._progress.epochs
            data = self._states(epoch // config.epochs)
            self._seed(epoch, learning=False)
            rate = config.learning_rate * (1.0 - 0.9 * epoch / total)
            losses = imitate(
                self._model.policy, data, config, seed=self._chunk_seed(epoch, False), rate=rate
            )
            self._check_finite()
            self._progress.epochs += 1
            self._close_chunk(losses, patient=False)

    def _states(self, number: int) -> Arrays:
        """The labelled states of a round and those before; made when they are not on disk."""
        config = self._config.agent.imitation
        assert config is not None
        parts = []
        for i in range(number + 1):
            path = self._directory / f"{i}-{DATA}"
            if not path.exists():
                # Later rounds are labelled where the learner of that moment goes.
                learner = self.agent() if i > 0 else None
                wanted = math.ceil(config.states / config.rounds)
                start = perf_counter()
                labelled = collect(
                    self._phases[-1],
                    self._options,
                    self._limits,
                    Labeller(config),
                    states=wanted,
                    seed=self._chunk_seed(i, False),
                    learner=learner,
                )
                save_data(path, labelled)
                self._say(
                    f"  round {i + 1}: {labelled[RETURNS].size} states labelled by "
                    f"{config.teacher} in {perf_counter() - start:.0f} s"
                )
            if self._data is None or i >= self._rounds_loaded:
                parts.append(load_data(path))
        if parts:
            self._data = join([*([self._data] if self._data is not None else []), *parts])
            self._rounds_loaded = number + 1
        assert self._data is not None
        return self._data

    # --- learning ---

    def _learn(self) -> None:
        config = self._config.agent.learning
        assert config is not None
        self._data = None
        ends = self._phase_ends(config.steps)
        total = self._chunks(config)
        while self._progress.chunks < total:
            chunk = self._progress.chunks
            steps = self._progress.steps
            self._use_phase(next(i for i, end in enumerate(ends) if steps < end or end == ends[-1]))
            self._seed(chunk, learning=True)
            left = 1.0 - steps / config.steps
            rate = config.learning_rate * max(config.final_rate, left)
            self._model.learning_rate = rate
            self._model.lr_schedule = lambda _, rate=rate: rate
            if isinstance(config, DqnConfig):
                self._explore(config, steps)
            self._model._last_obs = None  # the lanes start anew
            try:
                self._model.learn(
                    min(self._chunk_steps(config), config.steps - steps),
                    callback=_Watch(),
                    reset_num_timesteps=False,
                    log_interval=1 if isinstance(config, PpoConfig) else 1000,
                )
            except ValueError:
                # torch refuses a distribution made of NaN before we look.
                self._check_finite()
                raise
            self._check_finite()
            self._progress.chunks += 1
            self._progress.steps = int(self._model.num_timesteps)
            self._progress.updates = int(self._model._n_updates)
            losses = {k: v for k, v in self._curves.last.items() if k.startswith("train/")}
            if not self._close_chunk(losses, patient=True):
                break

    def _explore(self, config: DqnConfig, steps: int) -> None:
        """The exploration rate of a chunk; SB3's own schedule would start anew with each."""
        part = min(1.0, steps / (config.exploration_fraction * config.steps))
        rate = 1.0 + part * (config.exploration_final - 1.0)
        self._model.exploration_rate = rate
        self._model.exploration_schedule = lambda _: rate

    def _chunk_steps(self, config: PpoConfig | DqnConfig) -> int:
        every = self._config.validation.every
        if isinstance(config, PpoConfig):
            block = config.lanes * config.rollout
            return max(1, round(every / block)) * block
        return every

    def _chunks(self, config: PpoConfig | DqnConfig) -> int:
        return math.ceil(config.steps / self._chunk_steps(config))

    def _phase_ends(self, steps: int) -> list[float]:
        shares = [phase.share for phase in self._config.curriculum.phases]
        return [steps * part / sum(shares) for part in accumulate(shares)]

    # --- model ---

    def agent(self) -> Agent:
        """What the network is now, ready to play."""
        network = self._network()
        if self._config.agent.network.kind == "pointer":
            return PointerAgent(self._options, self._weights())
        limits = self._limits if self._config.agent.network.kind == "mlp" else None
        return TorchAgent(self._options, network, limits)

    def _network(self) -> Any:
        if isinstance(self._model, MaskedDQN):
            return self._model.q_net.features_extractor.network
        return self._model.policy.features_extractor.network

    def _weights(self) -> dict[str, Any]:
        return {name: value.numpy() for name, value in self._network().state_dict().items()}

    def _use_phase(self, number: int) -> None:
        """Let the model learn on the problems of a phase."""
        if number == self._model_phase:
            return
        config = self._config.agent.learning
        lanes = config.lanes if config is not None else 1
        env = make_env(lanes, self._phases[number], self._limits, self._options)
        if self._model is None:
            self._model = make_model(self._config, env)
            self._model.set_logger(Logger(None, [self._curves]))
        else:
            self._model.set_env(env)
        self._model_phase = number

    # --- chunks ---

    def _chunk_seed(self, number: int, learning: bool) -> int:
        sequence = np.random.SeedSequence([self._config.seed, int(learning), number])
        return int(sequence.generate_state(1)[0] >> 1)

    def _seed(self, number: int, *, learning: bool) -> None:
        seed = self._chunk_seed(number, learning)
        set_random_seed(seed)
        self._model.action_space.seed(seed)
        self._model.env.seed(seed)

    def _check_finite(self) -> None:
        if not _finite(self._model):
            raise NotFiniteError

    def _close_chunk(self, losses: dict[str, float], *, patient: bool) -> bool:
        """Validate, keep what is best, write the state. False: patience is at its end."""
        progress = self._progress
        marks = self._exam.marks(Learned.of_agent(self.agent()))
        mark = float(marks.mean())
        better = progress.best is None or mark < progress.best
        if better:
            progress.best, progress.best_steps, progress.since_best = mark, progress.steps, 0
        elif patient:
            progress.since_best += 1
        progress.seconds = perf_counter() - self._started
        row = {
            "epochs": float(progress.epochs),
            "steps": float(progress.steps),
            "seconds": progress.seconds,
            "normalised": mark,
            "return": _mean_return(self._model),
        } | losses
        progress.curve.append({k: float(v) for k, v in row.items() if math.isfinite(v)})
        self._curves.log({"validation/normalised": mark} | losses, progress.steps + progress.epochs)
        done = f"epoch {progress.epochs}" if progress.steps == 0 else f"{progress.steps} steps"
        self._say(
            f"  {done}, {progress.seconds:.0f} s: {mark:.4f} x round_robin"
            f"{' (best)' if better else ''}"
        )
        if better:
            self._keep_best(mark)
        if patient and progress.since_best >= self._config.validation.patience:
            progress.stopped = f"{progress.since_best} validations without a better one"
        write_state(self._directory, progress, self._save)
        return progress.stopped is None

    def _keep_best(self, mark: float) -> None:
        config, progress = self._config, self._progress
        save_checkpoint(
            self._directory / BEST,
            self._weights(),
            agent=config.agent.name,
            network=config.agent.network,
            env=self._options,
            sizes=Sizes(**vars(self._limits)),
            values="q" if isinstance(self._model, MaskedDQN) else "logits",
            training={
                "title": config.title,
                "config_hash": config.hash,
                "curriculum": config.curriculum.model_dump(mode="json"),
                "agent": config.agent.model_dump(mode="json"),
                "reward": config.reward.model_dump(mode="json"),
                "seed": config.seed,
                "epochs": progress.epochs,
                "steps": progress.steps,
                "seconds": round(progress.seconds, 1),
                "validation": mark,
                "versions": provenance.versions(),
                "git_sha": provenance.git_sha(),
                "machine": provenance.machine(),
            },
        )

    def _save(self, folder: Path) -> None:
        self._model.save(folder / MODEL)
        if isinstance(self._model, MaskedDQN):
            self._model.save_replay_buffer(folder / BUFFER)

    def _load(self, folder: Path) -> None:
        self._model.set_parameters(folder / MODEL)
        self._model.num_timesteps = self._progress.steps
        self._model._n_updates = self._progress.updates
        if isinstance(self._model, MaskedDQN) and (folder / BUFFER).exists():
            self._model.load_replay_buffer(folder / BUFFER)
        self._say(
            f"{self._config.title}: goes on after {self._progress.epochs} epochs and "
            f"{self._progress.steps} steps"
        )

    # --- end ---

    def _fail(self) -> None:
        best = self._progress.best
        kept = (
            f"the best checkpoint before that ({best:.4f} at {self._progress.best_steps} steps) is "
            f"{self._directory / BEST}"
            if best is not None
            else "no checkpoint had been reached"
        )
        text = (
            f"training stopped: parameters are not finite after {self._model.num_timesteps} steps; "
            f"{kept}; a lower learning rate may help"
        )
        results.mark_failed(self._directory, text)
        raise JobFailedError(f"{self._config.title}: {text}", self._config.paths.runs)

    def _finish(self) -> TrainResult:
        config, progress = self._config, self._progress
        assert progress.best is not None
        best = Learned(name=config.agent.name, checkpoint=self._directory / BEST)
        picture = self._directory / "gantt.png"
        _draw(self._exam, best, picture)
        self._curves.picture("gantt", picture)
        test = None
        if config.test and config.curriculum.test is not None:
            test = _describe(Exam(build_problems(config.curriculum.test, train=False)).marks(best))
        labelled = 0
        if config.agent.imitation is not None:
            for i in range(config.agent.imitation.rounds):
                labelled += load_data(self._directory / f"{i}-{DATA}")[RETURNS].size
        result = TrainResult(
            status="ok",
            title=config.title,
            agent=config.agent.name,
            curriculum=config.curriculum.name,
            seed=config.seed,
            steps=progress.steps,
            labelled_states=labelled,
            best=progress.best,
            best_steps=progress.best_steps,
            seconds=progress.seconds,
            stopped=progress.stopped,
            validation=_describe(self._exam.marks(best)),
            test=test,
            config_hash=config.hash,
            versions=provenance.versions(),
            git_sha=provenance.git_sha(),
            machine=provenance.machine(),
        )
        results.write_table(self._directory / "curve.parquet", progress.curve)
        write_card(self._directory / BEST, config, result, self._command)
        results.write_text(self._directory / RESULT, result.model_dump_json(indent=1) + "\n")
        return result


def make_model(config: TrainConfig, env: Lanes) -> Any:
    """An untrained model of SB3 or sb3-contrib."""
    network = config.agent.network
    kwargs = {"network": {"kind": network.kind, **network.params}}
    common: dict[str, Any] = {"seed": config.seed, "device": "cpu", "policy_kwargs": kwargs}
    gamma = config.reward.discount
    learning = config.agent.learning
    if isinstance(learning, DqnConfig):
        return MaskedDQN(
            CandidateQPolicy,
            env,
            learning_rate=learning.learning_rate,
            buffer_size=learning.buffer_size,
            learning_starts=learning.learning_starts,
            batch_size=learning.batch_size,
            train_freq=learning.train_freq,
            gradient_steps=learning.gradient_steps,
            target_update_interval=learning.target_update_interval,
            gamma=gamma,
            **common,
        )
    if learning is None:
        return MaskablePPO(CandidatePolicy, env, n_steps=2, batch_size=2, **common)
    return MaskablePPO(
        CandidatePolicy,
        env,
        learning_rate=learning.learning_rate,
        n_steps=learning.rollout,
        batch_size=learning.batch_size,
        n_epochs=learning.epochs,
        gamma=gamma,
        gae_lambda=learning.gae_lambda,
        clip_range=learning.clip_range,
        ent_coef=learning.entropy,
        vf_coef=learning.value_weight,
        max_grad_norm=learning.max_grad_norm,
        target_kl=learning.target_kl,
        **common,
    )


class _Watch(BaseCallback):
    """Stops before a rollout with parameters that are not finite."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if not _finite(self.model):
            raise NotFiniteError


def _finite(model: Any) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in model.policy.parameters())


def _mean_return(model: Any) -> float:
    recent = [episode["r"] for episode in model.ep_info_buffer or ()]
    return float(np.mean(recent)) if recent else math.nan


def make_env(
    lanes: int, problems: list[CompiledProblem], limits: Limits, options: EnvOptions
) -> Lanes:
    """Lanes that draw their problems; observations have room for all that ``limits`` allow."""
    sizes = {
        "max_devices": limits.devices,
        "max_models": max(1, limits.models),
        "max_stages": limits.stages,
        "max_edges": max(1, limits.edges),
    }
    given = options.model_dump() | sizes
    env = WorkflowSchedulingVectorEnv(lanes, problems, autoreset_mode="SameStep", **given)
    return Lanes(env)


def _describe(marks: Any) -> dict[str, Any]:
    interval = bootstrap_ci(marks, seed=0)
    return {
        "problems": int(marks.size),
        "normalised": float(marks.mean()),
        # One problem has no interval.
        "low": float(interval.low) if math.isfinite(interval.low) else None,
        "high": float(interval.high) if math.isfinite(interval.high) else None,
    }


def _draw(exam: Exam, best: Learned, path: Path) -> None:
    """The schedules of round robin, HEFT and the agent on the median problem."""
    from fate_gym.lab.measure import shard_rows
    from fate_gym.lab.plots import gantt_figure
    from fate_gym.lab.results import Schedule
    from fate_gym.sim import Simulator
    from policies.registry import make_policy

    ordered = sorted(exam.problems, key=lambda problem: problem.shape[0])
    problem = ordered[(len(ordered) - 1) // 2]
    schedules = {}
    for policy in (make_policy("round_robin"), make_policy("heft_boosted"), best):
        trace = Simulator(problem).run(policy, seed=0)
        rows = shard_rows(trace, policy.name)
        schedules[policy.name] = Schedule(problem.problem.id, list(problem.device_ids), rows)
    gantt_figure(schedules).savefig(path, dpi=110)


__all__ = ["BEST", "NotFiniteError", "Training", "make_env", "make_model", "train"]
