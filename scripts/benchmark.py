"""Measures the project's speed, as ratios to references in the same run.

    python scripts/benchmark.py [SECTION ...]

Sections: simulator, serving, sessions, environment, workloads, saga, planners, memory, start,
compile, decisions; and, only when named, lab, comparison and training (some minutes; the last
needs the extra rl).
Each figure is the best of several repetitions in this process, after compiling. The references
(SAGA's HEFT, CartPole, a memory copy) run in the same process, alternating with what they are
compared with, so the ratios carry over to other machines. One process, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter, process_time, thread_time
from typing import Annotated, Any

import gymnasium
import numpy as np
import pandas as pd
from numpy.typing import NDArray

import fate_gym
from fate_gym.env import WorkflowSchedulingEnv, WorkflowSchedulingVectorEnv
from fate_gym.errors import FateGymError, near_matches
from fate_gym.jit import Floats, Ints, kernel
from fate_gym.kernel.advance import start, to_decision
from fate_gym.kernel.commit import NOBODY, commit
from fate_gym.kernel.schema import LogArrays, ProblemArrays, StateArrays
from fate_gym.lab.jobs.directory import SHARDS, WORKFLOWS
from fate_gym.lab.jobs.find import find_jobs
from fate_gym.lab.jobs.result import write_result
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow
from fate_gym.sim import PlayingPolicy, Simulator, compile_problem
from fate_gym.validator import validate
from fate_gym.workloads import (
    assign_roles,
    build_suite,
    import_workflow,
    load_cluster,
    load_suite,
    load_wfformat,
    topologies,
)
from policies import make_policy, policy_specs
from policies.list_scheduling.offline import OfflineScheduler, plan_workflow
from policies.list_scheduling.rules import NO_PENALTY

ROOT = Path(__file__).resolve().parent.parent
Masks = Annotated[NDArray[np.int8], 2]


def best_of(
    repetitions: int, call: Callable[[], object], clock: Callable[[], float] = perf_counter
) -> float:
    """Return the seconds of the fastest of several calls, after an uncounted one."""
    call()
    seconds = []
    for _ in range(repetitions):
        start = clock()
        call()
        seconds.append(clock() - start)
    return min(seconds)


def report(figure: str, value: str, goal: str = "") -> None:
    """Print one line of the table."""
    print(f"{figure:66} {value:>24}  {goal}", flush=True)


def run_verb(*words: str) -> float:
    """Run ``fate-gym`` as a user does; return the seconds."""
    return run_python("-m", "fate_gym.lab.cli", *words)


def run_python(*words: str, environment: Mapping[str, str] | None = None) -> float:
    """Run Python as a user does; return the seconds."""
    start = perf_counter()
    subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env=os.environ | dict(environment or {}),
    )
    return perf_counter() - start


def llm_stage(id: str, model: str, group: int, *tokens: int, queries: int = 4) -> Stage:
    """Make a stage with a prefix group; ``tokens`` are those of prefix, prompt and output."""
    prefix, prompt, output = tokens
    return Stage(
        id=id,
        model=model,
        queries=queries,
        prefix_group=f"g{group}",
        prefix_tokens=prefix,
        prompt_tokens=prompt,
        output_tokens=output,
    )


def hundred_stages(count: int = 1) -> list[Problem]:
    """Make problems of the workflow graphs nearest to 100 stages, each on 8 devices."""
    cluster = load_cluster("mixed_8")
    nearest = sorted(topologies(), key=lambda t: (abs(len(t.types) - 100), t.name))
    return [Problem.build(cluster, [assign_roles(chosen, seed=0)]) for chosen in nearest[:count]]


def simulator_figures() -> None:
    """Measure list-schedule runs, state copies and compilation of a problem."""
    (problem,) = hundred_stages()
    compiled = compile_problem(problem)
    stages = len(compiled.stage_ids)
    simulator = Simulator(compiled)
    schedulers = {name: make_policy(name) for name in ("eft", "min_min", "heft", "heft_boosted")}
    schedulers["heft, committing all ready stages"] = make_policy("heft", lazy=False)
    for name, policy in schedulers.items():
        assert isinstance(policy, PlayingPolicy)

        def run(policy: PlayingPolicy = policy) -> None:
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
    source, target = simulator.state.buffer, simulator.state.buffer.copy()
    seconds = best_of(2000, lambda: np.copyto(target, source))
    report(f"copy of a state ({source.nbytes} bytes)", f"{seconds * 1e6:.2f} us", "goal < 10 us")
    seconds = best_of(20, lambda: compile_problem(problem))
    report("compile the problem to arrays", f"{seconds * 1e3:.2f} ms")


def heft_against_saga() -> None:
    """Measure insertion HEFT on a random classical instance, against SAGA's on the same."""
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
        arrays = compiled.arrays
        plan = plan_workflow(arrays, 0, priority, NO_PENALTY, available=available, now=0.0)
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
    policy = OfflineScheduler(name="heft_offline")
    simulated = Simulator(compiled).run(policy).makespan
    report("  our plan with Topcuoglu's mean transfer, executed", f"{simulated:.6f}")


