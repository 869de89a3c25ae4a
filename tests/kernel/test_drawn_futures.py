"""What `fork_sampled` draws: running stages, shards of one stage, failures."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.problem import Cluster, Device, Failures, Options, Outage, Problem, Stage, Workflow
from fate_gym.sim import Simulator

DEVICES = ("p", "q", "r")


def problem(options: Options, *stages: Stage) -> Problem:
    """Return stages, by default three of 10 s, on three identical devices."""
    work = stages or [Stage(id=f"s{i}", seconds_on=dict.fromkeys(DEVICES, 10.0)) for i in range(3)]
    cluster = Cluster(
        id="three", devices=[Device(id=name, gpu="A10G", node="n") for name in DEVICES]
    )
    return Problem.build(cluster, [Workflow(id="w", stages=work)], options=options)


def test_what_has_run_long_is_drawn_from_what_is_left() -> None:
    """At time t the rest of a duration X is X - t, given X > t."""
    simulator = Simulator(problem(Options(uncertainty=0.5)), seed=0)
    simulator.place(0, (0,))
    simulator.place(1, (1,))
    simulator.wait()
    now, running = simulator.now, int(np.argmax(simulator.state.devices["queue_head"] >= 0))
    ends = np.array(
        [
            simulator.view().fork(seed=seed).devices["drains_at"][running]
            for seed in range(1000, 3000)
        ]
    )
    every = 10.0 * np.random.default_rng(1).lognormal(-0.125, 0.5, 200_000)
    left = every[every > now]
    assert (ends >= now).all()
    assert ends.mean() == pytest.approx(left.mean(), rel=0.03)
    assert np.median(ends) == pytest.approx(np.median(left), rel=0.03)


def test_a_stage_meets_the_same_luck_on_every_device_but_its_shards_do_not() -> None:
    stage = Stage(id="a", model="Phi-3-mini", queries=8, prompt_tokens=100, output_tokens=50)
    simulator = Simulator(problem(Options(uncertainty=0.5), stage), seed=0)
    for seed in range(1000, 1020):
        ends = []
        for devices in ((0,), (1,), (0, 1), (2, 1)):
            other = simulator.copy()
            other.restore(simulator.view().fork(seed=seed))
            other.place(0, devices)
            ends.append([float(other.state.devices["drains_at"][d]) for d in devices])
        assert ends[0] == ends[1]
        assert ends[2] == ends[3]
        assert ends[2][0] != ends[2][1]


def test_failures_to_come_are_drawn() -> None:
    """With their rate, and others than those of the run."""
    simulator = Simulator(problem(Options(failures=Failures(mtbf_s=50.0, mttr_s=5.0))), seed=0)
    times = np.array([simulator.view().fork(seed=s).devices["changes_at"] for s in range(1, 2001)])
    assert times.mean() == pytest.approx(50.0, rel=0.05)
    assert (times > 50.0).mean() == pytest.approx(np.exp(-1.0), abs=0.02)
    assert not (times == simulator.state.devices["changes_at"]).any()


def test_given_outages_are_not_foreseen() -> None:
    outage = Outage(device="p", at=5.0, seconds=2.0)
    simulator = Simulator(problem(Options(failures=Failures(outages=[outage]))), seed=0)
    assert np.isinf(simulator.view().fork(seed=3).devices["changes_at"]).all()
