"""A GPU with its own constants, which apply to its devices and no others."""

from __future__ import annotations

import pytest

from fate_gym import catalog
from fate_gym.catalog import Gpu, Own
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow
from fate_gym.sim import Simulator, compile_problem
from fate_gym.validator import assert_valid
from fate_gym.workloads.load import device_seconds
from policies import make_policy

OWN = Own(
    mfu_ramp_tokens=300, linear_passes=90, attention_passes=9, linear_layer_s=4e-4,
    attention_layer_s=1e-4, prefill_launch_s=0.02, load_init_s=3, pcie_gb_s=2, peer_gb_s=1,
)  # fmt: skip


def problem(execution: str, own: Own | None) -> Problem:
    """Return two stages, a tool and a stage, on a measured GPU and a catalogue GPU in one node."""
    mine = catalog.gpu("L40S").model_copy(update={"name": "mine", "own": own})
    devices = (Device(id="mine", gpu="mine"), Device(id="other", gpu="L40S"))
    cluster = Cluster(
        id="c", devices=devices, gpus=(mine,),
        execution="batching" if execution == "batching" else "exclusive",
    )  # fmt: skip
    sizes = {"model": "Llama-3.1-8B", "queries": 3, "prompt_tokens": 700, "output_tokens": 40}
    stages = (
        Stage(id="a", **sizes, allowed_devices=("mine",)),
        Stage(id="b", **sizes, allowed_devices=("other",)),
        Stage(id="t", tool_seconds=0.1),
        Stage(id="c", **sizes, allowed_devices=("mine",)),
    )
    edges = tuple(
        Edge(parent=parent, child=child, bytes=1e9)
        for parent, child in (("a", "b"), ("b", "t"), ("t", "c"))
    )
    return Problem.build(cluster, [Workflow(id="w", stages=stages, edges=edges)])


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
def test_simulator_and_validator_agree(execution: str) -> None:
    for own in (None, OWN, *(Own(**{name: value}) for name, value in OWN)):
        assert_valid(Simulator(problem(execution, own)).run(make_policy("eft"), seed=0))


@pytest.mark.parametrize("name", [*Own.model_fields])
def test_each_constant_counts_on_its_device_alone(name: str) -> None:
    base = compile_problem(problem("exclusive", None)).arrays
    own = compile_problem(problem("exclusive", Own(**{name: getattr(OWN, name)}))).arrays
    mine, other = 0, 1
    assert own.devices[other] == base.devices[other]
    assert own.load_seconds[0, other] == base.load_seconds[0, other]
    slower = own.clean_seconds[0, mine] > base.clean_seconds[0, mine]
    assert slower == (name not in ("load_init_s", "pcie_gb_s", "peer_gb_s"))
    loads_longer = own.load_seconds[0, mine] > base.load_seconds[0, mine]
    # Without NVLink the bandwidth between GPUs follows from PCIe's.
    narrower = own.link_bandwidth[other, mine] < base.link_bandwidth[other, mine]
    assert loads_longer == (name in ("load_init_s", "pcie_gb_s"))
    assert narrower == (name in ("pcie_gb_s", "peer_gb_s"))


def test_nominal_seconds_of_workflows_follow() -> None:
    assert device_seconds(problem("exclusive", OWN)) > device_seconds(problem("exclusive", None))


def test_what_is_not_given_is_shared() -> None:
    facts = catalog.execution()
    gpu = catalog.gpu("L40S")
    assert facts.on(gpu) is facts
    partly = facts.on(gpu.model_copy(update={"own": Own(linear_passes=1)}))
    assert partly == facts.model_copy(update={"linear_passes": 1.0})


def test_gpus_without_are_written_as_before() -> None:
    gpu = catalog.gpu("L40S")
    assert "own" not in gpu.model_dump()
    with_own = gpu.model_copy(update={"own": OWN})
    assert Gpu.model_validate(with_own.model_dump(mode="json")) == with_own
    cluster = Cluster(id="c", devices=(Device(id="d", gpu="L40S"),))
    assert "gpus" not in cluster.model_dump()