def ranks(problem: Problem, transfer_scale: float) -> np.ndarray:
    """Compute upward ranks with scaled mean transfers, in plain Python."""
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


def chats(count: int, turns: int, devices: int, execution: str) -> Problem:
    """Make conversations with one model; each turn inherits the context of the ones before."""
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(0.25, count))
    workflows = []
    for number, arrival in enumerate(arrivals.tolist()):
        stages, edges = [], []
        for turn in range(turns):
            prompt, output = rng.integers(20, 800), rng.integers(20, 500)
            stages.append(
                Stage(
                    id=f"t{turn}",
                    model="Qwen2.5-7B",
                    queries=1,
                    prompt_tokens=int(prompt),
                    output_tokens=int(output),
                )
            )
            if turn:
                inherited = 300 * turn
                edges.append(
                    Edge(
                        parent=f"t{turn - 1}",
                        child=f"t{turn}",
                        bytes=1e3,
                        inherited_tokens=inherited,
                    )
                )
        workflows.append(
            Workflow(id=f"c{number}", arrival=arrival, stages=tuple(stages), edges=tuple(edges))
        )
    cluster = Cluster(
        id="chats",
        devices=tuple(Device(id=f"d{i}", gpu="A100-80") for i in range(devices)),
        execution=execution,
    )
    return Problem(cluster=cluster, workflows=tuple(workflows))


@kernel
def play_sticky(
    p: ProblemArrays, st: StateArrays, log: LogArrays, devices: Ints, counts: Ints
) -> int:
    """Play a run in which each workflow stays on one device, so decisions take no time."""
    start(p, st, log, 0)
    placed = 0
    while to_decision(p, st, log):
        stage = p.stages[st.ready[0]]
        devices[0] = stage.workflow % p.devices.size
        counts[0] = stage.queries
        commit(p, st, log, st.ready[0], devices, counts, 1, NOBODY)
        placed += 1
    return placed


def engine_seconds(problem: Problem, number: int) -> float:
    """Return the engine's seconds for a run, the best of ``number`` repetitions."""
    simulator = Simulator(problem, record=False)
    devices, counts = np.zeros(2, np.int64), np.zeros(2, np.int64)
    p, st, log = simulator.compiled.arrays, simulator.state, simulator.log
    return best_of(number, lambda: play_sticky(p, st, log, devices, counts))


def changes_of(problem: Problem) -> int:
    """Count the times at which a device's state changes: shards start, begin to decode, end."""
    simulator = Simulator(problem)
    devices, counts = np.zeros(2, np.int64), np.zeros(2, np.int64)
    play_sticky(simulator.compiled.arrays, simulator.state, simulator.log, devices, counts)
    shards = simulator.log.shards[: simulator.state.shard_rows]
    times = ("start", "first", "end") if problem.cluster.execution == "batching" else ("end",)
    moments = [np.tile(shards["device"], len(times)), np.concatenate([shards[t] for t in times])]
    return int(np.unique(np.stack(moments), axis=1).shape[1])


