"""The validated configuration of a training, as composed by Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fate_gym.env.options import EnvOptions
from fate_gym.errors import InputError
from fate_gym.lab.config import NAME, Config, PathsConfig, TrackingConfig
from fate_gym.lab.errors import not_chosen
from fate_gym.lab.provenance import digest
from fate_gym.lab.training.agent_config import AgentConfig, Count, PositiveWeight, Steps
from fate_gym.workloads.config import parse
from policies.learned.checkpoint import check_observation

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""In the range of NumPy's global generator, which Stable-Baselines3 seeds."""


class RewardConfig(Config):
    """The environment's reward; its discount is also the learner's unless the agent sets one."""

    kind: Literal["makespan", "latency", "shaped", "shaped_latency"]
    discount: float = Field(1.0, gt=0, le=1)


class Seeds(Config):
    """Consecutive workload seeds."""

    first: Seed
    count: Count

    def __iter__(self) -> Any:
        return iter(range(self.first, self.first + self.count))


class ProblemSet(Config):
    """The problems of some suites, for several seeds."""

    suites: tuple[str, ...] = Field(min_length=1)
    seeds: Seeds
    clusters: tuple[str, ...] = Field((), description="each suite on each; none: the suite's own")
    executions: tuple[Literal["exclusive", "batching"], ...] = Field(
        (), description="how devices run, each; none: as the cluster says"
    )
    loads: tuple[PositiveWeight, ...] = Field(
        (), description="of streams, each; none: as the suite says"
    )
    max_stages: Count | None = Field(None, description="larger problems are left out")


Problems = Annotated[tuple[ProblemSet, ...], Field(min_length=1)]


class Phase(Config):
    """A phase of the training with its own problems, each drawn equally often."""

    problems: Problems
    share: PositiveWeight = Field(description="of the steps; shares are normalised")


class Curriculum(Config):
    """Problems for training (easy ones first), choosing the checkpoint, and testing."""

    name: str = Field(pattern=NAME)
    phases: tuple[Phase, ...] = Field(min_length=1)
    validation: Problems
    test: Problems | None = None


class ValidationConfig(Config):
    """How often the agent is validated, and when training stops early."""

    every: Steps = Field(description="steps; also how much a killed training loses")
    patience: Steps = Field(description="validations without a better one: stop")


class TrainConfig(Config):
    """Configuration of one training."""

    name: str = Field("train", pattern=NAME, description="names the directory below paths.runs")
    agent: AgentConfig
    env: dict[str, Any] = Field({}, description="options of the environment, reward aside")
    reward: RewardConfig
    curriculum: Curriculum
    validation: ValidationConfig
    seed: Seed = Field(0, description="of weights, exploration and episodes")
    test: bool = Field(False, description="play the test problems with the best checkpoint")
    tracking: TrackingConfig = TrackingConfig()
    paths: PathsConfig = PathsConfig()

    @property
    def title(self) -> str:
        """``curriculum/agent/s<seed>``."""
        return f"{self.curriculum.name}/{self.agent.name}/s{self.seed}"

    @property
    def discount(self) -> float:
        """The learner's gamma: the agent's own, or else that of the reward."""
        learning = self.agent.learning
        own = learning.discount if learning is not None else None
        return self.reward.discount if own is None else own

    @property
    def options(self) -> EnvOptions:
        """Options of the environment, including the reward."""
        values = dict(self.env) | {
            "reward": self.reward.kind,
            "discount": self.reward.discount,
            "dag": self.agent.network.kind == "graph",
        }
        return parse(values, EnvOptions, source="env")

    @property
    def hash(self) -> str:
        """8 hex digits, a digest of all options that affect the weights."""
        return digest(self.model_dump(mode="json", exclude={"name", "tracking", "paths", "test"}))

    @property
    def directory(self) -> Path:
        """``<runs>/<name>/<curriculum>/<agent>/s<seed>-<hash>``."""
        place = self.paths.runs / self.name / self.curriculum.name / self.agent.name
        return place / f"s{self.seed}-{self.hash}"


def parse_train_config(values: Mapping[str, Any]) -> TrainConfig:
    """Validate a composed configuration.

    Raises:
        InputError: an option is invalid; it names the first one.
    """
    for group in ("agent", "curriculum", "reward"):
        if not isinstance(values.get(group), Mapping):
            raise not_chosen(group)
    config = parse(values, TrainConfig, source="train")
    agent = config.agent
    if agent.imitation is None and agent.iteration is None and agent.learning is None:
        raise InputError(
            "the agent neither imitates nor learns",
            source="train",
            field="agent",
            remedy="give agent.imitation, agent.iteration or agent.learning",
        )
    check_observation(config.agent.network, config.options, "train")
    return config
