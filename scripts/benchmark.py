"""The project's own speed figures: ratios against references in the same run.

    python scripts/benchmark.py

Each figure is the best of several repetitions in this process, after compiling; the references
(SAGA's HEFT, CartPole, a memory copy) run in the same process, in turns with what they are compared
with, so the ratios carry over to other machines. One process, one thread.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

import fate_gym
from fate_gym.compiled import compiled
from fate_gym.env import WorkflowSchedulingEnv, WorkflowSchedulingVectorEnv
from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.sim import Simulator, compile_problem
from fate_gym.workloads import assign_roles, load_cluster, topologies
from policies import make_policy
from policies.list_scheduling import HeftOffline, ListScheduler, insertion_heft

ROOT = Path(__file__).resolve().parent.parent


def best_of(repetitions: int, call: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls, after one that is not counted."""
    call()
    seconds = []
    for _ in range(repetitions):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return min(seconds)


def report(figure: str, value: str, goal: str = "") -> None:
    """One line of the table."""
    print(f"{figure:66} {value:>24}  {goal}", flush=True)


def hundred_stages() -> Problem:
    """The real workflow graph whose size is nearest to 100 stages, on 8 devices."""
    chosen = min(topologies(), key=lambda t: (abs(len(t.types) - 100), t.name))
    return Problem.build(load_cluster("mixed_8"), [assign_roles(chosen, seed=0)])


def simulator_figures() -> None:
    """List-schedule runs, state copies, event rates."""
    problem = hundred_stages()
    compiled = compile_problem(problem)
    stages = len(compiled.stage_ids)
    simulator = Simulator(compiled)
    schedulers = {name: make_policy(name) for name in ("eft", "min_min", "heft", "heft_boosted")}
    schedulers["heft, committing all ready stages"] = make_policy("heft", lazy=False)
    for name, policy in schedulers.items():
        assert isinstance(policy, ListScheduler)

        def run(policy: ListScheduler = policy) -> None:
            simulator.reset()
            policy.play(simulator)

        seconds = best_of(200, run)
        report(
            f"run of {name}, {stages} stages x 8 devices, deciding included",
            f"{seconds * 1e3:.3f} ms",
            "goal < 0.5 ms",
        )
    greedy = make_policy("eft")
    seconds = best_of(20, lambda: simulator.run(greedy))
    report("the same run of eft through the Python loop, with a trace", f"{seconds * 1e3:.3f} ms")
    source, target = simulator.state, simulator.state
    seconds = best_of(2000, lambda: np.copyto(target, source))
    report(f"copy of a state ({source.nbytes} bytes)", f"{seconds * 1e6:.2f} us", "goal < 10 us")
    seconds = best_of(20, lambda: compile_problem(problem))
    report("compile the problem to arrays", f"{seconds * 1e3:.2f} ms")


def heft_against_saga() -> None:
    """Insertion HEFT on a random classical instance, against SAGA's on the same."""
    from saga import Network, TaskGraph
    from saga.schedulers.heft import HeftScheduler

    rng = np.random.default_rng(0)
    tasks, machines = 1000, 8
    cost = rng.uniform(1, 20, tasks)
    speed = rng.uniform(0.5, 2.0, machines)
    edges: dict[tuple[str, str], float] = {}
    for child in range(1, tasks):
        for parent in rng.integers(max(0, child - 40), child, size=rng.integers(1, 4)):
            edges[f"t{parent:04}", f"t{child:04}"] = float(rng.uniform(1, 20))
    problem = Problem.classical(
        {
            f"t{i:04}": {f"m{j}": float(cost[i] / speed[j]) for j in range(machines)}
            for i in range(tasks)
        },
        edges,
    )
    compiled = compile_problem(problem)
    # SAGA's mean transfer includes every machine's (free) link to itself: (M-1)/(M+1) of ours.
    priority = ranks(problem, (machines - 1) / (machines + 1))
    available = np.zeros(machines)

    def ours() -> float:
        plan = insertion_heft(compiled.buffer, 0, priority, available, 0.0)
        return float(plan.end.max())

    network = Network.create(
        nodes=[(f"m{j}", float(speed[j])) for j in range(machines)],
        edges=[(f"m{i}", f"m{j}", 1.0) for i in range(machines) for j in range(i)],
    )
    graph = TaskGraph.create(
        tasks=[(f"t{i:04}", float(cost[i])) for i in range(tasks)],
        dependencies=[(a, b, size) for (a, b), size in edges.items()],
    )
    start = perf_counter()
    reference = HeftScheduler().schedule(network, graph)
    theirs = perf_counter() - start
    seconds = best_of(20, ours)
    report("HEFT with insertion, 1000 tasks x 8 machines", f"{seconds * 1e3:.2f} ms")
    report("  SAGA 2 on the same instance", f"{theirs * 1e3:.0f} ms")
    report("  ratio", f"{theirs / seconds:.0f} x", "goal > 20 x")
    report("  makespans", f"{ours():.6f} / {reference.makespan:.6f}", "goal: the same")
    policy = HeftOffline()
    simulated = Simulator(compiled).run(policy).makespan
    report("  our plan with Topcuoglu's mean transfer, executed", f"{simulated:.6f}")


