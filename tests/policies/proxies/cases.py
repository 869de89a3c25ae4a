"""Small problems for the rules of the proxies. No test depends on the catalogue's numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator


def fixed(id: str, **seconds: float) -> Stage:
    """Return a stage with given seconds on each device."""
    return Stage(id=id, seconds_on=seconds)


def call(
    id: str,
    model: str = "Llama-3.1-8B",
    *,
    group: str | None = None,
    prefix: int = 0,
    own: int = 100,
    output: int = 10,
    queries: int = 1,
) -> Stage:
    """Return a stage of LLM calls."""
    return Stage(
        id=id,
        model=model,
        queries=queries,
        prefix_group=group,
        prefix_tokens=prefix,
        prompt_tokens=own,
        output_tokens=output,
    )


def problem(
    *workflows: Iterable[Stage],
    devices: int = 3,
    edges: Mapping[int, Iterable[tuple[str, str]]] | None = None,
    arrivals: tuple[float, ...] = (),
    shards: int = 1,
    inherited: int = 0,
    sequences: int | None = None,
) -> Problem:
    """Return workflows on equal GPUs ``d0``, ``d1``, …; edges by number of the workflow.

    With ``sequences`` the devices batch continuously, with at most that many queries.
    """
    gpus = tuple(Device(id=f"d{i}", gpu="A100-80") for i in range(devices))
    cluster = Cluster(id="equal", devices=gpus)
    if sequences is not None:
        cluster = Cluster(id="equal", devices=gpus, execution="batching", max_sequences=sequences)
    flows = [
        Workflow(
            id=f"w{i}",
            stages=tuple(stages),
            edges=tuple(
                Edge(parent=a, child=b, inherited_tokens=inherited)
                for a, b in (edges or {}).get(i, ())
            ),
            arrival=arrivals[i] if arrivals else 0.0,
        )
        for i, stages in enumerate(workflows)
    ]
    return Problem.build(cluster, flows, options=Options(max_shards=shards))


def forward(simulator: Simulator) -> None:
    """Advance to the next event, whatever it is."""
    simulator.wait()