def serving_figures() -> None:
    """Measure batching devices, against exclusive ones and against stepping token by token."""
    batching, exclusive = (chats(1000, 10, 12, kind) for kind in ("batching", "exclusive"))
    seconds = {one: engine_seconds(p, 10) for one, p in ((True, batching), (False, exclusive))}
    report("engine, 1,000 chats x 10 turns x 12 devices", f"{seconds[True] * 1e3:.1f} ms", "< 200")
    ratio = seconds[False] / seconds[True]
    report("  stages a second, over exclusive devices", f"{ratio:.2f}")
    ratio *= changes_of(batching) / changes_of(exclusive)
    report("  changes of devices a second, over the same", f"{ratio:.2f}", "goal >= 0.5")
    few = chats(60, 10, 2, "batching")
    trace = Simulator(few).run(make_policy("round_robin"))
    began = perf_counter()
    faults = validate(trace)
    stepping = perf_counter() - began
    if faults:
        raise FateGymError(f"the validator disagrees: {faults[0]}")
    ratio = stepping / engine_seconds(few, 10)
    report("  over stepping through tokens (60 chats, 2 devices)", f"{ratio:,.0f} x", "goal >= 100")
    simulator = Simulator(chats(1000, 10, 12, "batching"))
    for name in ("eft", "least_loaded"):
        began = perf_counter()
        decisions = simulator.run(make_policy(name)).decision_seconds
        whole = perf_counter() - began
        report(
            f"  run of {name}, deciding included",
            f"{whole:.2f} s, {np.mean(decisions) * 1e6:.0f} us a decision",
        )


def long_sessions(count: int, turns: int, execution: str) -> Problem:
    """Make sessions whose contexts begin with 100,000 tokens; every turn is one call."""
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(30.0, count))
    workflows = []
    for number, arrival in enumerate(arrivals.tolist()):
        context = 100_000
        for turn in range(turns):
            prompt, output = int(rng.integers(200, 4000)), int(rng.integers(50, 800))
            call = Stage(
                id="call",
                model="Llama-3.1-70B",
                prefix_group=f"s{number}",
                prefix_tokens=context,
                prompt_tokens=prompt,
                output_tokens=output,
                extends_prefix=True,
            )
            context += prompt + output
            workflows.append(
                Workflow(
                    id=f"s{number}/{turn}",
                    stages=(call,),
                    arrival=arrival,
                    follows=f"s{number}/{turn - 1}" if turn else None,
                    think_seconds=float(rng.exponential(20.0)) if turn else 0.0,
                    session=f"s{number}",
                )
            )
    cluster = load_cluster("serving_8").model_copy(update={"execution": execution})
    return Problem.build(cluster, workflows)


def session_figures() -> None:
    """Measure list schedulers on a stream of 1,000 turns with long contexts, deciding included."""
    for execution in ("exclusive", "batching"):
        simulator = Simulator(long_sessions(250, 4, execution))
        for name in ("eft", "heft_boosted", "fdws_boosted", "sufferage_boosted", "dls_boosted"):
            seconds = best_of(3, partial(simulator.run, make_policy(name)))
            report(f"1,000 turns, {execution}, {name}", f"{seconds:.2f} s", "< 1")


@kernel
def draw_actions(masks: Masks, uniform: Floats, actions: Ints) -> None:
    """Draw a legal action for each row of ``masks`` from numbers in [0, 1); 0 if none is legal."""
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


_DRAW: Any = draw_actions  # called without argument checks