def ranks(problem: Problem, transfer_scale: float) -> np.ndarray:
    """Upward ranks with mean transfers scaled, in plain Python."""
    (workflow,) = problem.workflows
    mean = {s.id: float(np.mean(list((s.seconds_on or {}).values()))) for s in workflow.stages}
    children: dict[str, list[tuple[str, float]]] = {s.id: [] for s in workflow.stages}
    for edge in workflow.edges:
        children[edge.parent].append((edge.child, edge.bytes * transfer_scale))
    rank: dict[str, float] = {}
    for stage in reversed(workflow.stages):  # the generator numbers parents first
        tails = [size + rank[child] for child, size in children[stage.id]]
        rank[stage.id] = mean[stage.id] + max(tails, default=0.0)
    return np.array([rank[stage.id] for stage in workflow.stages])


@compiled
def draw_actions(masks: NDArray[np.int8], uniform: NDArray[Any], actions: NDArray[Any]) -> None:
    """A legal action for each row of ``masks``, given a number in [0, 1) for each; 0 if none is."""
    for i in range(masks.shape[0]):
        legal = 0
        for j in range(masks.shape[1]):
            legal += masks[i, j]
        skip = int(uniform[i] * legal)
        actions[i] = 0
        for j in range(masks.shape[1]):
            if masks[i, j]:
                if skip == 0:
                    actions[i] = j
                    break
                skip -= 1


def hundred_stage_problems() -> list[Problem]:
    """The workflow graphs whose sizes are nearest to 100 stages, each on 8 devices."""
    cluster = load_cluster("mixed_8")
    nearest = sorted(topologies(), key=lambda t: (abs(len(t.types) - 100), t.name))
    return [Problem.build(cluster, [assign_roles(chosen, seed=0)]) for chosen in nearest[:8]]


def cartpole_steps_per_s(steps: int) -> float:
    """CartPole-v1 as `gymnasium.make` gives it, random actions drawn before, resets included."""
    env = gymnasium.make("CartPole-v1")
    actions = np.random.default_rng(0).integers(0, 2, steps)
    env.reset(seed=0)
    start = process_time()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return steps / (process_time() - start)


def single_steps_per_s(env: gymnasium.Env[Any, Any], steps: int) -> float:
    """The environment as `gymnasium.make` gives it; drawing legal actions and resets included."""
    uniform = np.random.default_rng(0).random((steps, 1))
    action = np.zeros(1, np.int64)
    _, info = env.reset(seed=0)
    start = process_time()
    for i in range(steps):
        draw_actions(info["action_mask"][None], uniform[i], action)
        _, _, terminated, _, info = env.step(action[0])
        if terminated:
            _, info = env.reset()
    return steps / (process_time() - start)


def vector_steps_per_s(
    envs: WorkflowSchedulingVectorEnv, steps: int, *, count_events: bool = False
) -> tuple[float, float]:
    """Steps of all lanes a second, drawing and automatic resets included; state events a second.

    Events are what the simulator applies: commits and ends of shards, ends of split stages and of
    tools, arrivals. They are counted from what the lanes' states say, when an episode ends.
    """
    lanes = envs.num_envs
    uniform = np.random.default_rng(0).random((steps, lanes))
    actions = np.zeros(lanes, np.int64)
    _, infos = envs.reset(seed=0)
    events = 0
    start = process_time()
    for i in range(steps):
        draw_actions(infos["action_mask"], uniform[i], actions)
        _, _, terminated, _, infos = envs.step(actions)
        if count_events:
            events += sum(events_of(envs, lane) for lane in np.flatnonzero(terminated).tolist())
    seconds = process_time() - start
    return steps * lanes / seconds, events / seconds


