"""Each heuristic's rule, on cases small enough to compute by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.problem import Cluster, Device, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator
from policies import make_policy
from policies.base import OneAtATime


def independent(*rows: dict[str, float]) -> Simulator:
    """Return one task per row, on machines a, b and c, all ready at once."""
    seconds = {"all": {"a": 0.0, "b": 0.0, "c": 0.0}} | {f"t{i}": row for i, row in enumerate(rows)}
    simulator = Simulator(Problem.classical(seconds, {}))
    simulator.place(0, (0,))
    return simulator


def models(*stages: Stage, devices: int = 3) -> Simulator:
    """Return independent stages on equal GPUs with room for several models."""
    cluster = Cluster(
        id="equal", devices=tuple(Device(id=f"d{i}", gpu="A100-80") for i in range(devices))
    )
    options = Options(max_shards=1)
    return Simulator(
        Problem.build(cluster, [Workflow(id="w", stages=tuple(stages))], options=options)
    )


def llama(id: str, prefix: int = 0, group: str = "g", output: int = 10) -> Stage:
    return Stage(
        id=id,
        model="Llama-3.1-8B",
        prefix_group=group if prefix else None,
        prefix_tokens=prefix,
        prompt_tokens=100,
        output_tokens=output,
    )


def qwen(id: str, output: int = 10) -> Stage:
    return Stage(id=id, model="Qwen2.5-7B", prompt_tokens=100, output_tokens=output)


def chosen(policy: str, simulator: Simulator, stage: int) -> int:
    """Return the device chosen for a ready stage in the simulator's state."""
    heuristic = make_policy(policy)
    assert isinstance(heuristic, OneAtATime)
    view = simulator.view()
    heuristic.reset(view, 0)
    return heuristic.choose(view, stage)


def devices_of(policy: str, simulator: Simulator, seed: int = 0) -> list[int]:
    """Return the device of every stage in a whole run."""
    shards = simulator.run(make_policy(policy), seed=seed).shards
    return [int(device) for device in shards["device"][np.argsort(shards["stage"])]]


def test_the_first_ready_stage_goes_first() -> None:
    """Whatever its length: first come, first served, and one stage a decision."""
    simulator = independent({"a": 9.0}, {"a": 1.0}, {"a": 5.0})
    policy = make_policy("least_loaded")
    view = simulator.view()
    policy.reset(view, 0)
    assert [assignment.stage for assignment in policy.decide(view)] == [simulator.ready[0]]
    order = [int(stage) for stage in simulator.run(policy).shards["stage"]]
    assert order == [0, 1, 2, 3]


def test_round_robin_takes_turns() -> None:
    simulator = independent(*[{"a": 1.0, "b": 5.0, "c": 9.0}] * 6)
    # The first task of `independent` takes the first turn.
    assert devices_of("round_robin", simulator) == [0, 1, 2, 0, 1, 2, 0]


def test_round_robin_skips_devices_that_cannot_host() -> None:
    anywhere = {"a": 1.0, "b": 1.0, "c": 1.0}
    simulator = independent({"c": 1.0}, anywhere, {"c": 1.0}, {"b": 1.0}, anywhere, {"a": 1.0})
    # a; b cannot: c; then a again; b cannot: c; back past a: b; c; a.
    assert devices_of("round_robin", simulator) == [0, 2, 0, 2, 1, 2, 0]


def test_random_takes_any_eligible_device_and_heeds_its_seed() -> None:
    simulator = independent(*[{"a": 1.0, "c": 1.0}] * 40)
    first = devices_of("random", simulator, seed=1)
    assert set(first[1:]) == {0, 2}
    assert first == devices_of("random", simulator, seed=1)
    assert first != devices_of("random", simulator, seed=2)


def test_random_gives_equal_chances() -> None:
    simulator = independent(*[{"a": 1.0, "b": 1.0, "c": 1.0}] * 900)
    counts = np.bincount(devices_of("random", simulator, seed=0)[1:], minlength=3)
    # 300 expected, standard deviation 14.
    assert (abs(counts - 300) < 60).all()


def test_least_loaded_takes_the_queue_that_drains_first() -> None:
    row = {"a": 5.0, "b": 3.0, "c": 4.0}
    simulator = independent(row, row, row, {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "c": 1.0})
    for stage, device in ((1, 0), (2, 1), (3, 2)):
        simulator.place(stage, (device,))
    assert chosen("least_loaded", simulator, 4) == 1
    # Only a and c can run the next.
    assert chosen("least_loaded", simulator, 5) == 2


def test_least_loaded_takes_the_first_of_equals() -> None:
    simulator = independent({"b": 1.0, "c": 1.0})
    assert chosen("least_loaded", simulator, 1) == 1


def test_least_loaded_does_not_look_at_speed() -> None:
    simulator = independent({"a": 50.0, "b": 1.0, "c": 1.0})
    assert chosen("least_loaded", simulator, 1) == 0


def test_resident_first_queues_behind_its_model() -> None:
    simulator = models(llama("x", output=900), llama("y"))
    simulator.place(0, (1,))
    assert chosen("resident_first", simulator, 1) == 1
    assert chosen("least_loaded", simulator, 1) == 0


def test_resident_first_takes_the_least_loaded_holder() -> None:
    simulator = models(llama("x", output=900), llama("y", output=10), llama("z"))
    simulator.place(0, (1,))
    simulator.place(1, (2,))
    assert chosen("resident_first", simulator, 2) == 2


def test_resident_first_without_a_holder_is_least_loaded() -> None:
    simulator = models(qwen("x"), llama("y"))
    simulator.place(0, (0,))
    assert chosen("resident_first", simulator, 1) == 1


def test_resident_first_ignores_holders_that_may_not_run_the_stage() -> None:
    barred = llama("y").model_copy(update={"allowed_devices": ("d0", "d2")})
    simulator = models(llama("x"), barred)
    simulator.place(0, (1,))
    assert chosen("resident_first", simulator, 1) == 0


@pytest.mark.parametrize(("group", "device"), [("g", 1), ("h", 0)])
def test_prefix_affinity_follows_the_prefix(group: str, device: int) -> None:
    simulator = models(llama("x", prefix=1000, output=900), llama("y", prefix=1000, group=group))
    simulator.place(0, (1,))
    assert chosen("prefix_affinity", simulator, 1) == device


def test_prefix_affinity_takes_the_longest_useful_prefix() -> None:
    simulator = models(llama("x", prefix=100), llama("y", prefix=400, output=900),
                       llama("z", prefix=300), llama("u", prefix=80))  # fmt: skip
    simulator.place(0, (1,))
    simulator.place(1, (2,))
    assert chosen("prefix_affinity", simulator, 2) == 2
    # For a prefix of 80 tokens both caches are as good: the shorter queue.
    assert chosen("prefix_affinity", simulator, 3) == 1


def test_prefix_affinity_without_a_prefix_is_least_loaded() -> None:
    simulator = models(llama("x", prefix=100), llama("y"))
    simulator.place(0, (0,))
    assert chosen("prefix_affinity", simulator, 1) == 1
