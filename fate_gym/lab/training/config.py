"""The composed configuration of a training as checked models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fate_gym.env.spec import EnvOptions
from fate_gym.errors import InputError
from fate_gym.lab.config import PathsConfig, TrackingConfig
from fate_gym.lab.hydra_app import not_chosen
from fate_gym.lab.results import dump_json
from fate_gym.workloads.config import parse
from policies.learned.checkpoint import NetworkSpec

_NAME = r"^[A-Za-z0-9][\w.+-]*$"


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PpoConfig(_Config):
    """MaskablePPO of sb3-contrib."""

    algorithm: Literal["ppo"] = "ppo"
    steps: PositiveInt = Field(description="decisions, over all lanes")
    lanes: PositiveInt = Field(64, description="environments that step together")
    rollout: PositiveInt = Field(128, description="steps of each lane between two updates")
    batch_size: PositiveInt = 2048
    epochs: PositiveInt = 3
    learning_rate: PositiveFloat = 1e-3
    final_rate: NonNegativeFloat = Field(0.05, description="share of it at the end; falls linearly")
    gae_lambda: float = Field(0.95, ge=0, le=1)
    clip_range: PositiveFloat = 0.2
    entropy: NonNegativeFloat = Field(0.003, description="weight of the entropy bonus")
    value_weight: PositiveFloat = 0.5
    max_grad_norm: PositiveFloat = 0.5
    target_kl: PositiveFloat | None = None


class DqnConfig(_Config):
    """DQN of Stable-Baselines3, over the legal actions."""

    algorithm: Literal["dqn"]
    steps: PositiveInt
    lanes: PositiveInt = 16
    buffer_size: PositiveInt = 20_000
    learning_starts: PositiveInt = 2_000
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 5e-4
    final_rate: NonNegativeFloat = 0.05
    train_freq: PositiveInt = Field(4, description="steps of each lane between two updates")
    gradient_steps: PositiveInt = 4
    target_update_interval: PositiveInt = Field(2_000, description="steps")
    exploration_fraction: float = Field(0.3, gt=0, le=1)
    exploration_final: float = Field(0.02, ge=0, le=1)


class ImitationConfig(_Config):
    """Behaviour cloning: the teacher labels states, and the network learns to agree.

    With several rounds the later states are those that the learner itself comes to (DAgger; Ross,
    Gordon and Bagnell 2011).
    """

    teacher: str = Field("rollout", description="rollout, or the name of a policy")
    params: dict[str, Any] = Field({}, description="parameters of the policy")
    states: PositiveInt = Field(description="labelled states")
    rounds: PositiveInt = Field(3, description="in the first the teacher plays, then the learner")
    epochs: PositiveInt = Field(20, description="of each round")
    batch_size: PositiveInt = 512
    learning_rate: PositiveFloat = 1e-3
    placements: PositiveInt = Field(
        4, description="of a stage that rollouts value: those that end first"
    )
    temperature: PositiveFloat = Field(
        0.002, description="of a rollout's labels: seconds that matter, as a part of what is left"
    )


class AgentConfig(_Config):
    """What is trained: a network, and how."""

    name: str = Field(pattern=_NAME)
    network: NetworkSpec
    imitation: ImitationConfig | None = None
    learning: Annotated[PpoConfig | DqnConfig, Field(discriminator="algorithm")] | None = None


class RewardConfig(_Config):
    """The reward of the environment; the discount is also the learner's."""

    kind: Literal["makespan", "latency", "shaped"]
    discount: float = Field(1.0, gt=0, le=1)


class Seeds(_Config):
    """Consecutive seeds of workloads."""

    first: int = Field(ge=0)
    count: PositiveInt

    def __iter__(self) -> Any:
        return iter(range(self.first, self.first + self.count))


class ProblemSet(_Config):
    """Problems: suites by name, with seeds."""

    suites: tuple[str, ...] = Field(min_length=1)
    seeds: Seeds
    clusters: tuple[str, ...] = Field((), description="each suite on each; none: the suite's own")
    max_stages: PositiveInt | None = Field(None, description="larger problems are left out")


class Phase(ProblemSet):
    """A part of the training with problems of its own."""

    share: PositiveFloat = Field(description="of the steps; shares are normalised")


class Curriculum(_Config):
    """Problems to train on, easy ones first; to choose the checkpoint by; and to test on."""

    name: str = Field(pattern=_NAME)
    phases: tuple[Phase, ...] = Field(min_length=1)
    validation: ProblemSet
    test: ProblemSet | None = None


class ValidationConfig(_Config):
    """When the agent plays the validation problems."""

    every: PositiveInt = Field(description="steps; also how much a killed training loses")
    patience: PositiveInt = Field(description="validations without a better one: stop")


class TrainConfig(_Config):
    """One training."""

    name: str = Field("train", pattern=_NAME, description="names the directory below paths.runs")
    agent: AgentConfig
    env: dict[str, Any] = Field({}, description="options of the environment, reward aside")
    reward: RewardConfig
    curriculum: Curriculum
    validation: ValidationConfig
    seed: int = Field(0, ge=0, description="of weights, exploration and episodes")
    test: bool = Field(False, description="play the test problems with the best checkpoint")
    tracking: TrackingConfig = TrackingConfig()
    paths: PathsConfig = PathsConfig()

    @property
    def title(self) -> str:
        """``curriculum/agent/s<seed>``."""
        return f"{self.curriculum.name}/{self.agent.name}/s{self.seed}"

    @property
    def options(self) -> EnvOptions:
        """Options of the environment."""
        values = dict(self.env) | {
            "reward": self.reward.kind,
            "discount": self.reward.discount,
            "dag": self.agent.network.kind == "graph",
        }
        return parse(values, EnvOptions, source="env")

    @property
    def hash(self) -> str:
        """8 hex digits of everything that changes the weights."""
        kept = self.model_dump(mode="json", exclude={"name", "tracking", "paths", "test"})
        return hashlib.sha256(dump_json(kept).encode()).hexdigest()[:8]

    @property
    def directory(self) -> Path:
        """``<runs>/<name>/<curriculum>/<agent>/s<seed>-<hash>``."""
        place = self.paths.runs / self.name / self.curriculum.name / self.agent.name
        return place / f"s{self.seed}-{self.hash}"


def parse_train_config(values: Mapping[str, Any]) -> TrainConfig:
    """Check a composed configuration.

    Raises:
        InputError: naming the first option at fault.
    """
    for group in ("agent", "curriculum", "reward"):
        if not isinstance(values.get(group), Mapping):
            raise not_chosen(group)
    config = parse(values, TrainConfig, source="train")
    if config.agent.imitation is None and config.agent.learning is None:
        raise InputError(
            "the agent neither imitates nor learns",
            source="train",
            field="agent",
            remedy="give agent.imitation, agent.learning or both",
        )
    _ = config.options
    return config


__all__ = [
    "AgentConfig",
    "Curriculum",
    "DqnConfig",
    "ImitationConfig",
    "Phase",
    "PpoConfig",
    "ProblemSet",
    "TrainConfig",
    "parse_train_config",
]