def events_of(envs: WorkflowSchedulingVectorEnv, lane: int) -> int:
    """Events of a lane's episode, which has just ended."""
    state, problem = envs.lane_state(lane)
    shards = int(state.head[0]["shard_rows"])
    gathered = int((state.stages["shards"] > 1).sum())
    return 2 * shards + gathered + int(problem.workflows.size)


def environment_figures() -> None:
    """The Gymnasium environment, single and in a batch, against CartPole in the same process.

    In seconds of the processor: what else runs on the machine weighs less.
    """
    problems = hundred_stage_problems()
    env = gymnasium.make(fate_gym.ENV_ID, problem=problems)
    envs = fate_gym.make_vec(32, problem=problems)
    sizes = sorted(len(problem.workflows[0].stages) for problem in problems)
    print(
        f"environment: {sizes[0]}-{sizes[-1]} stages x 8 devices, window 8, K = 3, whole "
        "observation, random legal actions (one compiled draw a step), resets included"
    )
    cart, single, vector, events = [], [], [], []
    for _ in range(8):
        cart.append(cartpole_steps_per_s(10_000))
        single.append(single_steps_per_s(env, 5_000))
        cart.append(cartpole_steps_per_s(10_000))
        vector.append(vector_steps_per_s(envs, 300)[0])
        events.append(vector_steps_per_s(envs, 300, count_events=True)[1])
    reference = max(cart)
    report("CartPole-v1, one process", f"{reference:,.0f} steps/s")
    report("single environment", f"{max(single):,.0f} steps/s")
    report("  ratio to CartPole", f"{max(single) / reference:.2f}", "goal >= 0.2")
    report("vector environment, 32 lanes", f"{max(vector):,.0f} steps/s")
    report("  ratio to CartPole", f"{max(vector) / reference:.2f}", "goal >= 0.8")
    report("  state events", f"{max(events):,.0f} events/s")
    own = env.unwrapped
    assert isinstance(own, WorkflowSchedulingEnv)
    seconds = best_of(300, own.reset)
    report("  reset of the single environment", f"{seconds * 1e3:.3f} ms", "goal < 1 ms")


def memory_figure() -> None:
    """Peak memory of a large problem, in a process of its own."""
    code = "import sys; sys.path.insert(0, 'scripts');import benchmark; benchmark.large_problem()"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    report(
        "peak memory, 10,000 stages x 256 devices, one run of eft",
        output.stdout.strip(),
        "goal < 2 GB",
    )


def large_problem() -> None:
    """Build, compile and run 10,000 stages on 256 devices; print the peak memory."""
    gpus = ("H100-SXM", "A100-80", "L40S", "A10G")
    cluster = Cluster(
        id="large",
        devices=tuple(Device(id=f"d{i}", gpu=gpus[i % 4], node=f"n{i // 8}") for i in range(256)),
    )
    stages = tuple(
        Stage(
            id=f"s{i}",
            model=("Llama-3.1-8B", "Qwen2.5-7B", "Phi-3-mini")[i % 3],
            queries=4,
            prefix_group=f"g{i % 20}",
            prefix_tokens=1000,
            prompt_tokens=500,
            output_tokens=100,
        )
        for i in range(10_000)
    )
    start = perf_counter()
    simulator = Simulator(Problem.build(cluster, [Workflow(id="w", stages=stages)]))
    built = perf_counter()
    policy = make_policy("eft")
    assert isinstance(policy, ListScheduler)
    policy.play(simulator)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    run = perf_counter() - built
    print(f"{peak:.2f} GB ({built - start:.0f} + {run:.0f} s)")


def cold_start() -> None:
    """Wall-clock of one whole job of the command line, compiled code present."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "scripts/evaluate.py",
            "suite=quick",
            "policy=heft",
            f"paths.runs={folder}",
        ]
        seconds = []
        for name in ("first", "second"):
            start = perf_counter()
            subprocess.run([*command, f"name={name}"], cwd=ROOT, check=True, capture_output=True)
            seconds.append(perf_counter() - start)
    report("cold start: evaluate.py suite=quick policy=heft", f"{min(seconds):.1f} s", "goal < 6 s")


def main() -> None:
    """Print all figures."""
    print(f"python {sys.version.split()[0]}, numpy {np.__version__}; best of several repetitions")
    simulator_figures()
    environment_figures()
    heft_against_saga()
    memory_figure()
    cold_start()


if __name__ == "__main__":
    main()
