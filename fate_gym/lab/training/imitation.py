"""Supervised learning on labelled states."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fate_gym.env.spec import MASK
from fate_gym.lab.training.labels import RETURNS, TARGETS, Arrays


def imitate(
    policy: Any, data: Arrays, batch_size: int, *, seed: int, rate: float
) -> dict[str, float]:
    """Train for one epoch of supervised learning; return its mean losses and agreement.

    Args:
        policy: a `policies.learned.sb3.CandidatePolicy`.
        data: labelled states from `fate_gym.lab.training.labels.collect`.
        batch_size: states per gradient step.
        seed: seed of the shuffling.
        rate: learning rate.
    """
    for group in policy.optimizer.param_groups:
        group["lr"] = rate
    policy.set_training_mode(True)
    order = np.random.default_rng(seed).permutation(data[RETURNS].size)
    sums = np.zeros(4)
    # Returns scale with the unit of the rewards; the loss of the labels does not.
    spread = max(float(data[RETURNS].var()), 1e-9)
    network = policy.features_extractor.network
    for start in range(0, order.size, batch_size):
        chosen = order[start : start + batch_size]
        batch = {
            key: torch.from_numpy(value[chosen].astype(np.float32)) for key, value in data.items()
        }
        scores, summary = network(batch)
        scores = scores.masked_fill(batch[MASK] < 0.5, -1e9)
        loss = -(batch[TARGETS] * scores.log_softmax(1)).sum(1).mean()
        values = policy.value_net(summary).squeeze(1)
        value_loss = torch.nn.functional.mse_loss(values, batch[RETURNS]) / spread
        policy.optimizer.zero_grad()
        (loss + 0.5 * value_loss).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        policy.optimizer.step()
        best = batch[TARGETS].gather(1, scores.argmax(1, keepdim=True)).squeeze(1)
        agrees = (best >= batch[TARGETS].amax(1)).float().mean()
        sums += np.array([loss.item(), value_loss.item(), agrees.item(), 1.0]) * chosen.size
    names = ("loss", "value_loss", "agreement")
    return {f"imitation/{name}": float(x / sums[3]) for name, x in zip(names, sums, strict=False)}
