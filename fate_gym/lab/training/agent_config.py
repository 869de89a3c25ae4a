"""What is trained, and how: networks, imitation, learning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fate_gym.lab.config import NAME, Config
from policies.learned.checkpoint import NetworkSpec

Steps = Annotated[int, Field(ge=1, le=10**12)]
Count = Annotated[int, Field(ge=1, le=10**7)]
"""Rows that are kept or worked on together, epochs and the like."""
Lanes = Annotated[int, Field(ge=1, le=10**4)]
Rate = Annotated[float, Field(ge=1e-12, le=1e3)]
"""Of learning. A training with far too large a one fails, and says so."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
PositiveWeight = Annotated[float, Field(ge=1e-9, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1)]


class PpoConfig(Config):
    """MaskablePPO of sb3-contrib."""

    algorithm: Literal["ppo"] = "ppo"
    steps: Steps = Field(description="decisions, over all lanes")
    lanes: Lanes = Field(64, description="environments that step together")
    rollout: Count = Field(128, description="steps of each lane between two updates")
    batch_size: Count = 2048
    epochs: Count = 3
    learning_rate: Rate = 1e-3
    final_rate: Share = Field(0.05, description="share of it at the end; falls linearly")
    gae_lambda: Share = 0.95
    clip_range: PositiveWeight = 0.2
    entropy: Weight = Field(0.003, description="weight of the entropy bonus")
    value_weight: PositiveWeight = 0.5
    max_grad_norm: PositiveWeight = 0.5
    target_kl: PositiveWeight | None = None


class DqnConfig(Config):
    """DQN of Stable-Baselines3, over the legal actions."""

    algorithm: Literal["dqn"]
    steps: Steps
    lanes: Lanes = 16
    buffer_size: Count = 20_000
    learning_starts: Count = 2_000
    batch_size: Count = 256
    learning_rate: Rate = 5e-4
    final_rate: Share = 0.05
    train_freq: Count = Field(4, description="steps of each lane between two updates")
    gradient_steps: Count = 4
    target_update_interval: Count = Field(2_000, description="steps")
    exploration_fraction: float = Field(0.3, gt=0, le=1)
    exploration_final: Share = 0.02


class ImitationConfig(Config):
    """Behaviour cloning: the teacher labels states, and the network learns to agree.

    With several rounds the later states are those that the learner itself comes to (DAgger; Ross,
    Gordon and Bagnell 2011).
    """

    teacher: str = Field("rollout", description="rollout, or the name of a policy")
    params: dict[str, Any] = Field({}, description="parameters of the policy")
    states: Count = Field(description="labelled states")
    rounds: Count = Field(3, description="in the first the teacher plays, then the learner")
    epochs: Count = Field(20, description="of each round")
    batch_size: Count = 512
    learning_rate: Rate = 1e-3
    placements: Count = Field(4, description="of a stage that rollouts value: those that end first")
    temperature: PositiveWeight = Field(
        0.002, description="of a rollout's labels: seconds that matter, as a part of what is left"
    )


class AgentConfig(Config):
    """What is trained: a network, and how."""

    name: str = Field(pattern=NAME)
    network: NetworkSpec
    imitation: ImitationConfig | None = None
    learning: Annotated[PpoConfig | DqnConfig, Field(discriminator="algorithm")] | None = None
