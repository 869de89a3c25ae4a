"""PPO with action masks in one file, on the native vector environment.

    python docs/examples/ppo.py --problem quick --steps 200000

After CleanRL's ppo.py (Huang et al. 2022, JMLR 23(274)): everything an experiment does stands
here, top to bottom. The network scores every candidate placement with the same weights, from its
own features, those of its stage and those of the run. Needs torch.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import fate_gym

KEYS = ("stages", "candidates", "globals", "action_mask")


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="PPO with action masks")
    parser.add_argument("--problem", default="quick", help="suite or problem file")
    parser.add_argument("--steps", type=int, default=200_000, help="environment steps")
    parser.add_argument("--lanes", type=int, default=32)
    parser.add_argument("--horizon", type=int, default=64, help="steps of a lane in a rollout")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--gamma", type=float, default=1.0)
    parser.add_argument("--gae-lambda", type=float, default=0.97)
    parser.add_argument("--clip", type=float, default=0.2)
    parser.add_argument("--entropy", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Agent(nn.Module):
    """Logits of the actions and the value of a state."""

    def __init__(self, space: dict[str, tuple[int, ...]], hidden: int = 64) -> None:
        super().__init__()
        self.positions = space["candidates"][0] // space["stages"][0]
        inputs = space["stages"][1] + space["candidates"][1] + space["globals"][0]
        self.encode = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU())
        self.score = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.wait = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.value = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, observation: dict[str, Tensor]) -> tuple[Categorical, Tensor]:
        candidates, mask = observation["candidates"], observation["action_mask"] > 0
        stages = observation["stages"].repeat_interleave(self.positions, dim=1)
        run = observation["globals"][:, None].expand(-1, candidates.shape[1], -1)
        encoded = self.encode(torch.cat([stages, candidates, run], dim=2))
        legal = mask[:, :-1, None].float()
        summary = (encoded * legal).sum(1) / legal.sum(1).clamp(min=1.0)
        around = summary[:, None].expand_as(encoded)
        scores = self.score(torch.cat([encoded, around], dim=2)).squeeze(2)
        logits = torch.cat([scores, self.wait(summary)], dim=1)
        # The last observation of an episode has no legal action; nothing is drawn from it.
        mask = mask | ~mask.any(1, keepdim=True)
        return Categorical(logits=logits.masked_fill(~mask, -1e9)), self.value(summary).squeeze(1)


def tensors(observation: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The arrays of the keys that the agent sees, not copied."""
    return {key: torch.from_numpy(observation[key]) for key in KEYS}


def main() -> None:
    """Train, and print the makespans of the episodes that ended in each rollout."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    envs = fate_gym.make_vec(
        args.lanes,
        problem=args.problem,
        autoreset_mode="SameStep",
        reward="shaped",
        discount=args.gamma,
    )
    shapes = {key: envs.single_observation_space[key].shape for key in KEYS}
    agent = Agent(shapes)
    optimiser = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    observation = tensors(envs.reset(seed=args.seed)[0])
    batch = args.lanes * args.horizon
    started = time.perf_counter()

    for update in range(max(1, args.steps // batch)):
        kept: list[dict[str, Tensor]] = []
        actions = torch.zeros(args.horizon, args.lanes, dtype=torch.int64)
        log_probs, values, rewards, ends = torch.zeros(4, args.horizon, args.lanes)
        makespans: list[float] = []
        for t in range(args.horizon):
            kept.append(observation)
            with torch.no_grad():
                policy, values[t] = agent(observation)
                actions[t] = policy.sample()
                log_probs[t] = policy.log_prob(actions[t])
            following, reward, terminated, _, infos = envs.step(actions[t].numpy())
            rewards[t], ends[t] = torch.from_numpy(reward), torch.from_numpy(terminated)
            if "final_info" in infos:
                over = infos["final_info"]["metrics"]
                makespans += over["makespan"][over["_makespan"]].tolist()
            observation = tensors(following)

        with torch.no_grad():
            following_value = agent(observation)[1]
            advantages, last = torch.zeros_like(rewards), torch.zeros(args.lanes)
            for t in reversed(range(args.horizon)):
                goes_on = 1.0 - ends[t]
                error = rewards[t] + args.gamma * goes_on * following_value - values[t]
                last = error + args.gamma * args.gae_lambda * goes_on * last
                advantages[t], following_value = last, values[t]
            returns = advantages + values

        flat = {key: torch.cat([one[key] for one in kept]) for key in KEYS}
        actions, log_probs = actions.flatten(), log_probs.flatten()
        advantages, returns = advantages.flatten(), returns.flatten()
        for _ in range(args.epochs):
            for part in torch.randperm(batch).chunk(args.minibatches):
                policy, value = agent({key: rows[part] for key, rows in flat.items()})
                ratio = (policy.log_prob(actions[part]) - log_probs[part]).exp()
                advantage = advantages[part]
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                clipped = ratio.clamp(1 - args.clip, 1 + args.clip)
                loss = -torch.min(advantage * ratio, advantage * clipped).mean()
                loss = loss + 0.5 * (value - returns[part]).pow(2).mean()
                loss = loss - args.entropy * policy.entropy().mean()
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimiser.step()

        if makespans:
            steps = (update + 1) * batch
            speed = steps / (time.perf_counter() - started)
            print(
                f"{steps:8,} steps  {speed:6,.0f} steps/s  "
                f"makespan {np.mean(makespans):8.2f} s over {len(makespans)} episodes",
                flush=True,
            )


if __name__ == "__main__":
    main()