def cartpole_steps_per_s(steps: int) -> float:
    """Measure CartPole-v1 from `gymnasium.make`, with actions drawn before, resets included."""
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
    """Measure the environment from `gymnasium.make`; drawing actions and resets included."""
    uniform = np.random.default_rng(0).random((steps, 1))
    action = np.zeros(1, np.int64)
    draw = _DRAW.entry
    _, info = env.reset(seed=0)
    start = process_time()
    for i in range(steps):
        draw(info["action_mask"][None], uniform[i], action)
        _, _, terminated, _, info = env.step(action[0])
        if terminated:
            _, info = env.reset()
    return steps / (process_time() - start)


def vector_steps_per_s(
    envs: WorkflowSchedulingVectorEnv, steps: int, *, count_events: bool = False
) -> tuple[float, float]:
    """Measure steps of all lanes, and state events, per second; drawing and resets included.

    Events are what the simulator applies: commits and ends of shards, ends of split stages and of
    tools, arrivals. They are counted from the lanes' states when an episode ends.
    """
    lanes = envs.num_envs
    uniform = np.random.default_rng(0).random((steps, lanes))
    actions = np.zeros(lanes, np.int64)
    draw = _DRAW.entry
    _, infos = envs.reset(seed=0)
    events = 0
    start = process_time()
    for i in range(steps):
        draw(infos["action_mask"], uniform[i], actions)
        _, _, terminated, _, infos = envs.step(actions)
        if count_events:
            events += sum(events_of(envs, lane) for lane in np.flatnonzero(terminated).tolist())
    seconds = process_time() - start
    return steps * lanes / seconds, events / seconds


def events_of(envs: WorkflowSchedulingVectorEnv, lane: int) -> int:
    """Count the events of a lane's episode that has just ended."""
    state, problem = envs.lane_state(lane)
    shards = state.shard_rows
    gathered = int((state.stages["shards"] > 1).sum())
    return 2 * shards + gathered + int(problem.workflows.size)


def environment_figures() -> None:
    """Measure the environment, single and vectorised, against CartPole in the same process.

    Times are CPU seconds, which other processes on the machine affect less.
    """
    problems = hundred_stages(8)
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
    report("  ratio to CartPole", f"{max(single) / reference:.2f}", "goal >= 0.35")
    report("vector environment, 32 lanes", f"{max(vector):,.0f} steps/s")
    report("  ratio to CartPole", f"{max(vector) / reference:.2f}", "goal >= 1.0")
    report("  state events", f"{max(events):,.0f} events/s")
    own = env.unwrapped
    assert isinstance(own, WorkflowSchedulingEnv)
    seconds = best_of(300, own.reset)
    report("  reset of the single environment", f"{seconds * 1e3:.3f} ms", "goal < 1 ms")


def layered(width: int, layers: int, cluster: str) -> Problem:
    """Make layers of ``width`` stages with several models; each stage feeds two in the next."""
    models = ("Llama-3.1-8B", "Qwen2.5-7B", "Phi-3-mini", "Llama-3.1-70B-AWQ")
    stages = [
        llm_stage(
            f"s{layer}-{i}",
            models[(i + layer) % 4],
            i % 8,
            1000,
            300 + 50 * (i % 7),
            60 + 20 * (i % 5),
        )
        for layer in range(layers)
        for i in range(width)
    ]
    edges = [
        Edge(parent=f"s{layer}-{i}", child=f"s{layer + 1}-{(i + step) % width}", bytes=1e6)
        for layer in range(layers - 1)
        for i in range(width)
        for step in (0, 1)
    ]
    workflow = Workflow(id="layers", stages=tuple(stages), edges=tuple(edges))
    return Problem.build(load_cluster(cluster), [workflow])


