"""What is trained, and how: networks, imitation, learning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fate_gym.lab.config import NAME, Config
from policies.learned.checkpoint import NetworkSpec


class PpoConfig(Config):
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


class DqnConfig(Config):
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


class ImitationConfig(Config):
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


class AgentConfig(Config):
    """What is trained: a network, and how."""

    name: str = Field(pattern=NAME)
    network: NetworkSpec
    imitation: ImitationConfig | None = None
    learning: Annotated[PpoConfig | DqnConfig, Field(discriminator="algorithm")] | None = None