def planner_figures() -> None:
    """Measure wall-clock times of the planners' decisions over whole runs, after compiling."""
    for width, layers, cluster, goals in (
        (64, 3, "mixed_32", {"fate": 50, "fate_rollout": 100}),
        (24, 4, "mixed_12", {"fate": None, "fate_rollout": None}),
    ):
        problem = layered(width, layers, cluster)
        size = f"{width} ready stages x {len(problem.cluster.devices)} devices"
        for name, goal in goals.items():
            policy = make_policy(name)
            simulator = Simulator(problem)
            simulator.run(policy)
            milliseconds = simulator.run(policy).decision_seconds * 1e3
            # Without decisions at which no device is idle.
            p50, p99 = np.percentile(milliseconds[milliseconds > 0.05], [50, 99])
            report(
                f"decision of {name}, {size}",
                f"P50 {p50:.1f}, P99 {p99:.1f} ms",
                f"goal P99 < {goal} ms" if goal else "goal P50 < 10 ms",
            )


def workload_figures() -> None:
    """Measure CPU times of building a suite of 1,000 workflows and importing one of 2,000 tasks."""
    spec = load_suite("agentic").model_copy(update={"tenants": 3, "runs": 18})
    cluster = load_cluster(spec.cluster)
    count = sum(len(problem.workflows) for problem in build_suite(spec, cluster, 0))
    seconds = best_of(3, lambda: build_suite(spec, cluster, 0), process_time)
    report(f"build a suite of {count} workflows", f"{seconds:.2f} s", "goal < 2 s")
    chosen = min(topologies(), key=lambda t: (abs(len(t) - 2000), t.name))
    ids = chosen.task_ids
    parents: list[list[str]] = [[] for _ in ids]
    for parent, child in chosen.edges.tolist():
        parents[child].append(ids[parent])
    tasks = [
        {"name": name, "id": name, "category": kind, "parents": before, "runtimeInSeconds": 1.0,
         "files": [{"link": "output", "name": f"{name}.out", "sizeInBytes": 1000}]}
        for name, kind, before in zip(ids, chosen.types, parents, strict=True)
    ]  # fmt: skip
    document = {"name": chosen.name, "schemaVersion": "1.4", "workflow": {"tasks": tasks}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "workflow.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        seconds = best_of(3, lambda: import_workflow(load_wfformat(path), 0), process_time)
    report(f"import a WfFormat file of {len(ids)} tasks", f"{seconds:.2f} s", "goal < 0.5 s")


def memory_figure() -> None:
    """Measure the peak memory of a large problem, in a separate process."""
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
    models = ("Llama-3.1-8B", "Qwen2.5-7B", "Phi-3-mini")
    stages = tuple(llm_stage(f"s{i}", models[i % 3], i % 20, 1000, 500, 100) for i in range(10_000))
    start = perf_counter()
    simulator = Simulator(Problem.build(cluster, [Workflow(id="w", stages=stages)]))
    built = perf_counter()
    policy = make_policy("eft")
    assert isinstance(policy, PlayingPolicy)
    policy.play(simulator)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    run = perf_counter() - built
    print(f"{peak:.2f} GB ({built - start:.0f} + {run:.0f} s)")


def hundred_ready() -> Problem:
    """Make a problem with 100 ready stages on 12 devices: ten workflows of ten branches."""
    models = ("Llama-3.1-8B", "Qwen2.5-7B", "Phi-3-mini", "Qwen2.5-14B")
    flows = []
    for w in range(10):
        stages = []
        for kind in ("first", "then"):
            for n in range(w, w + 10):
                id, queries = f"{kind}{n - w}", 4 + n % 13
                stages.append(llm_stage(id, models[n % 4], n % 7, 1500, 400, 150, queries=queries))
        edges = [
            Edge(parent=f"first{i}", child=f"then{j % 10}", bytes=1e8, inherited_tokens=100)
            for i in range(10)
            for j in (i, i + 1, i + 2)
        ]
        flows.append(Workflow(id=f"w{w}", stages=tuple(stages), edges=tuple(edges)))
    return Problem.build(load_cluster("mixed_12"), flows)


def decision_times() -> None:
    """Measure P99 decision times with 100 ready stages: all, half and one of the devices idle."""
    compiled = compile_problem(hundred_ready())
    starts = []
    for busy in (0, 6, 11):
        simulator = Simulator(compiled)
        for device in range(busy):
            stage = next(s for s in simulator.ready if compiled.clean_seconds[s, device] < np.inf)
            simulator.place(stage, (device,))
        starts.append(simulator)
    goals = {"heuristic": 1.0, "list scheduling": 1.0, "proxy": 10.0}
    slowest: dict[str, tuple[float, str]] = {}
    for name, spec in policy_specs().items():
        if spec.family not in goals:
            continue
        p99 = min(p99_of_decisions(name, starts) for _ in range(3))
        report(
            f"decision of {name}, 100 ready x 12 devices, P99",
            f"{p99:.3f} ms",
            f"goal < {goals[spec.family]:.0f} ms",
        )
        slowest[spec.family] = max(slowest.get(spec.family, (0.0, "")), (p99, name))
    for family, (p99, name) in slowest.items():
        report(f"slowest {family}: {name}", f"{p99:.3f} ms", f"goal < {goals[family]:.0f} ms")


def p99_of_decisions(name: str, starts: Sequence[Simulator]) -> float:
    """Return P99 CPU milliseconds over 100 first decisions in each of the given states.

    CPU rather than wall-clock time, which would count other processes on a busy machine.
    """
    milliseconds = []
    for simulator in starts:
        view = simulator.view()
        policy = make_policy(name)
        for _ in range(101):
            policy.reset(view, 0)
            start = thread_time()
            policy.decide(view)
            milliseconds.append((thread_time() - start) * 1e3)
        # The first call loads compiled code and solvers.
        del milliseconds[-101]
    return float(np.percentile(milliseconds, 99))


def comparison() -> None:
    """Measure the wall-clock time of a comparison: all baselines on suite real_dag, one seed."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("experiment=baselines", "suite=real_dag", "tracking=none")
        seconds = run_verb("evaluate", *options, f"paths.runs={folder}")
    report("all baselines on real_dag, one seed, all cores", f"{seconds:.0f} s", "goal < 600 s")


def compile_figures() -> None:
    """Measure compiling into an empty cache: every kernel, and what a first step needs."""
    everything = ("-m", "fate_gym.jit", "fate_gym", "policies")
    step = (
        "import gymnasium, fate_gym; env = gymnasium.make(fate_gym.ENV_ID, problem='smoke'); "
        "_, info = env.reset(seed=0); env.step(env.action_space.sample(mask=info['action_mask']))"
    )
    for figure, words, goal in (
        ("compile every kernel", everything, "goal < 120 CPU s"),
        ("gymnasium.make to the first step, nothing compiled", ("-c", step), "goal < 20 s"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall = run_python(*words, environment={"FATE_GYM_CACHE": folder})
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            report(figure, f"{wall:.0f} s, {cpu:.0f} CPU s", goal)
            report("  again", f"{run_python(*words, environment={'FATE_GYM_CACHE': folder}):.1f} s")


def cold_start() -> None:
    """Measure the wall-clock time of one whole job on the command line, after compiling."""
    with tempfile.TemporaryDirectory() as folder:
        command = ("evaluate", "suite=quick", "policy=heft", f"paths.runs={folder}")
        seconds = min(run_verb(*command, f"name={name}") for name in ("first", "second"))
    report(
        "cold start: fate-gym evaluate suite=quick policy=heft", f"{seconds:.1f} s", "goal < 6 s"
    )


def lab_figures() -> None:
    """Measure a sweep's overhead and use of the cores, and a large report."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        sweep = ["suite=quick", "policy=heft,eft,min_min,round_robin", "seed=range(50)"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall = run_verb("evaluate", "-m", *sweep, f"paths.runs={folder}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        jobs = [job.result for job in find_jobs(Path(folder) / "default") if job.result]
        work = sum(job.seconds["build"] + job.seconds["play"] for job in jobs)
        report(
            f"sweep of {len(jobs)} quick jobs with W&B offline, joblib, {cores} cores",
            f"{wall:.0f} s, cores busy {busy / (wall * cores):.0%}",
            "goal > 85 %",
        )
        overhead = (wall * cores - work) / len(jobs)
        report("  a job, beside building and playing", f"{overhead:.2f} s", "goal < 2 s")
        large = Path(folder) / "large"
        rows = large_sweep(Path(folder) / "default", large)
        seconds = run_verb("report", str(large))
        report(f"report of {rows} workflows, as a command", f"{seconds:.1f} s", "goal < 10 s")
        size = (large / "report.html").stat().st_size / 1e6
        report("  size of report.html", f"{size:.1f} MB", "goal < 8 MB")


def training_figures() -> None:
    """Measure environment and learning together (pointer network), with one training per core."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        options = ["agent=maskable_ppo", "curriculum=real_dag", f"seed=range({cores})"]
        options += ["agent.learning.steps=65536", "validation.every=65536", "tracking=none"]
        run_verb("train", "-m", *options, f"paths.runs={folder}")
        done = [json.loads(path.read_text()) for path in Path(folder).rglob("training.json")]
    total = sum(training["steps"] / training["seconds"] for training in done)
    report(
        f"training of {len(done)} agents at once, validation included",
        f"{total:,.0f} steps/s",
        "goal > 3,000 on two cores",
    )


def large_sweep(source: Path, target: Path) -> int:
    """Make result files of 20 policies x 10 seeds x 50 workflows from a small sweep; count rows."""
    (job, *_) = (job for job in find_jobs(source) if job.policy == "heft")
    assert job.result is not None
    small = job.table(WORKFLOWS)
    tiled = pd.concat([small] * (50 // len(small) + 1), ignore_index=True).iloc[:50]
    for column in ("problem", "workflow", "instance"):
        tiled[column] = [f"{name}-{number}" for number, name in enumerate(tiled[column])]
    total = 0
    for policy in range(20):
        for seed in range(10):
            noise = np.random.default_rng([policy, seed]).lognormal(0.01 * policy, 0.1, len(tiled))
            name = "round_robin" if policy == 19 else f"policy_{policy}"
            rows = tiled.assign(policy=name, seed=seed, latency=tiled["latency"] * noise)
            rows["latency_ratio"] = rows["latency"] / rows["rr_latency"]
            folder = target / job.suite / name / f"s{seed}-{policy * 10 + seed:08x}"
            shutil.copytree(job.directory, folder, ignore=shutil.ignore_patterns("wandb"))
            rows.to_parquet(folder / WORKFLOWS)
            shards = pd.read_parquet(folder / SHARDS)
            shards["schedule"] = shards["schedule"].replace("heft", name)
            shards.to_parquet(folder / SHARDS)
            changes = {"policy": name, "seed": seed, "workload_hash": f"{seed:012}"}
            write_result(folder, job.result.model_copy(update=changes))
            total += len(rows)
    return total


SECTIONS: dict[str, Callable[[], None]] = {
    "simulator": simulator_figures,
    "serving": serving_figures,
    "sessions": session_figures,
    "environment": environment_figures,
    "workloads": workload_figures,
    "saga": heft_against_saga,
    "planners": planner_figures,
    "memory": memory_figure,
    "start": cold_start,
    "compile": compile_figures,
    "decisions": decision_times,
    "lab": lab_figures,
    "comparison": comparison,
    "training": training_figures,
}
ON_DEMAND = ("lab", "comparison", "training")


def main() -> None:
    """Print all figures, or those of the sections named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    chosen = parser.parse_args().sections or [one for one in SECTIONS if one not in ON_DEMAND]
    for name in chosen:
        if name not in SECTIONS:
            parser.error(f"unknown section {name!r}: {near_matches(name, SECTIONS)}")
    print(f"python {sys.version.split()[0]}, numpy {np.__version__}; best of several repetitions")
    for name in chosen:
        SECTIONS[name]()


if __name__ == "__main__":
    main()
